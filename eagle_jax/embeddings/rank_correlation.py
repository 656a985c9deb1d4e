"""Spearman's rank correlation, by rows and within users.

Axis letters: `B` rows, `N` columns, `R` ratings.
"""

from typing import Literal

import numpy as np


def ranks(values: np.ndarray, method: Literal["average", "min", "max"] = "average") -> np.ndarray:
    """From 1 in ascending order, [B, N] -> [B, N]; `method` is about ties."""
    from scipy.stats import rankdata  # here, because it takes a second and a half of every program's start

    return rankdata(values, method=method, axis=-1)


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation of the ranks (ties share their mean rank) of two rows: [B, N] twice -> [B].

    0 where either row is constant: it orders nothing.
    """
    first, second = (rank - rank.mean(axis=-1, keepdims=True) for rank in (ranks(first), ranks(second)))
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return (first * second).sum(axis=-1) / np.where(scale > 0, scale, 1.0)


def spearman_by_user(
    user_index: np.ndarray, predicted: np.ndarray, rating: np.ndarray, *, min_ratings: int
) -> dict[int, float]:
    """User -> correlation of predicted and given ratings [R].

    Users count who gave at least `min_ratings` of these ratings, not all of them equal.
    """
    order = np.argsort(user_index, kind="stable")
    users, starts = np.unique(user_index[order], return_index=True)
    return {
        int(user): float(spearman(predicted[mine], rating[mine]))
        for user, mine in zip(users, np.split(order, starts)[1:], strict=True)
        if len(mine) >= min_ratings and np.ptp(rating[mine]) > 0
    }


def within_user_spearman(
    user_index: np.ndarray, predicted: np.ndarray, rating: np.ndarray, *, min_ratings: int
) -> tuple[float, int]:
    """Mean of `spearman_by_user`, and over how many users; raises ValueError if there is none."""
    correlations = list(spearman_by_user(user_index, predicted, rating, min_ratings=min_ratings).values())
    if not correlations:
        raise ValueError(f"no user has {min_ratings} ratings that are not all equal")
    return float(np.mean(correlations)), len(correlations)
