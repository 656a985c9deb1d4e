"""Preparation: every kind of degenerate input has the answer that `g_optimal_design` documents."""

import dataclasses

import jax
import numpy as np
import pytest

from eagle_jax.design.design_problem import GOptimalSettings, first_duplicate, prepare
from eagle_jax.design.g_optimal import g_optimal_design
from tests.design.float64_peer import METHODS, true_factor

each_method = pytest.mark.parametrize("method", METHODS)
jit_prepare = jax.jit(prepare, static_argnums=1)


def gaussian(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Most tests have rows of one of these shapes: two compilations of each method for all of them.
TALL, WIDE = (40, 4), (8, 20)


@each_method
def test_duplicates_put_the_weight_on_the_first(method):
    rows = gaussian(10, 10, 4)
    # Repeated, and repeated with the other sign: the same z z'.
    design = g_optimal_design(np.concatenate([rows, rows, -rows, rows]), METHODS[method])
    assert design.converged
    np.testing.assert_array_equal(design.design_weights[10:], 0.0)
    variance = np.reshape(design.prediction_variance, (4, 10))
    np.testing.assert_allclose(variance[1:], np.broadcast_to(variance[0], (3, 10)), rtol=1e-5)
    assert true_factor(rows, design.design_weights[:10]) <= 1.00051  # so of single rows it is the best


def test_near_duplicates_are_not_duplicates():
    rows = np.array([[1.0, 2.0], [1.0, 2.0 + 1e-15], [-1.0, -2.0], [2.0, 1.0], [1.0, 2.0]])
    with jax.enable_x64(True):
        np.testing.assert_array_equal(first_duplicate(rows), [0, 1, 0, 3, 0])


def test_rows_with_the_same_sum_are_not_duplicates():
    rows = gaussian(11, 40, 5)
    np.testing.assert_array_equal(first_duplicate(rows), np.arange(40))


@each_method
def test_wide_duplicates_share_the_leverage(method):
    # K < d: preparation goes by the Gram matrix of the rows, which leaves duplicates out.
    rows = gaussian(12, 6, 20)
    design = g_optimal_design(rows[[0, 1, 2, 1, 3, 4, 5, 0]], METHODS[method])
    assert design.rank == 6 and design.converged
    np.testing.assert_allclose(design.design_weights, [1 / 6] * 3 + [0] + [1 / 6] * 3 + [0])
    np.testing.assert_allclose(design.prediction_variance, 6.0, rtol=1e-4)


@each_method
@pytest.mark.parametrize(("shape", "rank"), [(TALL, 4), (WIDE, 6)])
def test_zero_rows_get_no_weight(shape, rank, method):
    rows = gaussian(11, *shape)
    rows[[2, 5]] = 0.0
    design = g_optimal_design(rows, METHODS[method])
    assert design.converged and design.rank == rank
    np.testing.assert_array_equal(design.design_weights[np.array([2, 5])], 0.0)
    np.testing.assert_allclose(design.prediction_variance[np.array([2, 5])], 0.0, atol=1e-20)


@each_method
def test_directions_below_the_tolerance_are_ignored(method):
    rng = np.random.default_rng(13)
    plane = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 4))
    rows = (plane + 1e-6 * rng.normal(size=TALL)).astype(np.float32)
    design = g_optimal_design(rows, METHODS[method])
    assert design.rank == 2 and design.converged
    assert true_factor(rows @ np.linalg.svd(plane)[2][:2].T, design.design_weights) <= 1.001


@pytest.mark.parametrize("shape", [(40, 6), (10, 60)])
@pytest.mark.parametrize("log_condition", [2, 4, 6])
def test_the_rank_is_that_of_numpy(shape, log_condition):
    rng = np.random.default_rng(log_condition)
    singular_values = np.logspace(0, -log_condition, min(shape))
    left = np.linalg.qr(rng.normal(size=(shape[0], min(shape))))[0]
    right = np.linalg.qr(rng.normal(size=(shape[1], min(shape))))[0]
    rows = (left * singular_values) @ right.T
    alike = rows / np.abs(rows).max()
    alike /= 2.0 ** np.round(np.log2(np.abs(alike).max(axis=0)))  # columns alike, as documented
    with jax.enable_x64(True):
        for tolerance in (3e-2, 3e-4, 3e-6):
            problem = jit_prepare(rows, GOptimalSettings(rank_tolerance=tolerance))
            assert problem.rank == np.linalg.matrix_rank(alike, rtol=tolerance)
        design = g_optimal_design(rows, GOptimalSettings(rank_tolerance=3e-4))
    assert design.converged
    assert true_factor(alike, design.design_weights, 3e-4) <= 1.00011


