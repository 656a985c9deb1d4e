"""Whose utility it is: users and items as ratings tell them, in the space that E_D maps texts into.

Axis letters: `N` entities, `U` users, `d` domain width.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.data.splits import Split
from eagle_jax.eagle.settings import UserSpaceSettings
from eagle_jax.embeddings.reliability import halves
from eagle_jax.embeddings.text_users import TasteModel, fit_taste
from eagle_jax.embeddings.wals import WALSOutput, WALSSettings, fold_in_users, with_item_bias

_FILE = "users.npz"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class UserSpace:
    """Behavioural embeddings, and how new users get theirs.

    fitted: as WALS left them. taste: None where users are WALS' own.
    """

    fitted: WALSOutput
    wals_settings: WALSSettings
    has_item_bias: bool
    taste: TasteModel | None = None
    users: tuple[np.ndarray, np.ndarray] | None = None  # of `taste`, as `fold_in` gives them

    @property
    def wals(self) -> WALSOutput:
        """In the form of WALS: what E_D is fitted to, and the users whose utility it is."""
        output = with_item_bias(self.fitted) if self.has_item_bias else self.fitted
        if self.users is None:
            return output
        embeddings, bias = self.users
        return output._replace(user_embeddings=embeddings, user_bias=bias)

    def fold_in(self, ratings: RatingTable) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings [U, d] and biases [U] of users who were not among those fitted."""
        if self.taste is None:
            embeddings, bias = map(np.asarray, fold_in_users(self.fitted, ratings, self.wals_settings))
        else:
            embeddings, bias = self.taste.fold_in(ratings)
        if self.has_item_bias:
            embeddings = np.concatenate([embeddings, np.ones((len(embeddings), 1))], axis=1)
        return embeddings.astype(np.float32), bias.astype(np.float32)


def make_user_space(wals: WALSOutput, wals_settings: WALSSettings, settings: UserSpaceSettings) -> UserSpace:
    """Users as WALS has them, with or without the items' biases among the coordinates."""
    return UserSpace(fitted=wals, wals_settings=wals_settings, has_item_bias=settings.item_bias)


def fitted_to_texts(
    stage: StageFolder, space: UserSpace, ratings: RatingTable, catalogue_embeddings: np.ndarray
) -> UserSpace:
    """The same space with users fitted again to E_D of the texts [N, d]; kept in the stage's users.npz.

    WALS' biases of the rated items stay: what is fitted is taste.
    """
    width = np.asarray(space.fitted.item_embeddings).shape[1]
    embeddings = np.asarray(catalogue_embeddings)[:, :width]
    item_bias = float(space.fitted.global_bias) + np.asarray(space.fitted.item_bias, np.float64)
    if not stage.is_complete():
        model = fit_taste(ratings, embeddings, item_bias)
        stage.write_arrays(_FILE, {"prior": model.prior, "noise": np.float64(model.noise)})
    kept = stage.read_arrays(_FILE)
    taste = TasteModel(item_embeddings=embeddings, item_bias=item_bias, prior=kept["prior"], noise=float(kept["noise"]))
    space = dataclasses.replace(space, taste=taste)
    return dataclasses.replace(space, users=space.fold_in(ratings))


def known_items(split: Split) -> np.ndarray:
    """Rated ones that are no held-out anchors: those that encoders may be fitted to."""
    held_out = np.concatenate([split.entities["validation"], split.entities["test"]])
    return np.setdiff1d(np.unique(split.train.item_index), held_out)


def films_apart(split: Split, seed: int) -> tuple[Split, RatingTable]:
    """The split without the ratings of a random half of the known films, and these ratings.

    Ratings of held-out anchors stay in the split: who judges has none of them.
    """
    _, apart = halves(split.train, known_items(split), seed)
    own = np.flatnonzero(~np.isin(split.train.item_index, apart.item_index))
    return dataclasses.replace(split, train=split.train.take(own)), apart
