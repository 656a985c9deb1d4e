"""Frank-Wolfe's own laws: the exact line search, and the bound that leaves rows out."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.optimize

from eagle_jax.design.design_problem import prepare
from eagle_jax.design.frank_wolfe import line_search
from eagle_jax.design.g_optimal import GOptimalSettings, g_optimal_design
from eagle_jax.design.multiplicative import support_bound
from tests.design.float64_peer import true_variance

SETTINGS = GOptimalSettings(
    method="frank_wolfe", max_approximation_factor=1 + 1e-6, max_iterations=20, rank_tolerance=1e-4
)


@jax.jit
def search(rows, weights, leverages):
    return line_search(prepare(rows, SETTINGS), weights, leverages)


def test_every_step_is_the_best_along_its_line():
    rng = np.random.default_rng(14)
    num_drops, num_away, num_towards = 0, 0, 0
    for trial in range(60):
        rows = rng.normal(size=(12, 3))
        weights = rng.dirichlet(np.full(12, 1.0))
        with jax.enable_x64(True):
            if trial % 2:  # the best design with a little too much on one row of its support
                best = np.asarray(g_optimal_design(rows, GOptimalSettings()).design_weights)
                weights = np.where(best > 1e-3, best, 0.0)
                weights[rng.choice(np.flatnonzero(weights))] += 0.05
                weights /= weights.sum()
            leverages, _ = true_variance(rows, weights)
            row, step, is_drop = search(rows, weights, leverages)
        row, step = int(row), float(step)

        def loss(step, row=row, rows=rows, weights=weights):
            moved = (1 - step) * weights
            moved[row] += step
            return -np.linalg.slogdet(rows.T @ (moved[:, None] * rows))[1]

        # Away steps end where the row is empty.
        lowest = -weights[row] / (1 - weights[row])
        best = scipy.optimize.minimize_scalar(loss, bounds=(lowest, 0.999), method="bounded", options={"xatol": 1e-10})
        assert lowest - 1e-12 <= step and loss(step) <= best.fun + 1e-9
        assert loss(0.0) - loss(step) > 1e-6
        num_drops += bool(is_drop)
        num_away += step < 0
        num_towards += step > 0
    assert num_drops and num_towards and num_away > num_drops


def test_drift_of_the_rank_one_updates_does_not_reach_the_certificate():
    rows = np.random.default_rng(0).normal(size=(6, 100, 16))
    with jax.enable_x64(True):
        design = g_optimal_design(
            rows, dataclasses.replace(SETTINGS, max_approximation_factor=1 + 1e-5, max_iterations=5000)
        )
    assert design.converged.all() and design.num_iterations.max() > 300
    for problem, weights, promised in zip(rows, design.design_weights, design.approximation_factor, strict=True):
        variance, rank = true_variance(problem, weights)
        assert variance.max() / rank == pytest.approx(float(promised), abs=1e-12)


@pytest.mark.parametrize("kind", ["gaussian", "clustered", "cube"])
def test_the_bound_never_leaves_out_a_row_of_the_support(kind):
    rng = np.random.default_rng(15)
    rows = rng.normal(size=(60, 5))
    if kind == "clustered":
        rows[5:] = rows[0] + 0.05 * rows[5:]
    if kind == "cube":  # every vertex is in some optimal support
        rows = np.sign(rows)
    with jax.enable_x64(True):
        best = g_optimal_design(rows, GOptimalSettings(max_approximation_factor=1 + 1e-10))
    support = np.asarray(best.design_weights) > 1e-6
    left_out = 0
    for trial in range(200):
        # Designs near and far from the best one; the bound holds for any.
        mixture = rng.dirichlet(np.full(60, 0.5))
        share = 10.0 ** -(trial % 5)
        weights = (1 - share) * np.asarray(best.design_weights) + share * mixture
        variance, rank = true_variance(rows, weights)
        excluded = variance < float(support_bound(variance.max() / rank, float(rank)))
        assert not (excluded & support).any()
        left_out += excluded.sum()
    if kind != "cube":
        assert left_out > 200  # it does leave out something


def test_the_bound_by_hand():
    # r = 2, max variance 3: e = 1, h = 2 (1 + 1/2 - sqrt(1 (4 + 1 - 2)) / 2) = 3 - sqrt(3).
    np.testing.assert_allclose(support_bound(1.5, 2.0), 3 - np.sqrt(3), rtol=1e-6)
