"""The solver against designs known exactly, SciPy, float64 certificates and its own laws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from eagle_jax.design.g_optimal import GOptimalSettings, g_optimal_design

SETTINGS = GOptimalSettings(
    max_approximation_factor=1.0005, max_iterations=4000, rank_tolerance=1e-4
)


def true_variance(rows, weights):
    """z_a' M^+ z_a in float64 NumPy, from the raw rows."""
    rows = np.asarray(rows, np.float64)
    weights = np.asarray(weights, np.float64)
    matrix = np.linalg.pinv(rows.T @ (weights[:, None] * rows), rcond=1e-9, hermitian=True)
    return np.einsum("ki,ij,kj->k", rows, matrix, rows)


def true_factor(rows, weights):
    return true_variance(rows, weights).max() / np.linalg.matrix_rank(np.asarray(rows, np.float64))


def with_interior_rows(vertices, seed):
    """Vertices among shrunk mixtures of themselves, so that the uniform start is not the answer."""
    rng = np.random.default_rng(seed)
    mixtures = 0.8 * rng.dirichlet(np.full(len(vertices), 0.3), size=40) @ vertices
    rows = np.concatenate([mixtures[:25], vertices, mixtures[25:]]).astype(np.float32)
    is_vertex = np.zeros(len(rows), bool)
    is_vertex[25 : 25 + len(vertices)] = True
    assert true_factor(rows, np.full(len(rows), 1 / len(rows))) > 1.5
    return rows, is_vertex


def test_simplex_is_uniform_on_its_vertices():
    d = 5
    # d + 1 unit vectors with equal angles: the centred unit vectors of R^(d+1), in a basis of
    # their span. z z' of the vertices are independent, so the weights are unique: 1 / (d + 1).
    centred = np.eye(d + 1) - 1 / (d + 1)
    basis = np.linalg.svd(centred)[2][:d]
    rows, is_vertex = with_interior_rows(centred @ basis.T, seed=0)
    design = g_optimal_design(rows, SETTINGS)
    assert design.converged and design.rank == d and design.num_iterations > 0
    np.testing.assert_allclose(design.design_weights[is_vertex], 1 / (d + 1), atol=1e-3)
    np.testing.assert_allclose(design.design_weights[~is_vertex], 0.0, atol=1e-3)
    np.testing.assert_allclose(design.prediction_variance[is_vertex], d, rtol=1e-3)


@pytest.mark.parametrize("shape", ["cross_polytope", "cube"])
def test_cross_polytope_and_cube_have_a_round_information_matrix(shape):
    d = 4
    if shape == "cross_polytope":
        vertices, moment = np.concatenate([np.eye(d), -np.eye(d)]), np.eye(d) / d
    else:
        vertices, moment = np.array(list(itertools.product([-1.0, 1.0], repeat=d))), np.eye(d)
    # Weights are not unique (z and -z are the same to M); M is.
    rows, _ = with_interior_rows(vertices, seed=1)
    design = g_optimal_design(rows, SETTINGS)
    assert design.converged
    found = rows.T @ (np.asarray(design.design_weights)[:, None] * rows)
    np.testing.assert_allclose(found, moment, atol=5e-3 * moment[0, 0])


def test_polynomial_regression_sits_on_the_legendre_support():
    degree = 4
    # Guest (1958): equal weights 1 / (n + 1) at -1, 1 and the zeros of P_n'.
    legendre = np.polynomial.legendre.Legendre.basis(degree)
    support = np.concatenate([[-1.0], np.sort(legendre.deriv().roots().real), [1.0]])
    grid = np.concatenate([np.linspace(-0.97, 0.97, 60), support])
    rows = np.polynomial.polynomial.polyvander(grid, degree).astype(np.float32)
    design = g_optimal_design(rows, SETTINGS)
    assert design.converged and design.rank == degree + 1 and design.num_iterations > 0
    # Grid neighbours may share a support point's weight: add up what lies close to it.
    for point in support:
        mass = np.asarray(design.design_weights)[np.abs(grid - point) < 0.06].sum()
        assert mass == pytest.approx(1 / (degree + 1), abs=5e-3)
    np.testing.assert_allclose(design.prediction_variance[-len(support) :], degree + 1, rtol=3e-3)


