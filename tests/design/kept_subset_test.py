"""The kept subset against brute force; variances against NumPy's pseudo-inverse."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.design.g_optimal import GOptimalSettings, g_optimal_design, whiten
from eagle_jax.design.kept_subset import design_variance, exchange_subset


def log_det(rows, indices):
    rows = np.asarray(rows, np.float64)[list(indices)]
    return np.linalg.slogdet(rows.T @ rows)[1]


def max_leverage(rows, indices):
    rows = np.asarray(rows, np.float64)
    moment = rows[indices].T @ rows[indices] / len(indices)
    return np.einsum("ki,ij,kj->k", rows, np.linalg.inv(moment), rows).max()


def exchange(rows, num_kept, is_valid=None):
    is_valid = np.ones(len(rows), bool) if is_valid is None else is_valid
    return np.flatnonzero(_whiten_and_exchange(rows, is_valid, num_kept))


@functools.partial(jax.jit, static_argnames="num_kept")
def _whiten_and_exchange(rows, is_valid, num_kept):
    return exchange_subset(whiten(rows, 1e-4).rows, is_valid, num_kept)


@pytest.mark.parametrize("weights", ["full", "missing a direction"])
def test_variance_is_that_of_the_pseudo_inverse(weights):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 4)).astype(np.float32)
    q = rng.dirichlet(np.ones(12)).astype(np.float32)
    if weights != "full":
        q = np.where(np.arange(12) < 3, 1 / 3, 0).astype(np.float32)
    variance, rank = design_variance(jnp.asarray(rows), jnp.asarray(q), jnp.asarray(rows), 1e-4)
    moment = rows.T.astype(np.float64) @ (q[:, None] * rows)
    expected = np.einsum("ki,ij,kj->k", rows, np.linalg.pinv(moment, rcond=1e-9), rows)
    np.testing.assert_allclose(variance, expected, rtol=1e-3)
    assert rank == (4 if weights == "full" else 3)


def test_close_to_the_best_of_all_subsets_and_far_above_a_random_one():
    rng = np.random.default_rng(1)
    for _ in range(8):
        rows = rng.normal(size=(10, 3)).astype(np.float32)
        dets = [log_det(rows, subset) for subset in itertools.combinations(range(10), 4)]
        kept = exchange(rows, 4)
        assert len(kept) == 4
        assert log_det(rows, kept) >= max(dets) - 0.25
        assert log_det(rows, kept) > np.quantile(dets, 0.95)


def test_no_single_exchange_improves():
    rng = np.random.default_rng(2)
    for _ in range(20):
        rows = rng.normal(size=(30, 6)).astype(np.float32)
        kept = exchange(rows, 6)
        best = max(
            log_det(rows, [*(set(kept) - {leaving}), entering])
            for leaving in kept for entering in set(range(30)) - set(kept)
        )
        assert best <= log_det(rows, kept) + np.log(1.001) + 1e-4


def test_covers_better_than_the_largest_weights_of_the_design():
    # Not on every problem (both are heuristics): in the median and in the worst case of 30.
    settings = GOptimalSettings(
        max_approximation_factor=1.01, max_iterations=2000, rank_tolerance=1e-4
    )
    problems = np.random.default_rng(3).normal(size=(30, 100, 8)).astype(np.float32)
    weights = np.asarray(g_optimal_design(problems, settings).design_weights)
    exchanged, largest = [], []
    for rows, problem_weights in zip(problems, weights, strict=True):
        exchanged.append(max_leverage(rows, exchange(rows, 10)))
        largest.append(max_leverage(rows, np.argsort(problem_weights)[-10:]))
    assert np.median(exchanged) < np.median(largest)
    assert max(exchanged) < max(largest)


def test_only_valid_rows_are_kept():
    rows = np.random.default_rng(4).normal(size=(30, 3)).astype(np.float32)
    is_valid = np.arange(30) % 3 == 0
    kept = exchange(rows, 6, is_valid)
    assert len(kept) == 6 and is_valid[kept].all()


def test_fewer_distinct_rows_than_places_still_fills_them():
    rows = np.tile(np.eye(2, dtype=np.float32), (4, 1))
    kept = exchange(rows, 5)
    assert len(set(kept)) == 5
    # Five unit vectors on two axes: 2 and 3 is the best split (2 * 3 > 1 * 4).
    assert sorted(rows[kept].sum(axis=0)) == [2.0, 3.0]
