"""Profiles of groups of users: what a model reads, and a remote one is sent, is true of several people at least.

Axis letters: `U` users, `d` width of their embeddings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.catalogue import RatingTable

_FEWEST_RATERS = 2  # an item that one member alone has rated is that member's


@settings
class ProfileGroupSettings:
    """Users in groups of similar embeddings, of which each has one profile."""

    min_users: int = setting("Of a group at least; below twice as many.", at_least=2)


def group_users(embeddings: np.ndarray, min_users: int) -> np.ndarray:
    """The group of each user [U] of embeddings [U, d], groups numbered from 0: microaggregation by the maximum distance
    to the average vector (MDAV; Domingo-Ferrer and Mateo-Sanz 2002).

    In turn the user farthest from the mean of those left, and the one farthest from that user, each take the min_users
    - 1 nearest; what is left at the end, below twice min_users, is one group. Of equal distances the first counts.
    Raises `UserError` for fewer users than one group needs.
    """
    points = np.asarray(embeddings, np.float64)
    if len(points) < min_users:
        raise UserError(f"profile_groups.min_users is {min_users}; there are {len(points)} users")
    groups, number = np.full(len(points), -1), 0
    left = np.arange(len(points))

    def take(center: np.ndarray) -> None:
        nonlocal left, number
        nearest = np.argsort(_distances(points[left], center), kind="stable")[:min_users]
        groups[left[nearest]] = number
        left, number = np.delete(left, nearest), number + 1

    while len(left) >= 2 * min_users:
        first = points[left[np.argmax(_distances(points[left], points[left].mean(axis=0)))]]
        take(first)
        if len(left) >= 2 * min_users:
            take(points[left[np.argmax(_distances(points[left], first))]])
    groups[left] = number
    return groups


def _distances(points: np.ndarray, center: np.ndarray) -> np.ndarray:
    return np.sum((points - center) ** 2, axis=1)


def pooled_ratings(ratings: RatingTable, groups: Sequence[np.ndarray]) -> RatingTable:
    """A table in which a group of users is one that rates what two of its members have rated or more: by the sum of
    (rating - the member's mean) / (number of these + 1).

    Raises `UserError` for a group without such an item.
    """
    members, items, worths = [], [], []
    for number, users in enumerate(groups):
        rows = np.flatnonzero(np.isin(ratings.user_index, users))
        _, member = np.unique(ratings.user_index[rows], return_inverse=True)
        stars = ratings.rating[rows].astype(np.float64)
        deviations = stars - (np.bincount(member, stars) / np.bincount(member))[member]
        rated, item, counts = np.unique(ratings.item_index[rows], return_inverse=True, return_counts=True)
        found = np.bincount(item, deviations) / (counts + 1)
        is_shared = counts >= _FEWEST_RATERS
        if not is_shared.any():
            raise UserError(
                f"profile_groups: no item has been rated by {_FEWEST_RATERS} of the {len(users)} users of a group, "
                f"among them {ratings.user_names[users[0]]!r}: choose larger groups by profile_groups.min_users"
            )
        members.append(np.full(is_shared.sum(), number))
        items.append(rated[is_shared])
        worths.append(found[is_shared])
    return dataclasses.replace(
        ratings,
        user_names=tuple(f"group {number}" for number in range(len(groups))),
        user_index=np.concatenate(members).astype(np.int32),
        item_index=np.concatenate(items).astype(np.int32),
        rating=np.concatenate(worths).astype(np.float32),
    )
