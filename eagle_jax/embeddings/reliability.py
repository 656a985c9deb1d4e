"""How far the utility can be trusted: two encoders that share no film and no rating, on the same texts.

Films are split in halves at random, each half with all its ratings: WALS, E_D and users are fitted to
one half alone, twice. On texts that neither has seen, U's user term is

    <z_u, z> = c(z) + p_u(z),    c(z) = <mean_u z_u, z>,    p_u(z) = <z_u - mean_u z_u, z>

what everybody likes and what user u likes. The correlation of c, and of p, between the halves is the
share of the variance that is no accident of the films and ratings there were (split-half reliability;
Spearman 1910, Brown 1910): 2 r / (1 + r) is that of an encoder fitted to both.

Axis letters: `N` items, `T` texts, `F` features, `U` users, `d` width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.embeddings.domain_encoder import DomainEncoder, read_head_fit
from eagle_jax.embeddings.regression_head import DomainEncoderSettings, HeadFit, fit_head
from eagle_jax.embeddings.text_users import fit_taste
from eagle_jax.embeddings.wals import WALSSettings, fit_wals, with_item_bias


class UserTerms(NamedTuple):
    """The parts of the user term of texts."""

    common: np.ndarray  # [T]
    personal: np.ndarray  # [U, T]


class Reliability(NamedTuple):
    """Correlations between halves, and the common share of the variance of the user term."""

    common: float
    personal: float
    common_share: float


class HalfSettings(NamedTuple):
    """How an encoder is fitted; as in a run."""

    wals: WALSSettings
    head: DomainEncoderSettings
    item_bias: bool
    users_from_texts: bool


@dataclasses.dataclass(frozen=True, eq=False)
class HalfEncoder:
    """E_D and users of one half of the films."""

    fit: HeadFit
    user_embeddings: np.ndarray  # [U, d]

    def terms(self, text_features: np.ndarray) -> UserTerms:
        """What this half says of texts [T, F]."""
        return user_terms(self.user_embeddings, _encoder(self.fit).embed_features(text_features))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For an .npz file."""
        return _encoder(self.fit).to_arrays() | {"user_embeddings": self.user_embeddings}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> HalfEncoder:
        """The inverse of `to_arrays`."""
        return cls(read_head_fit(arrays), arrays["user_embeddings"])


def user_terms(user_embeddings: np.ndarray, embeddings: np.ndarray) -> UserTerms:
    """Of users [U, d] and texts [T, d]."""
    users, texts = np.asarray(user_embeddings, np.float64), np.asarray(embeddings, np.float64)
    mean = users.mean(axis=0)
    return UserTerms(texts @ mean, (users - mean) @ texts.T)


def fit_half(ratings: RatingTable, features: np.ndarray, settings: HalfSettings, seed: int) -> HalfEncoder:
    """An encoder of these ratings alone; features: of the items' texts [N, F].

    Items without a rating are not fitted to. Raises what `fit_head` raises.
    """
    wals = fit_wals(ratings, settings.wals, jax.random.key(derive_seed(seed, 0)))
    space = with_item_bias(wals) if settings.item_bias else wals
    counts = np.bincount(ratings.item_index, minlength=len(features)).astype(np.float32)
    known = np.flatnonzero(counts)
    key = jax.random.key(derive_seed(seed, 1))
    fit = fit_head(features[known], np.asarray(space.item_embeddings)[known], counts[known], settings.head, key)
    users = np.array(space.user_embeddings)
    if settings.users_from_texts:
        embedded = _encoder(fit).embed_features(features)[:, : settings.wals.dim]
        item_bias = float(wals.global_bias) + np.asarray(wals.item_bias, np.float64)
        users[:, : settings.wals.dim], _ = fit_taste(ratings, embedded, item_bias).fold_in(ratings)
    return HalfEncoder(fit, users)


def _encoder(fit: HeadFit) -> DomainEncoder:
    def is_not_asked(texts: Sequence[str]) -> np.ndarray:
        raise AssertionError(f"features of {len(texts)} texts were given")

    return DomainEncoder(is_not_asked, fit)


def halves(ratings: RatingTable, items: np.ndarray, seed: int) -> tuple[RatingTable, RatingTable]:
    """The ratings of two random halves of `items`; no item, and so no rating, is in both."""
    order = np.random.default_rng(seed).permutation(items)
    middle = len(order) // 2
    first, second = (
        ratings.take(np.flatnonzero(np.isin(ratings.item_index, part))) for part in (order[:middle], order[middle:])
    )
    return first, second


def agreement_of_halves(first: UserTerms, second: UserTerms, groups: np.ndarray, users: np.ndarray) -> Reliability:
    """Of the chosen users, over texts of the same group [T]: an anchor's candidates are compared with
    one another, since a choice is among these.

    0 where a half says nothing. Raises ValueError where no group has two texts.
    """
    groups = np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(groups)
    if counts.max(initial=0) < 2:
        raise ValueError("no two texts of one group: nothing to choose between")

    def centred(values: np.ndarray) -> np.ndarray:
        """[..., T] less the mean of its group."""
        rows = np.atleast_2d(values)
        sums = np.stack([np.bincount(groups, row, len(counts)) for row in rows])
        return rows - (sums / counts)[:, groups]

    commons = [centred(half.common) for half in (first, second)]
    personals = [centred(half.personal[users]) for half in (first, second)]
    shared, own = (np.sum(np.square(np.concatenate(parts)), axis=1).mean() for parts in (commons, personals))
    return Reliability(_correlation(*commons), _correlation(*personals), float(shared / max(shared + own, 1e-300)))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Of centred values, pooled."""
    scale = np.sqrt(np.sum(first**2) * np.sum(second**2))
    return float(np.sum(first * second) / scale) if scale > 0 else 0.0


def of_both_halves(correlation: float) -> float:
    """2 r / (1 + r): the reliability of what is fitted to both halves; 0 for one that is not positive."""
    return 2 * correlation / (1 + correlation) if correlation > 0 else 0.0
