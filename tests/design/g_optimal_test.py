"""The solver against SciPy, cvxpy and float64 certificates, and its laws."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from eagle_jax.design.g_optimal import GOptimalSettings, g_optimal_design
from tests.design.float64_peer import METHODS, true_factor, true_variance

each_method = pytest.mark.parametrize("method", METHODS)
SETTINGS = METHODS["interior_point"]


# Most tests are about problems of this shape: few compilations of each method for all of them.
SHAPE = 30, 4


def clustered_rows(seed):
    """Most rows in one narrow cone, a few outside."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=SHAPE)
    rows[:-10] = rng.normal(size=4) + 0.01 * rows[:-10]
    return rows.astype(np.float32)


@each_method
def test_agrees_with_scipy_on_log_det(method):
    rng = np.random.default_rng(2)
    rows = (rng.normal(size=SHAPE) * [1.0, 2.0, 0.5, 1.5]).astype(np.float32)

    def objective(logits):
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        variance, _ = true_variance(rows, weights)
        moment = rows.T.astype(np.float64) @ (weights[:, None] * rows)
        return -np.linalg.slogdet(moment)[1], -weights * (variance - weights @ variance)

    peer = scipy.optimize.minimize(
        objective,
        np.zeros(30),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9},
    )
    design = g_optimal_design(rows, METHODS[method])
    weights = np.maximum(np.asarray(design.design_weights, np.float64), 1e-300)
    ours, _ = objective(np.log(weights))
    # log det of a design of factor c is within r log c of the best.
    assert peer.fun - 1e-6 <= ours <= peer.fun + 4 * np.log(1.0005) + 1e-5
    peer_weights = np.exp(peer.x - peer.x.max())
    peer_variance, _ = true_variance(rows, peer_weights / peer_weights.sum())
    np.testing.assert_allclose(design.prediction_variance, peer_variance, atol=0.03)


@pytest.mark.parametrize("ridge", [0.0, 0.05])
def test_agrees_with_cvxpy(ridge):
    cvxpy = pytest.importorskip("cvxpy", reason="cvxpy is in the test extra")
    rows = np.random.default_rng(3).normal(size=(25, 4))
    weights = cvxpy.Variable(25, nonneg=True)
    information_matrix = rows.T @ cvxpy.diag(weights) @ rows + ridge * np.eye(4)
    cvxpy.Problem(cvxpy.Maximize(cvxpy.log_det(information_matrix)), [cvxpy.sum(weights) == 1]).solve(solver="CLARABEL")
    with jax.enable_x64(True):
        design = g_optimal_design(rows, GOptimalSettings(max_approximation_factor=1 + 1e-8, ridge=ridge))
    assert design.converged
    np.testing.assert_allclose(design.design_weights, weights.value, atol=2e-4)
    inverse = np.linalg.inv(rows.T @ (np.asarray(weights.value)[:, None] * rows) + ridge * np.eye(4))
    variance = np.einsum("ki,ij,kj->k", rows, inverse, rows)
    np.testing.assert_allclose(design.prediction_variance, variance, rtol=2e-3)


@pytest.mark.parametrize("method", ["interior_point", "multiplicative"])
@pytest.mark.parametrize("num_rows, width", [(60, 6), (20, 40)])
def test_ridge_certificate_bounds_the_ridge_leverage(num_rows, width, method):
    rows = np.random.default_rng(4).normal(size=(num_rows, width)).astype(np.float32)
    ridge, gap = 0.3, 1e-3
    design = g_optimal_design(
        rows, GOptimalSettings(method=method, max_approximation_factor=1 + gap, max_iterations=5000, ridge=ridge)
    )
    assert design.converged and design.rank == min(num_rows, width)
    wide = rows.astype(np.float64)
    moment = wide.T @ (np.asarray(design.design_weights, np.float64)[:, None] * wide)
    inverse = np.linalg.inv(moment + ridge * np.eye(width))
    leverage = np.einsum("ki,ij,kj->k", wide, inverse, wide)
    effective_dimension = np.trace(inverse @ moment)
    np.testing.assert_allclose(design.prediction_variance, leverage, rtol=1e-5)
    assert leverage.max() <= effective_dimension + gap * float(design.rank) + 1e-5
    promised = 1 + (leverage.max() - effective_dimension) / float(design.rank)
    assert promised == pytest.approx(float(design.approximation_factor), abs=1e-5)
    uniform = np.linalg.inv(wide.T @ wide / num_rows + ridge * np.eye(width))
    assert np.einsum("ki,ij,kj->k", wide, uniform, wide).max() > 1.05 * leverage.max()


@each_method
def test_change_of_basis_and_order_change_nothing(method):
    rng = np.random.default_rng(4)
    rows = rng.normal(size=SHAPE).astype(np.float32)
    design = g_optimal_design(rows, METHODS[method])
    mixed = rows @ (rng.normal(size=(4, 4)) + 3 * np.eye(4)).astype(np.float32)
    order, same = rng.permutation(30), np.arange(30)
    for name, other, back in (
        ("basis", mixed, same),
        ("order", rows[order], np.argsort(order)),
        ("scale", 1e25 * rows, same),
        ("signs", rows * rng.choice([-1, 1], size=(30, 1)).astype(np.float32), same),
    ):
        again = g_optimal_design(other, METHODS[method])
        np.testing.assert_allclose(again.prediction_variance[back], design.prediction_variance, atol=0.02, err_msg=name)


