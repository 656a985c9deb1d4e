"""Parts of a table of ratings: some of its items, and leakage-free splits."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from eagle_jax.data.catalogue import RatingTable


@dataclasses.dataclass(frozen=True)
class RatingSplit:
    """Disjoint ratings over the same users and items."""

    train: RatingTable
    test: RatingTable


def restrict_items(table: RatingTable, item_indices: Sequence[int]) -> RatingTable:
    """The ratings of these items, renumbered in the order given; users left without any go too."""
    new_item = np.full(table.num_items, -1, np.int32)
    new_item[np.asarray(item_indices)] = np.arange(len(item_indices))
    kept = table.take(np.flatnonzero(new_item[table.item_index] >= 0))
    users, user_index = np.unique(kept.user_index, return_inverse=True)
    return dataclasses.replace(
        kept,
        user_names=tuple(table.user_names[user] for user in users),
        item_names=tuple(table.item_names[item] for item in item_indices),
        user_index=user_index.astype(np.int32),
        item_index=new_item[kept.item_index],
    )


def split_ratings(table: RatingTable, *, held_out_fraction: float, seed: int) -> RatingSplit:
    """Hold out floor(fraction * n_u) ratings of every user, drawn by `seed`; no rating is in both.

    A user with too few ratings for the fraction stays in training whole, and an item that would
    have no training rating left gets one of its held-out ratings back: every user and every item of
    the test is known from training. Raises ValueError unless 0 < fraction < 1.
    """
    if not 0 < held_out_fraction < 1:
        raise ValueError(f"held_out_fraction is {held_out_fraction}; it must be between 0 and 1")
    num_ratings = np.bincount(table.user_index, minlength=table.num_users)
    # The margin keeps 0.1 * 30 = 3.0000000000000004 and 0.7 * 10 = 6.999999999999999 whole.
    num_held_out = np.floor(held_out_fraction * num_ratings + 1e-9).astype(int)
    shuffled = np.random.default_rng(seed).permutation(len(table))
    by_user = shuffled[np.argsort(table.user_index[shuffled], kind="stable")]
    user = table.user_index[by_user]
    place = np.arange(len(by_user)) - (np.cumsum(num_ratings) - num_ratings)[user]
    held_out = np.zeros(len(table), bool)
    held_out[by_user] = place < num_held_out[user]

    num_training = np.bincount(table.item_index[~held_out], minlength=table.num_items)
    candidates = shuffled[held_out[shuffled] & (num_training[table.item_index[shuffled]] == 0)]
    _, first = np.unique(table.item_index[candidates], return_index=True)
    held_out[candidates[first]] = False
    return RatingSplit(table.take(np.flatnonzero(~held_out)), table.take(np.flatnonzero(held_out)))