def test_agrees_with_scipy_on_log_det():
    rng = np.random.default_rng(2)
    rows = (rng.normal(size=(30, 4)) * [1.0, 2.0, 0.5, 1.5]).astype(np.float32)

    def objective(logits):
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        variance = true_variance(rows, weights)
        moment = rows.T.astype(np.float64) @ (weights[:, None] * rows)
        return -np.linalg.slogdet(moment)[1], -weights * (variance - weights @ variance)

    peer = scipy.optimize.minimize(
        objective, np.zeros(30), jac=True, method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9},
    )
    design = g_optimal_design(rows, SETTINGS)
    weights = np.maximum(np.asarray(design.design_weights, np.float64), 1e-300)
    ours, _ = objective(np.log(weights))
    # log det of a design of factor c is within r log c of the best.
    assert peer.fun - 1e-6 <= ours <= peer.fun + 4 * np.log(1.0005) + 1e-5
    peer_weights = np.exp(peer.x - peer.x.max())
    peer_variance = true_variance(rows, peer_weights / peer_weights.sum())
    np.testing.assert_allclose(design.prediction_variance, peer_variance, atol=0.03)


def stress_rows(name, rng):
    rows = rng.normal(size=(100, 8))
    if name == "ill_conditioned":  # condition 1e3
        rows = rows * np.logspace(0, -3, 8) @ np.linalg.qr(rng.normal(size=(8, 8)))[0]
    elif name == "clustered":  # almost all rows in one narrow cone, a few outside
        rows[:90] = rng.normal(size=8) + 0.01 * rows[:90]
    elif name == "heavy_tailed":
        rows = rows * np.exp(3 * rng.normal(size=(100, 1)))
    return rows.astype(np.float32)


@pytest.mark.parametrize("name", ["gaussian", "ill_conditioned", "clustered", "heavy_tailed"])
def test_certificate_is_what_float64_finds_from_the_raw_rows(name):
    rng = np.random.default_rng(3)
    rows = np.stack([stress_rows(name, rng) for _ in range(16)])
    uniform = np.full(100, 0.01)
    assert min(true_factor(problem, uniform) for problem in rows) > 1.3  # a start away
    design = g_optimal_design(rows, SETTINGS)
    assert design.converged.all() and (design.rank == 8).all()
    np.testing.assert_allclose(design.design_weights.sum(axis=1), 1.0, rtol=1e-5)
    assert (np.asarray(design.design_weights) >= 0).all()
    for problem, weights, promised in zip(
        rows, design.design_weights, design.approximation_factor, strict=True
    ):
        assert true_factor(problem, weights) == pytest.approx(float(promised), abs=2e-4)
        assert true_factor(problem, weights) >= 1 - 1e-9


def test_rounding_of_the_steps_does_not_reach_the_certificate():
    # 700 rank-one updates in float32 drift by some 3e-6; a fresh factorisation is right to 1e-7.
    precise = GOptimalSettings(
        max_approximation_factor=1 + 2e-5, max_iterations=5000, rank_tolerance=1e-4
    )
    rows = np.random.default_rng(0).normal(size=(12, 100, 16)).astype(np.float32)
    design = g_optimal_design(rows, precise)
    assert design.converged.all() and design.num_iterations.max() > 300
    errors = [
        abs(true_factor(problem, weights) - float(promised))
        for problem, weights, promised in zip(
            rows, design.design_weights, design.approximation_factor, strict=True
        )
    ]
    assert np.median(errors) < 7e-7


def test_change_of_basis_and_order_change_nothing():
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(50, 5)).astype(np.float32)
    design = g_optimal_design(rows, SETTINGS)
    mixed = rows @ (rng.normal(size=(5, 5)) + 3 * np.eye(5)).astype(np.float32)
    np.testing.assert_allclose(
        g_optimal_design(mixed, SETTINGS).prediction_variance, design.prediction_variance, atol=0.02
    )
    order = rng.permutation(50)
    np.testing.assert_allclose(
        g_optimal_design(rows[order], SETTINGS).prediction_variance,
        design.prediction_variance[order], atol=0.02,
    )
    np.testing.assert_allclose(
        g_optimal_design(1e25 * rows, SETTINGS).prediction_variance,
        design.prediction_variance, atol=0.02,
    )


