"""Designs of many rows: the same answer as on all rows at once, whatever the working set missed."""

import jax
import numpy as np
import pytest

from eagle_jax.design import interior_point, working_set
from eagle_jax.design.design_problem import GOptimalSettings, prepare
from eagle_jax.design.g_optimal import g_optimal_design
from tests.design.float64_peer import true_factor, true_variance

SETTINGS = GOptimalSettings(max_approximation_factor=1 + 1e-6)


def hidden_direction(rng):
    """300 weak rows alone carry the last direction; 256 others have larger leverages."""
    rows = rng.standard_t(2, size=(1500, 6)) * [1, 1, 1, 1, 1, 0]
    rows[:300] = 0.0
    rows[:300, 5] = rng.uniform(0.9, 1.0, size=300)
    return rows


SETS = {
    "gaussian": lambda rng: rng.normal(size=(1200, 8)),
    "heavy_tailed": lambda rng: rng.standard_t(2, size=(1200, 8)),
    "hidden_direction": hidden_direction,
    "sphere": lambda rng: (lambda x: x / np.linalg.norm(x, axis=1, keepdims=True))(rng.normal(size=(1200, 4))),
    "duplicates": lambda rng: np.repeat(rng.normal(size=(300, 5)), 4, axis=0),
}


@pytest.mark.parametrize("method", ["interior_point", "frank_wolfe"])
@pytest.mark.parametrize("name", SETS)
def test_every_row_is_covered(name, method):
    rows = SETS[name](np.random.default_rng(0))
    settings = GOptimalSettings(
        method=method, max_approximation_factor=1 + 1e-4, max_iterations=50 if method == "interior_point" else 5000
    )
    with jax.enable_x64(True):
        design = g_optimal_design(rows, settings)
    assert design.converged
    assert true_factor(rows, np.full(len(rows), 1 / len(rows))) > 1.05
    assert true_factor(rows, design.design_weights) <= 1 + 1.01e-4


def test_it_is_the_design_of_all_rows_at_once():
    rows = np.random.default_rng(1).normal(size=(600, 6))
    assert working_set.size(600, 6) < 600
    with jax.enable_x64(True):
        design = g_optimal_design(rows, SETTINGS)
        whole = jax.jit(lambda rows: interior_point.newton_steps(prepare(rows, SETTINGS), SETTINGS))(rows)
    variance, _ = true_variance(rows, whole.weights)
    np.testing.assert_allclose(design.prediction_variance, variance, rtol=1e-3)
    assert design.converged and float(whole.evaluation.factor) <= 1 + 1e-6


def test_the_error_curve_holds_certificates_on_all_rows():
    rows = np.polynomial.legendre.legvander(np.linspace(-1, 1, 2001), 7)
    with jax.enable_x64(True):
        design = g_optimal_design(rows, SETTINGS)
    errors = np.asarray(design.errors)
    rounds = np.flatnonzero(np.isfinite(errors))
    assert len(rounds) >= 2 and rounds[-1] == design.num_iterations - 1
    promised = np.asarray(design.approximation_factor) - 1
    np.testing.assert_allclose(errors[rounds[-1]], promised, atol=1e-12)
    assert (errors[rounds[:-1]] > 1e-6).all()


def test_chosen_rows_span_the_space():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 7))
    with jax.enable_x64(True):
        problem = prepare(rows, GOptimalSettings())
        chosen = np.asarray(working_set.spanning_rows(problem))
    assert problem.rank == 3 and chosen.sum() <= 7
    assert np.linalg.matrix_rank(rows[chosen]) == 3