@each_method
@pytest.mark.parametrize("shape", [(60, 12), (60, 80)])
def test_max_rank_keeps_the_leading_directions(shape, method):
    rows = gaussian(14, *shape) * np.logspace(0, -1, shape[1]).astype(np.float32)
    projected = rows @ np.linalg.svd(rows.astype(np.float64))[2][:4].T
    design = g_optimal_design(rows, dataclasses.replace(METHODS[method], max_rank=4))
    assert design.rank == 4 and design.converged
    assert true_factor(projected, np.full(60, 1 / 60)) > 1.2
    assert true_factor(projected, design.design_weights) <= 1.00051


def test_both_ways_to_whiten_make_the_uniform_design_round():
    rows = gaussian(15, 30, 6).astype(np.float64)
    rows[7] = rows[3]  # of the two only the first is in the design
    is_first = np.arange(30) != 7
    mixing = np.linalg.qr(gaussian(16, 6, 6))[0]  # small directions, but no small columns
    with jax.enable_x64(True):
        for scale, expected in ((np.ones(6), 6), (np.logspace(0, -4, 6), 4)):
            problem = jit_prepare((rows * scale) @ mixing, GOptimalSettings(rank_tolerance=1.6e-3))
            assert problem.rank == expected
            np.testing.assert_array_equal(problem.is_support, is_first)
            white = np.asarray(problem.rows)
            np.testing.assert_array_equal(white[7], white[3])
            np.testing.assert_allclose(
                white[is_first].T @ white[is_first], np.diag(np.asarray(problem.is_direction, float)), atol=1e-9
            )


@each_method
def test_one_row(method):
    design = g_optimal_design(np.array([[3.0, 4.0]], np.float32), METHODS[method])
    assert design.converged and design.rank == 1
    np.testing.assert_allclose(design.design_weights, [1.0])
    np.testing.assert_allclose(design.prediction_variance, [1.0], rtol=1e-5)


@each_method
def test_all_rows_equal(method):
    rows = np.tile(np.array([[1.0, -2.0, 0.5, 3.0]], np.float32), (40, 1))
    design = g_optimal_design(rows, METHODS[method])
    assert design.converged and design.rank == 1
    np.testing.assert_array_equal(design.design_weights, np.arange(40) == 0)
    np.testing.assert_allclose(design.prediction_variance, 1.0, rtol=1e-5)


@each_method
@pytest.mark.parametrize("shape", [TALL, WIDE])
def test_all_zero_rows(shape, method):
    design = g_optimal_design(np.zeros(shape, np.float32), METHODS[method])
    assert design.rank == 0 and design.converged
    np.testing.assert_allclose(design.approximation_factor, 1.0, atol=1e-6)
    np.testing.assert_allclose(design.design_weights, 1 / shape[0], rtol=1e-6)
    np.testing.assert_array_equal(design.prediction_variance, 0.0)


@each_method
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_is_not_converged(bad, method):
    rows = np.ones(TALL, np.float32)
    rows[3, 1] = bad
    design = g_optimal_design(rows, METHODS[method])
    assert not design.converged and design.rank == 0
    assert np.isnan(design.design_weights).all() and np.isnan(design.prediction_variance).all()


@each_method
def test_the_units_of_a_column_change_nothing(method):
    rows = gaussian(21, 40, 4)
    given = g_optimal_design(rows, METHODS[method])
    scaled = g_optimal_design(rows * np.float32([1e-7, 1.0, 1e9, 2.0**-60]), METHODS[method])
    assert given.rank == scaled.rank == 4 and scaled.converged
    np.testing.assert_allclose(scaled.design_weights, given.design_weights, atol=0.02)
    assert true_factor(rows, scaled.design_weights) <= scaled.approximation_factor * (1 + 1e-5)


@each_method
def test_numbers_that_hardware_reads_as_zeros_count(method):
    """A quarter of the entries and more are below 1.18e-38, the least normal float32."""
    rows = gaussian(22, 40, 4) * np.float32(1e-38)
    assert 0.25 < (np.abs(rows.astype(np.float64)) < np.finfo(np.float32).tiny).mean() < 1
    design = g_optimal_design(rows, METHODS[method])
    assert design.rank == 4 and design.converged
    factor = true_factor(rows.astype(np.float64) * 1e38, design.design_weights)
    np.testing.assert_allclose(factor, design.approximation_factor, rtol=1e-5)
