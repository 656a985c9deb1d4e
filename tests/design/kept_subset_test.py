"""Kept subsets against brute force, worked arithmetic, float64 NumPy from raw rows, and laws."""

import itertools

import chex
import jax
import numpy as np
import pytest

from eagle_jax.design import kept_subset
from eagle_jax.design.design_problem import prepare
from eagle_jax.design.float64_batches import in_float64
from eagle_jax.design.g_optimal import GOptimalSettings, g_optimal_design
from eagle_jax.design.kept_subset import approximation_factor, exchange_subset, top_k_subset

SETTINGS = GOptimalSettings(rank_tolerance=1e-4)


def gaussian(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def log_det(rows, indices):
    rows = np.asarray(rows, np.float64)[list(indices)]
    return np.linalg.slogdet(rows.T @ rows)[1]


def true_factor(rows, weights):
    """From raw rows by SVD in float64; inf where the weights miss a direction of the rows."""
    rows, weights = np.asarray(rows, np.float64), np.asarray(weights, np.float64)
    rank = np.linalg.matrix_rank(rows, rtol=1e-4)
    weighted = np.sqrt(weights / weights.sum())[:, None] * rows
    _, singular_values, directions = np.linalg.svd(weighted, full_matrices=False)
    if (singular_values > 1e-4 * singular_values[0]).sum() < rank:
        return np.inf
    coordinates = rows @ directions[:rank].T / singular_values[:rank]
    return np.sum(coordinates**2, axis=1).max() / rank


def exchanged(rows, num_kept, **options):
    return np.flatnonzero(exchange_subset(rows, num_kept, settings=SETTINGS, **options).counts)


# Most tests are about batches of this shape: one compilation for all of them.
SHAPE = 6, 20, 5


def every_subset(rows, num_kept=7):
    """What both functions keep of one problem or a batch, by name."""
    weights = g_optimal_design(rows, SETTINGS).design_weights
    return {
        "top_k": top_k_subset(rows, weights, num_kept, settings=SETTINGS),
        "exchange": exchange_subset(rows, num_kept, settings=SETTINGS),
    }


@in_float64("settings")
def factor_of(rows, weights, settings):
    return approximation_factor(prepare(rows, settings), weights.astype(float), settings)


def test_factor_of_two_axes_by_hand():
    # Rows e1, e2, 2 e1. M of weights (0, 3/4, 1/4) is diag(1/4 * 4, 3/4): leverages 1, 4/3, 4.
    rows = np.array([[1, 0], [0, 1], [2, 0]], np.float32)
    weights = np.array([[0, 0.75, 0.25], [0, 3, 1], [0.5, 0, 0.5], [0, 0, 0]], np.float32)
    factors = [factor_of(rows, row, settings=SETTINGS) for row in weights]
    # Only the ratio of weights counts; no weight on e2, or none at all, misses a direction.
    np.testing.assert_allclose(factors, [2.0, 2.0, np.inf, np.inf])


def test_factor_with_a_ridge_is_never_infinite():
    # M + ridge of weight 1 on e1 is diag(1.5, 0.5): variances 1 / 1.5 and 1 / 0.5, and
    # factor = 1 + (2 - effective dimension) / 2, effective dimension = 1 / 1.5.
    rows, weights = np.eye(2, dtype=np.float32), np.array([1.0, 0.0], np.float32)
    factor = factor_of(rows, weights, settings=GOptimalSettings(ridge=0.5))
    assert factor == pytest.approx(1 + (2 - 1 / 1.5) / 2)


@pytest.mark.parametrize("shape", ["generic", "dependent", "wide", "duplicates", "zero rows"])
def test_every_subset_reports_the_factor_that_float64_finds(shape):
    rows = gaussian(5, *SHAPE)
    if shape == "dependent":  # rank 3 in 5 columns
        rows = rows[..., :3] @ gaussian(6, 3, 5)
    elif shape == "wide":
        rows = gaussian(5, 6, 20, 40)
    elif shape == "duplicates":
        rows[:, 10:] = -rows[:, :10]
    elif shape == "zero rows":
        rows[:, ::3] = 0.0
    for name, subset in every_subset(rows).items():
        assert subset.counts.dtype == np.int32 and (subset.counts.sum(axis=1) == 7).all(), name
        expected = [true_factor(*pair) for pair in zip(rows, subset.counts, strict=True)]
        np.testing.assert_allclose(subset.approximation_factor, expected, rtol=1e-4, err_msg=name)
        assert np.isinf(expected).all() == (shape == "wide"), name


def test_exchange_below_the_rank_spans_a_large_volume():
    # The determinant of the kept rows' Gram matrix in whitened coordinates, over all 3-subsets.
    for rows in gaussian(8, 5, 9, 4):
        whitened = np.linalg.svd(rows.astype(np.float64), full_matrices=False)[0]
        volumes = {
            subset: np.linalg.det(whitened[list(subset)] @ whitened[list(subset)].T)
            for subset in itertools.combinations(range(9), 3)
        }
        assert volumes[tuple(exchanged(rows, 3))] >= 0.7 * max(volumes.values())


def test_exchange_is_close_to_the_best_of_all_subsets():
    shortfalls = []
    for rows in gaussian(1, 24, 7, 2):
        best = max(log_det(rows, subset) for subset in itertools.combinations(range(7), 3))
        shortfalls.append(best - log_det(rows, exchanged(rows, 3)))
    # One exchange at a time can stop short of the best: it reaches three quarters of its volume,
    # and the best itself (up to the smallest gain that counts) on most problems.
    assert max(shortfalls) <= -np.log(0.75)
    assert np.mean(np.array(shortfalls) < 1.1e-3) >= 0.75


@pytest.mark.parametrize("num_kept", [6, 9])
def test_no_single_exchange_improves(num_kept):
    rows = gaussian(2, 20, 30, 6)
    for problem, counts in zip(rows, exchange_subset(rows, num_kept, settings=SETTINGS).counts, strict=True):
        kept = np.flatnonzero(counts)
        best = max(
            log_det(problem, [*(set(kept) - {leaving}), entering])
            for leaving in kept
            for entering in set(range(30)) - set(kept)
        )
        assert best <= log_det(problem, kept) + np.log(1.001) + 1e-6


def test_exchange_of_unit_vectors_by_hand():
    # Five unit vectors on two axes: 2 and 3 is the best split (2 * 3 > 1 * 4), factor
    # max(5 / 2, 5 / 3) / 2 = 5 / 4.
    rows = np.tile(np.eye(2, dtype=np.float32), (4, 1))
    subset = exchange_subset(rows, 5, settings=SETTINGS)
    assert (subset.counts <= 1).all()
    assert sorted(subset.counts @ rows) == [2.0, 3.0]
    assert subset.approximation_factor == pytest.approx(5 / 4)


def test_exchange_covers_better_than_the_largest_weights():
    # Not on every problem (both are heuristics): in the median and in the worst case of 30.
    subsets = every_subset(gaussian(3, 30, 100, 8), 10)
    exchange, top_k = (subsets[name].approximation_factor for name in ("exchange", "top_k"))
    assert np.median(exchange) < np.median(top_k) and exchange.max() < top_k.max()


def test_largest_weights_are_kept_and_of_equal_ones_the_first():
    rows = gaussian(4, 5, 2)
    weights = np.array([0.1, 0.3, 0.2, 0.2, 0.2], np.float32)
    kept = top_k_subset(rows, weights, 3, settings=SETTINGS).counts
    np.testing.assert_array_equal(kept, [0, 1, 1, 1, 0])


def test_rows_that_are_not_valid_are_neither_kept_nor_covered():
    rows = gaussian(10, *SHAPE)
    is_valid = np.arange(20) % 2 == 0
    polluted = np.where(is_valid[:, None], rows, np.nan)
    alone = exchange_subset(rows[:, is_valid], 7, settings=SETTINGS)
    masked = exchange_subset(polluted, 7, settings=SETTINGS, is_valid=is_valid)
    assert (masked.counts[:, ~is_valid] == 0).all() and (masked.counts.sum(axis=1) == 7).all()
    assert np.isfinite(masked.approximation_factor).all()
    np.testing.assert_array_equal(masked.counts[:, is_valid], alone.counts)
    np.testing.assert_allclose(masked.approximation_factor, alone.approximation_factor, rtol=1e-6)


def test_fewer_valid_rows_than_places_are_all_kept():
    rows, is_valid = gaussian(11, 12, 3), np.arange(12) < 4
    np.testing.assert_array_equal(exchanged(rows, 6, is_valid=is_valid), np.arange(4))


def test_the_same_rows_in_another_basis_and_another_order():
    rows, basis = gaussian(12, *SHAPE), gaussian(13, 5, 5) + 3 * np.eye(5, dtype=np.float32)
    order = np.random.default_rng(14).permutation(20)
    given, moved, shuffled = (every_subset(z) for z in (rows, rows @ basis, rows[:, order]))
    for name, subset in given.items():
        np.testing.assert_array_equal(moved[name].counts, subset.counts)
        np.testing.assert_array_equal(shuffled[name].counts, subset.counts[:, order])
        np.testing.assert_allclose(moved[name].approximation_factor, subset.approximation_factor, rtol=1e-4)


def test_a_batch_is_a_loop_and_an_outer_jit_changes_nothing():
    rows, weights = gaussian(15, 2, *SHAPE[1:]), np.random.default_rng(16).random((2, 20)).astype(np.float32)

    def both(rows, weights):
        return exchange_subset(rows, 7, settings=SETTINGS), top_k_subset(rows, weights, 7, settings=SETTINGS)

    batched = both(rows[None], weights[None])  # two axes of problems
    chex.assert_trees_all_equal(batched, jax.jit(both)(rows[None], weights[None]))
    for subset in batched:
        chex.assert_shape(subset, [(1, 2, 20), (1, 2)])
    for index in range(2):
        single = both(rows[index], weights[index])
        chex.assert_trees_all_equal(single, jax.tree.map(lambda x, i=index: x[0, i], batched))


def test_problems_that_are_not_finite_spoil_no_other():
    rows = gaussian(16, *SHAPE)
    rows[1, 2, 3] = np.inf
    for name, subset in every_subset(rows).items():
        np.testing.assert_array_equal(np.isnan(subset.approximation_factor), np.arange(6) == 1, err_msg=name)
        assert subset.counts.sum(axis=1).tolist() == [7, 0, 7, 7, 7, 7], name


def test_nothing_but_zeros_is_covered_by_anything():
    subset = exchange_subset(np.zeros((6, 3), np.float32), 2, settings=SETTINGS)
    assert subset.counts.sum() == 2 and subset.approximation_factor == 1.0


def test_one_compilation_for_all_rows_of_a_shape(monkeypatch):
    once = chex.assert_max_traces(kept_subset.prepare, n=1)
    monkeypatch.setattr(kept_subset, "prepare", once)
    for seed in range(3):  # a shape of this test alone
        exchange_subset(gaussian(seed, 13, 4), 5, settings=SETTINGS)
        exchange_subset(gaussian(seed, 13, 4), 5, settings=SETTINGS, is_valid=np.arange(13) != seed)
    with pytest.raises(AssertionError, match="traced > 1 times"):  # it is what is traced
        exchange_subset(gaussian(0, 13, 4), 6, settings=SETTINGS)


def test_bad_arguments_are_refused():
    rows, weights = gaussian(17, 6, 3), np.full(6, 1 / 6, np.float32)
    with pytest.raises(ValueError, match=r"1\.\.K = 6, got 7"):
        exchange_subset(rows, 7, settings=SETTINGS)
    with pytest.raises(ValueError, match="got 0"):
        exchange_subset(rows, 0, settings=SETTINGS)
    with pytest.raises(ValueError, match=r"\(5,\)"):
        top_k_subset(rows, weights[:5], 2, settings=SETTINGS)
    with pytest.raises(ValueError, match="non-empty"):
        exchange_subset(rows[0], 2, settings=SETTINGS)