def test_batch_is_a_loop_and_one_bad_problem_harms_no_other():
    rows = np.random.default_rng(5).normal(size=(3, 20, 4)).astype(np.float32)
    rows[1, 7, 2] = np.nan
    batch = g_optimal_design(rows, SETTINGS)
    np.testing.assert_array_equal(batch.converged, [True, False, True])
    assert np.isnan(batch.design_weights[1]).all() and np.isnan(batch.approximation_factor[1])
    for i in (0, 2):
        single = g_optimal_design(rows[i], SETTINGS)
        np.testing.assert_allclose(batch.design_weights[i], single.design_weights, atol=1e-6)
        assert batch.num_iterations[i] == single.num_iterations


def test_one_compilation_per_shape():
    g_optimal_design.clear_cache()
    rng = np.random.default_rng(6)
    for scale in (1.0, 10.0, 0.0):
        rows = jnp.asarray(scale * rng.normal(size=(12, 3)), jnp.float32)
        g_optimal_design(rows, SETTINGS)
    assert g_optimal_design._cache_size() == 1


def test_error_curve_ends_at_the_certificate():
    rows = stress_rows("clustered", np.random.default_rng(7))
    design = g_optimal_design(rows, SETTINGS)
    last = int(design.num_iterations)
    assert 0 < last < SETTINGS.max_iterations
    assert np.isfinite(design.errors[:last]).all() and np.isnan(design.errors[last:]).all()
    np.testing.assert_allclose(design.errors[last - 1], design.approximation_factor - 1, rtol=1e-5)


def test_every_step_is_the_best_along_its_line():
    rng = np.random.default_rng(14)
    rows = np.stack([stress_rows("heavy_tailed", rng)[:20, :3] for _ in range(24)])
    before, after = (
        np.asarray(
            g_optimal_design(
                rows,
                GOptimalSettings(
                    max_approximation_factor=1 + 1e-6, max_iterations=steps, rank_tolerance=1e-4
                ),
            ).design_weights,
            np.float64,
        )
        for steps in (20, 21)
    )
    is_drop, gains = np.zeros(24, bool), []
    for i, problem in enumerate(rows.astype(np.float64)):

        def loss(share, i=i, problem=problem):  # share 0: before the step, 1: after it
            weights = before[i] + share * (after[i] - before[i])
            return -np.linalg.slogdet(problem.T @ (weights[:, None] * problem))[1]

        is_drop[i] = ((before[i] > 0) & (after[i] == 0)).any()
        # A step that empties a row ends at the edge: then the best share is at least 1.
        limit = 1.0 if is_drop[i] else 2.0
        best = scipy.optimize.minimize_scalar(loss, bounds=(0.0, limit), method="bounded")
        assert loss(1.0) <= best.fun + 1e-5
        assert loss(1.0) < loss(0.0)
        gains.append(loss(0.0) - loss(1.0))
    assert is_drop.any() and not is_drop.all()
    assert np.median(gains) > 1e-3  # the bar above is far below what a step is worth


def test_running_out_of_iterations_is_said_and_certified():
    rows = stress_rows("clustered", np.random.default_rng(8))
    short = GOptimalSettings(max_approximation_factor=1.0005, max_iterations=9, rank_tolerance=1e-4)
    design = g_optimal_design(rows, short)
    assert not design.converged and design.num_iterations == 9
    promised = float(design.approximation_factor)
    assert true_factor(rows, design.design_weights) == pytest.approx(promised, rel=1e-3)
    assert promised > 1.0005


def test_float64_reaches_a_gap_that_float32_cannot():
    precise = GOptimalSettings(
        max_approximation_factor=1 + 1e-9, max_iterations=4000, rank_tolerance=1e-8
    )
    with jax.enable_x64(True):
        rows = jnp.asarray(np.random.default_rng(9).normal(size=(20, 3)), jnp.float64)
        design = g_optimal_design(rows, precise)
        assert design.design_weights.dtype == jnp.float64 and design.converged
        assert true_factor(rows, design.design_weights) <= 1 + 2e-9


