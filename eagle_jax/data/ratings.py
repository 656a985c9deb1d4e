"""Ratings: reading `ratings.csv`, and leakage-free splits.

Axis letters: `R` ratings, `U` users, `N` items.
"""

import dataclasses
import math
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.data.rows import BadRow, bad_row, read_rows

LOWEST_RATING, HIGHEST_RATING = 0.5, 5.0  # stars


@dataclasses.dataclass(frozen=True)
class RatingSplit:
    """Disjoint ratings over the same users and items."""

    train: RatingTable
    test: RatingTable


def read_ratings(path: Path, *, known_items: Sequence[str]) -> tuple[RatingTable, list[BadRow]]:
    """Read userId, movieId, rating[, timestamp]; `known_items` gives the items and their order.

    Users are numbered as they appear. Of several ratings of an item by one user the last counts, by
    timestamp and then by line; the others are bad rows. So are rows with a missing field, text in a
    number, NaN, a rating outside 0.5 to 5 stars, an item that is not known, undecodable bytes.
    Raises UserError when the file is missing or empty, lacks a column, or no good row is left.
    """
    path = Path(path)
    item_of = {name: index for index, name in enumerate(known_items)}
    user_of: dict[str, int] = {}
    bad_rows: list[BadRow] = []
    users, items, ratings, timestamps, lines = (array(kind) for kind in "qqddq")
    for row in read_rows(path, ("userId", "movieId", "rating"), ("timestamp",), bad_rows):
        user, item = row.values["userId"], row.values["movieId"]
        try:
            rating = _rating(row.values["rating"])
            timestamp = _number("timestamp", row.values["timestamp"] or "0")
            if not user:
                raise ValueError("userId is empty")
            if item not in item_of:
                raise ValueError(f"unknown movieId: {item}")
        except ValueError as error:
            bad_rows.append(bad_row(path, row.line, str(error), row.text))
            continue
        users.append(user_of.setdefault(user, len(user_of)))
        items.append(item_of[item])
        ratings.append(rating)
        timestamps.append(timestamp)
        lines.append(row.line)
    if not lines:
        raise UserError(
            f"{path}: no rating left: {len(bad_rows)} bad rows, the first: "
            f"{bad_rows[0] if bad_rows else 'none, there is only a header'}"
        )
    user_names = tuple(user_of)
    user_index, item_index = np.array(users), np.array(items)
    winner = _last_of_each_pair(user_index * len(item_of) + item_index, np.array(timestamps))
    positions = np.arange(len(lines))
    for position in np.flatnonzero(winner != positions):
        reason = f"duplicate: line {lines[winner[position]]} rates the same item later"
        text = f"{user_names[users[position]]},{known_items[items[position]]},{ratings[position]}"
        bad_rows.append(bad_row(path, lines[position], reason, text))
    bad_rows.sort(key=lambda bad: bad.line)
    good = winner == positions
    table = RatingTable(
        user_names=user_names,
        item_names=tuple(known_items),
        user_index=user_index[good].astype(np.int32),
        item_index=item_index[good].astype(np.int32),
        rating=np.array(ratings)[good].astype(np.float32),
    )
    return table, bad_rows


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


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} is not a number: {text[:40]!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"{name} is not finite: {text[:40]!r}")
    return value


def _rating(text: str) -> float:
    value = _number("rating", text)
    if not LOWEST_RATING <= value <= HIGHEST_RATING:
        raise ValueError(f"rating outside {LOWEST_RATING} to {HIGHEST_RATING}: {value}")
    return value


def _last_of_each_pair(pair: np.ndarray, timestamp: np.ndarray) -> np.ndarray:
    """For every position, the position of the last (timestamp, then place) with the same pair."""
    order = np.lexsort((np.arange(len(pair)), timestamp, pair))
    is_last = np.append(pair[order][1:] != pair[order][:-1], True)
    group_end = np.flatnonzero(is_last)
    group = np.cumsum(is_last) - is_last
    winner = np.empty(len(pair), int)
    winner[order] = order[group_end[group]]
    return winner
