"""Pruned designs: the bound against float64 NumPy from the raw rows, and worked arithmetic."""

import jax
import numpy as np
import pytest

from eagle_jax.design.g_optimal import GOptimalSettings, g_optimal_design
from eagle_jax.design.pruned_support import prune_support

SETTINGS = GOptimalSettings(rank_tolerance=1e-4)


def gaussian(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def leverages(rows, weights):
    rows, weights = np.asarray(rows, np.float64), np.asarray(weights, np.float64)
    inverse = np.linalg.inv(rows.T @ (weights[:, None] * rows))
    return np.einsum("ki,ij,kj->k", rows, inverse, rows)


def test_bound_and_factor_are_what_float64_finds():
    rows = gaussian(0, 10, 60, 5)
    weights = g_optimal_design(rows, SETTINGS).design_weights
    pruned = prune_support(rows, weights, 1.3, settings=SETTINGS)
    for problem, before, after, certified, factor in zip(rows, weights, *pruned, strict=True):
        before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
        is_removed = (before > 0) & (after == 0)
        assert is_removed.sum() > 40  # the optimal support is small; the rest is the solver's dust
        assert after.sum() == pytest.approx(1, rel=1e-6)
        np.testing.assert_allclose(
            after[~is_removed], before[~is_removed] / before[~is_removed].sum(), rtol=1e-5
        )
        held = before * leverages(problem, before)
        bound = leverages(problem, before).max() / 5
        bound *= (1 - before[is_removed].sum()) / (1 - held[is_removed].sum())
        assert certified == pytest.approx(bound, rel=1e-5) and certified <= 1.3
        assert factor == pytest.approx(leverages(problem, after).max() / 5, rel=1e-5)
        assert factor <= certified * (1 + 1e-6)
        # Greedy: with the next row, the one that holds least, the bound would be broken.
        following = np.flatnonzero(~is_removed)[np.argmin(held[~is_removed])]
        is_removed[following] = True
        bound = leverages(problem, before).max() / 5
        bound *= (1 - before[is_removed].sum()) / (1 - held[is_removed].sum())
        assert bound > 1.3


def test_worked_example():
    # e1 twice as long as a short e1 and e2, weights 0.4, 0.1, 0.5. M = diag(0.4 + 0.1 / 4, 0.5):
    # leverages 1 / 0.425, 0.25 / 0.425, 2. Removing the short row: s = 0.1 * 0.25 / 0.425 = 1 / 17.
    rows = np.array([[1, 0], [0.5, 0], [0, 1]], np.float32)
    pruned = prune_support(rows, np.array([0.4, 0.1, 0.5], np.float32), 1.2, settings=SETTINGS)
    np.testing.assert_allclose(pruned.design_weights, [4 / 9, 0, 5 / 9], rtol=1e-6)
    # 1 / 0.425 / 2 * 0.9 / (16 / 17) = 1.125, which is exact here: 1 / (4 / 9) / 2.
    assert pruned.certified_factor == pytest.approx(1.125)
    assert pruned.approximation_factor == pytest.approx(1.125)


def test_a_design_worse_than_asked_is_left_alone():
    rows, weights = gaussian(1, 12, 3), np.random.default_rng(2).dirichlet(np.ones(12))
    factor = leverages(rows, weights).max() / 3
    pruned = prune_support(rows, weights, 1.01, settings=SETTINGS)
    np.testing.assert_allclose(pruned.design_weights, weights, rtol=1e-6)
    assert pruned.certified_factor == pytest.approx(factor, rel=1e-5)
    assert pruned.approximation_factor == pytest.approx(factor, rel=1e-5)


def test_batch_outer_jit_and_degenerate_problems():
    rows = gaussian(3, 4, 15, 4)
    rows[1, 0, 0] = np.nan
    rows[2] = 0.0
    rows[3, 4:] = rows[3, :1]  # four distinct rows of rank 4: nothing may go but the duplicates
    weights = np.full((4, 15), 1 / 15, np.float32)
    weights[3] = np.asarray(g_optimal_design(rows[3], SETTINGS).design_weights)
    pruned = prune_support(rows, weights, 1.5, settings=SETTINGS)
    jitted = jax.jit(lambda z, q: prune_support(z, q, 1.5, settings=SETTINGS))(rows, weights)
    jax.tree.map(np.testing.assert_array_equal, pruned, jitted)
    single = prune_support(rows[0], weights[0], 1.5, settings=SETTINGS)
    np.testing.assert_array_equal(single.design_weights, pruned.design_weights[0])
    assert np.isnan(pruned.design_weights[1]).all() and np.isnan(pruned.certified_factor[1])
    np.testing.assert_allclose(pruned.design_weights[2], 1 / 15, rtol=1e-6)
    assert pruned.approximation_factor[2] == 1.0
    np.testing.assert_allclose(pruned.design_weights[3][:4], 1 / 4, rtol=1e-5)


def test_bad_arguments_are_refused():
    rows, weights = gaussian(4, 5, 2), np.full(5, 0.2, np.float32)
    with pytest.raises(ValueError, match=r"\(4,\)"):
        prune_support(rows, weights[:4], 1.5, settings=SETTINGS)
    with pytest.raises(ValueError, match="ridge"):
        prune_support(rows, weights, 1.5, settings=GOptimalSettings(ridge=0.1))
