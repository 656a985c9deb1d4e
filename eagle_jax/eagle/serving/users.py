"""Who is proposed to: users of a run by their ids, and new ones from a few ratings.

Axis letters: `d` domain width.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Mapping

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import Catalogue, RatingTable
from eagle_jax.data.prompts import PromptBook
from eagle_jax.eagle.profile_stage import rated_titles, write_profiles
from eagle_jax.eagle.roles.data_profiles import DataProfileSettings, data_profile
from eagle_jax.eagle.settings import ProfileSettings
from eagle_jax.eagle.user_space import UserSpace
from eagle_jax.embeddings.nearest import find_nearest
from eagle_jax.language_model.generation import TextGenerator


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class User:
    """What the policy reads of a user, the profile, and what the utility does."""

    user_id: str
    profile: str
    embedding: np.ndarray  # z_u [d]
    bias: float  # b_u, in the unit of the ratings


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserDirectory:
    """The users of a run, and how new ones come in."""

    catalogue: Catalogue
    space: UserSpace
    profiles: Mapping[int, str]  # by user index
    profile_settings: ProfileSettings
    data_profiles: DataProfileSettings | None  # None: the writer's
    profile_writer: TextGenerator
    book: PromptBook
    has_groups: bool = False  # profiles are of groups: a new user has that of the nearest one

    def find(self, user_id: str) -> User:
        """The user of this id; raises `UserError` where there is none, or none with a profile."""
        if user_id not in self._places:
            raise UserError(f"no user {user_id!r} in {self.catalogue.name}{meant(user_id, self._places)}")
        index = self._places[user_id]
        if index not in self.profiles:
            raise UserError(
                f"user {user_id!r} has fewer ratings than split.min_user_ratings, so the run wrote no profile: "
                "give this user as a new one, with ratings"
            )
        return User(
            user_id=user_id,
            profile=self.profiles[index],
            embedding=np.asarray(self.space.wals.user_embeddings[index]),
            bias=float(self.space.wals.user_bias[index]),
        )

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.catalogue.ratings.user_names)}

    def add(self, user_id: str, ratings: Mapping[str, float], profile: str | None, seed: int) -> User:
        """A user whom the run does not know, by the step of the fit that this user alone would get.

        ratings: item id -> stars. profile: None has one written as the run's profiles were, or takes that of the group
        whose mean embedding is nearest.
        Raises `UserError` that names what is wrong.
        """
        table = self._table(user_id, ratings)
        embedding, bias = self.space.fold_in(table)
        if profile is None and self.has_groups:
            profile = self._nearest_profile(np.asarray(embedding[0]))
        elif profile is None:
            profile = self._write_profile(user_id, table, seed)
        elif not profile.strip():
            raise UserError(f"user {user_id!r}: the profile is empty; leave it out to have one written")
        return User(user_id=user_id, profile=profile, embedding=np.asarray(embedding[0]), bias=float(bias[0]))

    def _table(self, user_id: str, ratings: Mapping[str, float]) -> RatingTable:
        known = self.catalogue.ratings
        place = {name: index for index, name in enumerate(known.item_names)}
        low, high = float(known.rating.min()), float(known.rating.max())
        if not ratings:
            raise UserError(f"user {user_id!r} has no ratings; at least one is needed")
        for item, stars in ratings.items():
            if item not in place:
                raise UserError(f"user {user_id!r} rates an unknown item {item!r}{meant(item, place)}")
            if isinstance(stars, bool) or not isinstance(stars, (int, float)) or not low <= stars <= high:
                raise UserError(
                    f"user {user_id!r}: the rating of {item!r} must be from {low:g} to {high:g}, got {stars!r}"
                )
        return dataclasses.replace(
            known,
            user_names=(user_id,),
            user_index=np.zeros(len(ratings), np.int32),
            item_index=np.array([place[item] for item in ratings], np.int32),
            rating=np.array(list(ratings.values()), np.float32),
        )

    def _nearest_profile(self, embedding: np.ndarray) -> str:
        members: dict[str, list[int]] = {}
        for user, text in self.profiles.items():
            members.setdefault(text, []).append(user)
        of_users = np.asarray(self.space.wals.user_embeddings)
        centers = np.stack([of_users[users].mean(axis=0) for users in members.values()])
        ((nearest,),), _ = find_nearest(embedding[None], centers, 1)
        return list(members)[nearest]

    def _write_profile(self, user_id: str, table: RatingTable, seed: int) -> str:
        if self.data_profiles is not None:
            return data_profile(self.catalogue, table, 0, self.data_profiles)
        settings = self.profile_settings
        liked, disliked = rated_titles(self.catalogue, table, 0, settings.titles_per_side)
        if not liked:
            raise UserError(f"user {user_id!r} has one rating: a profile is written from two or more, or give one")
        profiles, _ = write_profiles(self.profile_writer, self.book, {user_id: (liked, disliked)}, settings, seed)
        return profiles[user_id]


def meant(name: str, names: Iterable[str]) -> str:
    """ "; did you mean ...?", or nothing."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