@each_method
def test_batch_is_a_loop_and_one_bad_problem_harms_no_other(method):
    rows = np.random.default_rng(5).normal(size=(2, 2, *SHAPE)).astype(np.float32)
    rows[0, 1, 7, 2] = np.nan
    batch = g_optimal_design(rows, METHODS[method])
    np.testing.assert_array_equal(batch.converged, [[True, False], [True, True]])
    assert np.isnan(batch.design_weights[0, 1]).all()
    assert np.isnan(batch.approximation_factor[0, 1]) and batch.rank[0, 1] == 0
    for i, j in ((0, 0), (1, 0), (1, 1)):
        single = g_optimal_design(rows[i, j], METHODS[method])
        chex.assert_trees_all_equal(jax.tree.map(lambda x, at=(i, j): x[at], batch), single)


@each_method
def test_side_by_side_is_one_after_the_other(method):
    # What accelerators run: vmap, in which every problem waits for the slowest.
    rows = np.random.default_rng(6).normal(size=(5, *SHAPE)).astype(np.float32)
    rows[1, :, 3] = 0.0
    rows[2, 5:] = 0.0
    loop = jax.tree.map(lambda *of_all: np.stack(of_all), *(g_optimal_design(one, METHODS[method]) for one in rows))
    together = jax.vmap(lambda problem: g_optimal_design(problem, METHODS[method]))(rows)
    np.testing.assert_array_equal(together.num_iterations, loop.num_iterations)
    np.testing.assert_array_equal(together.rank, loop.rank)
    np.testing.assert_allclose(together.design_weights, loop.design_weights, atol=1e-6)


@each_method
def test_works_inside_a_float32_program(method):
    rows = np.random.default_rng(7).normal(size=SHAPE).astype(np.float32)

    @jax.jit
    def program(rows):
        design = g_optimal_design(2.0 * rows, METHODS[method])
        return design, jnp.sum(design.design_weights[:, None] * rows, axis=0)

    inside, mean = program(rows)
    outside = g_optimal_design(2.0 * rows, METHODS[method])
    assert inside.design_weights.dtype == mean.dtype == jnp.float32
    assert inside.rank.dtype == jnp.int32
    chex.assert_trees_all_equal(inside, outside)
    assert not jax.config.jax_enable_x64


def test_one_compilation_per_shape_and_settings():
    jax.clear_caches()  # other files have solved this shape
    compilations = []

    def count(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        rng = np.random.default_rng(6)
        for scale in (1.0, 10.0, 0.0):
            rows = (scale * rng.normal(size=(13, 3))).astype(np.float32)
            g_optimal_design(rows, SETTINGS)
            if scale == 1.0:
                first = len(compilations)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert first >= 1 and len(compilations) == first


@each_method
def test_the_error_curve_ends_at_the_certificate(method):
    design = g_optimal_design(clustered_rows(seed=7), METHODS[method])
    last = int(design.num_iterations)
    assert 0 < last < METHODS[method].max_iterations
    assert np.isfinite(design.errors[:last]).all() and np.isnan(design.errors[last:]).all()
    assert design.errors[last - 1] <= 5e-4 < design.errors[last - 2]
    np.testing.assert_allclose(design.errors[last - 1], design.approximation_factor - 1, atol=2e-6)


@each_method
def test_running_out_of_iterations_is_said_and_certified(method):
    rows = clustered_rows(seed=8)
    design = g_optimal_design(rows, dataclasses.replace(METHODS[method], max_iterations=1))
    assert not design.converged and design.num_iterations == 1
    promised = float(design.approximation_factor)
    assert true_factor(rows, design.design_weights) == pytest.approx(promised, rel=1e-5)
    assert promised > 1.0005


def test_float64_in_float64_out():
    rows = np.random.default_rng(9).normal(size=(20, 3))
    with jax.enable_x64(True):
        design = g_optimal_design(rows, GOptimalSettings(max_approximation_factor=1 + 1e-9))
        assert design.design_weights.dtype == design.errors.dtype == jnp.float64
    assert design.converged
    assert true_factor(rows, design.design_weights) <= 1 + 1.1e-9


def test_more_than_float32_can_promise_is_refused():
    rows = np.random.default_rng(9).normal(size=(20, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="float32 weights can promise"):
        g_optimal_design(rows, GOptimalSettings(max_approximation_factor=1 + 1e-7))


def test_bfloat16_rows_are_taken_as_they_are():
    rows = jnp.asarray(np.random.default_rng(10).normal(size=SHAPE), jnp.bfloat16)
    design = g_optimal_design(rows, SETTINGS)
    assert design.design_weights.dtype == jnp.float32 and design.converged
    assert true_factor(np.asarray(rows, np.float64), design.design_weights) <= 1.0005


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 0, 3), (2, 3, 0)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[\.\.\., K, d\]"):
        g_optimal_design(np.zeros(shape, np.float32), SETTINGS)


def test_frank_wolfe_refuses_a_ridge():
    with pytest.raises(ValueError, match="rank-one"):
        GOptimalSettings(method="frank_wolfe", ridge=0.1)