class TestDegenerate:
    def test_duplicates_put_the_weight_on_the_first(self):
        rows = np.random.default_rng(10).normal(size=(12, 3)).astype(np.float32)
        single = g_optimal_design(rows, SETTINGS)
        doubled = g_optimal_design(np.concatenate([rows, rows]), SETTINGS)
        np.testing.assert_array_equal(doubled.design_weights[12:], 0.0)
        np.testing.assert_allclose(
            doubled.prediction_variance[12:], doubled.prediction_variance[:12], rtol=1e-5
        )
        np.testing.assert_allclose(
            doubled.prediction_variance[:12], single.prediction_variance, atol=0.02
        )

    def test_zero_rows_get_no_weight(self):
        rows = np.random.default_rng(11).normal(size=(10, 3)).astype(np.float32)
        rows[[2, 5]] = 0.0
        design = g_optimal_design(rows, SETTINGS)
        assert design.converged
        np.testing.assert_array_equal(design.design_weights[np.array([2, 5])], 0.0)

    def test_fewer_rows_than_dimensions_is_uniform(self):
        rows = np.random.default_rng(12).normal(size=(4, 9)).astype(np.float32)
        design = g_optimal_design(rows, SETTINGS)
        assert design.rank == 4 and design.converged and design.num_iterations == 0
        np.testing.assert_allclose(design.design_weights, 0.25, rtol=1e-5)
        np.testing.assert_allclose(design.prediction_variance, 4.0, rtol=1e-4)

    def test_rank_ignores_directions_below_the_tolerance(self):
        rng = np.random.default_rng(13)
        plane = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 6))
        rows = (plane + 1e-6 * rng.normal(size=(40, 6))).astype(np.float32)
        design = g_optimal_design(rows, SETTINGS)
        assert design.rank == 2 and design.converged
        basis = np.linalg.svd(plane)[2][:2]
        assert true_factor(rows @ basis.T, design.design_weights) <= 1.001

    def test_rank_one_puts_all_on_the_longest(self):
        lengths = np.array([0.3, -2.0, 1.0, 0.5], np.float32)
        design = g_optimal_design(lengths[:, None] * np.ones((1, 3), np.float32), SETTINGS)
        assert design.rank == 1 and design.converged
        np.testing.assert_allclose(design.design_weights, [0, 1, 0, 0], atol=1e-3)
        np.testing.assert_allclose(design.prediction_variance, (lengths / 2) ** 2, rtol=2e-3)

    def test_one_row(self):
        design = g_optimal_design(np.array([[3.0, 4.0]], np.float32), SETTINGS)
        assert design.converged and design.rank == 1
        np.testing.assert_allclose(design.design_weights, [1.0])
        np.testing.assert_allclose(design.prediction_variance, [1.0], rtol=1e-5)

    def test_all_zero_rows(self):
        design = g_optimal_design(np.zeros((5, 3), np.float32), SETTINGS)
        assert design.rank == 0 and design.converged and design.approximation_factor == 1.0
        np.testing.assert_allclose(design.design_weights, 0.2)
        np.testing.assert_array_equal(design.prediction_variance, 0.0)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite_is_not_converged(self, bad):
        rows = np.ones((5, 3), np.float32)
        rows[3, 1] = bad
        design = g_optimal_design(rows, SETTINGS)
        assert not design.converged and np.isnan(design.design_weights).all()


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 0, 3), (1, 2, 3, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[K, d\]"):
        g_optimal_design(np.zeros(shape, np.float32), SETTINGS)


@pytest.mark.parametrize(
    "name, value",
    [("max_approximation_factor", 1.0), ("max_iterations", 0), ("rank_tolerance", 0.0)],
)
def test_settings_out_of_range_are_refused(name, value):
    knobs = {"max_approximation_factor": 1.1, "max_iterations": 10, "rank_tolerance": 1e-4}
    with pytest.raises(ValueError, match=name):
        GOptimalSettings(**(knobs | {name: value}))
