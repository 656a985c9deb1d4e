"""Designs that are known exactly, found by every method among rows that hide them."""

import itertools

import numpy as np
import pytest

from eagle_jax.design.g_optimal import g_optimal_design
from tests.design.float64_peer import METHODS, true_factor

each_method = pytest.mark.parametrize("method", METHODS)


def solve(rows, method):
    """The design, once sure that no method starts at its answer and that the certificate holds."""
    rows = np.asarray(rows, np.float32)
    assert true_factor(rows, np.full(len(rows), 1 / len(rows))) > 1.2
    design = g_optimal_design(rows, METHODS[method])
    assert design.converged and design.num_iterations > 0
    promised = float(design.approximation_factor)
    assert promised <= 1.0005
    assert true_factor(rows, design.design_weights) - 1 <= 1.1 * (promised - 1) + 1e-6
    return np.asarray(design.design_weights), np.asarray(design.prediction_variance)


def with_interior_rows(vertices, seed):
    """Vertices among shrunk mixtures of themselves, and where the vertices are."""
    rng = np.random.default_rng(seed)
    mixtures = 0.8 * rng.dirichlet(np.full(len(vertices), 0.3), size=40) @ vertices
    rows = np.concatenate([mixtures[:25], vertices, mixtures[25:]])
    is_vertex = np.zeros(len(rows), bool)
    is_vertex[25 : 25 + len(vertices)] = True
    return rows, is_vertex


@each_method
def test_a_basis_is_uniform(method):
    basis = np.random.default_rng(0).normal(size=(6, 6))
    rows, is_basis = with_interior_rows(basis, seed=1)
    weights, variance = solve(rows, method)
    # Any basis is round in its own coordinates, where every mixture is inside.
    np.testing.assert_allclose(weights[is_basis], 1 / 6, atol=1e-3)
    np.testing.assert_allclose(variance[is_basis], 6, rtol=1e-3)


@each_method
def test_the_simplex_is_uniform_on_its_vertices(method):
    d = 5
    # d + 1 unit vectors with equal angles: the centred unit vectors of R^(d+1), in a basis of
    # their span. z z' of the vertices are independent, so the weights are unique: 1 / (d + 1).
    centred = np.eye(d + 1) - 1 / (d + 1)
    rows, is_vertex = with_interior_rows(centred @ np.linalg.svd(centred)[2][:d].T, seed=0)
    weights, variance = solve(rows, method)
    np.testing.assert_allclose(weights[is_vertex], 1 / (d + 1), atol=1e-3)
    np.testing.assert_allclose(variance[is_vertex], d, rtol=1e-3)


@each_method
@pytest.mark.parametrize("shape", ["cross_polytope", "cube"])
def test_cross_polytope_and_cube_have_a_round_information_matrix(shape, method):
    d = 4
    if shape == "cross_polytope":
        vertices, moment = np.concatenate([np.eye(d), -np.eye(d)]), np.eye(d) / d
    else:
        vertices, moment = np.array(list(itertools.product([-1.0, 1.0], repeat=d))), np.eye(d)
    # Weights are not unique (z and -z are the same to M); M is.
    rows, _ = with_interior_rows(vertices, seed=1)
    weights, _ = solve(rows, method)
    found = rows.T @ (weights[:, None] * rows)
    np.testing.assert_allclose(found, moment, atol=5e-3 * moment[0, 0])


@each_method
@pytest.mark.parametrize("degree", [2, 4, 9])
def test_polynomial_regression_sits_on_the_legendre_support(degree, method):
    # Guest (1958): equal weights 1 / (n + 1) at -1, 1 and the zeros of P_n'.
    legendre = np.polynomial.legendre.Legendre.basis(degree)
    support = np.concatenate([[-1.0], np.sort(legendre.deriv().roots().real), [1.0]])
    grid = np.concatenate([np.linspace(-0.97, 0.97, 60), support])
    weights, variance = solve(np.polynomial.legendre.legvander(grid, degree), method)
    # Grid neighbours may share a support point's weight: add up what lies close to it.
    for point in support:
        assert weights[np.abs(grid - point) < 0.06].sum() == pytest.approx(1 / (degree + 1), abs=5e-3)
    np.testing.assert_allclose(variance[-len(support) :], degree + 1, rtol=3e-3)


