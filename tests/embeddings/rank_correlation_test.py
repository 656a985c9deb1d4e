"""Rank correlations against SciPy and by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from eagle_jax.embeddings.rank_correlation import spearman, within_user_spearman


def test_matches_scipy_with_ties():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, (4, 20)), rng.normal(size=(4, 20))
    expected = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(spearman(first, second), expected, rtol=1e-12)


def test_where_all_is_alike_it_is_zero():
    values = np.random.default_rng(1).normal(size=(3, 12))
    np.testing.assert_array_equal(spearman(values, np.ones((3, 12))), 0.0)


def test_within_users_by_hand():
    user = np.array([0, 1, 0, 1, 0, 2, 2, 2, 3])
    predicted = np.array([1.0, 5.0, 2.0, 4.0, 3.0, 1.0, 2.0, 3.0, 9.0])
    rating = np.array([2.0, 1.0, 3.0, 2.0, 4.0, 3.0, 3.0, 3.0, 1.0])
    # User 0: same order, +1. User 1: opposite order, -1. User 2 rates all alike, user 3 once.
    assert within_user_spearman(user, predicted, rating, min_ratings=2) == (0.0, 2)
    assert within_user_spearman(user, predicted, rating, min_ratings=3) == (1.0, 1)
    with pytest.raises(ValueError, match="no user has 4 ratings"):
        within_user_spearman(user, predicted, rating, min_ratings=4)
