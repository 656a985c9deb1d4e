"""Spearman's rank correlation, by rows and within users.

Axis letters: `B` rows, `N` columns, `R` ratings.
"""

import numpy as np
from scipy.stats import rankdata


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation of the ranks (ties share their mean rank) of two rows: [B, N] twice -> [B].

    0 where either row is constant: it orders nothing.
    """
    ranks = [rankdata(values, axis=-1) for values in (first, second)]
    first, second = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return (first * second).sum(axis=-1) / np.where(scale > 0, scale, 1.0)


def within_user_spearman(
    user_index: np.ndarray, predicted: np.ndarray, rating: np.ndarray, *, min_ratings: int
) -> tuple[float, int]:
    """Mean over users of the correlation of predicted and given ratings [R], and how many users.

    Users count who gave at least `min_ratings` of these ratings, not all of them equal. Raises
    ValueError if there is no such user.
    """
    correlations = []
    for user in np.unique(user_index):
        of_user = user_index == user
        if of_user.sum() >= min_ratings and np.ptp(rating[of_user]) > 0:
            correlations.append(spearman(predicted[of_user], rating[of_user]))
    if not correlations:
        raise ValueError(f"no user has {min_ratings} ratings that are not all equal")
    return float(np.mean(correlations)), len(correlations)