@each_method
def test_trigonometric_regression_on_a_lopsided_grid(method):
    # Hoel (1965): n >= 2 m + 1 equidistant points are optimal for 1, cos, sin up to order m, with
    # M = diag(1, 1/2, ..., 1/2); the extra points crowd one half of the circle.
    order = 3
    rng = np.random.default_rng(2)
    angles = np.concatenate([2 * np.pi * np.arange(12) / 12, rng.uniform(0.3, 1.5, 80)])
    waves = [f(m * angles) for m in range(1, order + 1) for f in (np.cos, np.sin)]
    rows = np.stack([np.ones_like(angles), *waves], axis=1)
    weights, _ = solve(rows, method)
    moment = rows.T @ (weights[:, None] * rows)
    np.testing.assert_allclose(moment, np.diag([1.0] + [0.5] * (2 * order)), atol=0.02)


@each_method
def test_scheffe_mixtures_weigh_vertices_and_midpoints_equally(method):
    # Kiefer (1961): the quadratic mixture model in 3 components, 1/6 on each vertex and midpoint.
    lattice = np.array([p for p in itertools.product(range(9), repeat=3) if sum(p) == 8]) / 8
    pairs = [(0, 1), (0, 2), (1, 2)]
    rows = np.concatenate([lattice, np.stack([lattice[:, i] * lattice[:, j] for i, j in pairs], axis=1)], axis=1)
    weights, _ = solve(rows, method)
    is_support = np.isin(lattice, [0.0, 0.5, 1.0]).all(axis=1)
    assert is_support.sum() == 6
    np.testing.assert_allclose(weights[is_support], 1 / 6, atol=2e-3)
    assert weights[~is_support].sum() < 5e-3


@each_method
def test_the_quadratic_model_on_the_three_by_three_grid(method):
    # Full quadratic in two factors on {-1, 0, 1}^2, 6 terms. By symmetry corners, edge midpoints
    # and centre have weights 4 a + 4 b + c = 1, and all nine variances are 6:
    # a = 0.1458, b = 0.0802, c = 0.0962 (Fedorov 1972, section 2.3).
    grid = np.array(list(itertools.product([-1.0, 0.0, 1.0], repeat=2)))
    x, y = grid.T
    rows = np.stack([np.ones(9), x, y, x * x, y * y, x * y], axis=1)
    design = g_optimal_design(np.asarray(rows, np.float32), METHODS[method])
    weights = np.asarray(design.design_weights)
    corner, edge = np.abs(grid).sum(axis=1) == 2, np.abs(grid).sum(axis=1) == 1
    np.testing.assert_allclose(weights[corner], 0.1458, atol=1e-3)
    np.testing.assert_allclose(weights[edge], 0.0802, atol=1e-3)
    np.testing.assert_allclose(weights[4], 0.0962, atol=2e-3)
    np.testing.assert_allclose(design.prediction_variance, 6.0, rtol=2e-3)


@each_method
def test_rank_one_puts_all_on_the_longest(method):
    lengths = np.array([0.3, -2.0, 1.0, 0.5], np.float32)
    rows = lengths[:, None] * np.ones((1, 3), np.float32)
    design = g_optimal_design(rows, METHODS[method])
    assert design.rank == 1 and design.converged
    np.testing.assert_allclose(design.design_weights, [0, 1, 0, 0], atol=1e-3)
    np.testing.assert_allclose(design.prediction_variance, (lengths / 2) ** 2, rtol=2e-3)


@each_method
@pytest.mark.parametrize("width", [4, 9])
def test_independent_rows_are_uniform_at_once(width, method):
    rows = np.random.default_rng(12).normal(size=(4, width)).astype(np.float32)
    design = g_optimal_design(rows, METHODS[method])
    assert design.rank == 4 and design.converged and design.num_iterations == 0
    np.testing.assert_allclose(design.design_weights, 0.25, rtol=1e-5)
    np.testing.assert_allclose(design.prediction_variance, 4.0, rtol=1e-4)
