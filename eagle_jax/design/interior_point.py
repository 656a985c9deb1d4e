"""Primal-dual interior point for the G-optimal design.

    min over u >= 0 of  -log det M(u) + r sum(u),   M(u) = sum_a u_a z_a z_a'

whose optimum has sum(u) = 1 (the objective's own scale) and is the design. With G = Z M^-1 Z' and
the slack s_a = r - G_aa >= 0 a Newton step on  s_a u_a = mu  solves the symmetric positive
definite K x K system of  diag(s / u) + G * G  (elementwise square). Predictor and corrector as
Mehrotra (1992), separate step lengths for u and s. A ridge adds the atom ridge I to every z_a z_a'.

Axis letters: K candidates, p coordinates, R = K + p rows with ridge.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from eagle_jax.design.design_problem import DesignProblem, GOptimalSettings, Solution, evaluate, start, start_weights

# Of r: the least slack at the start, and how near a step may come to the boundary.
_START_SLACK = 0.03
_STEP_FRACTION = 0.99
# Down to this gap a Newton matrix in float32 takes as many iterations as one in float64, at half
# the cost; below it clusters of near-duplicates make it singular in float32.
_FLOAT32_GAP = 1e-5
# s / u of a row that must keep its weight of 0, as large as a float32 Cholesky factor can bear.
_FIXED = 1e30


class _State(NamedTuple):
    solution: Solution
    slack: jax.Array  # [K] s
    is_stalled: jax.Array  # []


def newton_steps(problem: DesignProblem, settings: GOptimalSettings) -> Solution:
    """Newton steps in float32 as far as they carry, then in float64; certificates in float64."""
    target = settings.max_approximation_factor
    state = _start(problem, settings)
    for dtype, stop in ((jnp.float32, max(target, 1.0 + _FLOAT32_GAP)), (jnp.float64, target)):
        state = jax.lax.while_loop(
            lambda state, stop=stop: state.solution.goes_on(stop) & ~state.is_stalled,
            functools.partial(_newton_step, problem, dtype),
            state._replace(is_stalled=jnp.bool_(False)),
        )
    return state.solution


def _start(problem, settings):
    """A few multiplicative steps, the more the cheaper they are against Newton's (p << K)."""
    num_rows, num_coordinates = problem.rows.shape
    rank = jnp.maximum(problem.rank, 1)
    weights = start_weights(problem)
    in_float32 = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, problem)
    for _ in range(min(3, num_rows // (2 * num_coordinates))):
        variance = evaluate(in_float32, weights.astype(jnp.float32)).variance
        weights = jnp.where(problem.rank > 0, weights * variance.astype(weights.dtype), weights)
        weights = weights / jnp.sum(weights)
    solution = start(problem, weights, settings)
    # A multiplicative step keeps the sum at 1, up to rounding.
    slack = jnp.maximum(rank - solution.evaluation.variance, _START_SLACK * rank)
    return _State(solution, slack, jnp.bool_(False))


def _newton_matrix(problem, evaluation, ratio, dtype):
    """diag(s / u) + sum over the atoms i of a and j of b of (y_i' y_j)^2, [K, K]."""
    num_rows = problem.rows.shape[0]
    half_rows = evaluation.half_rows.astype(dtype)
    squares = jnp.square(half_rows @ half_rows.T)
    matrix = squares[:num_rows, :num_rows]
    if problem.ridge_rows.shape[0]:
        of_ridge = jnp.sum(squares[:num_rows, num_rows:], axis=1)
        matrix += of_ridge[:, None] + of_ridge[None, :] + jnp.sum(squares[num_rows:, num_rows:])
    return matrix + jnp.diag(ratio.astype(dtype))


def _longest_step(values, direction):
    """The longest step in [0, 1] that keeps values >= 0."""
    return jnp.minimum(1.0, jnp.min(jnp.where(direction < 0, -values / direction, jnp.inf)))


def _newton_step(problem: DesignProblem, dtype, state: _State) -> _State:
    weights, evaluation, slack = state.solution.weights, state.solution.evaluation, state.slack
    is_free = weights > 0
    safe_weights = jnp.where(is_free, weights, 1.0)
    rank = jnp.maximum(problem.rank, 1)
    raw_variance = evaluation.variance / jnp.sum(weights)
    residual = jnp.where(is_free, rank - raw_variance - slack, 0.0)
    ratio = jnp.where(is_free, slack / safe_weights, _FIXED)
    factor = jax.lax.linalg.cholesky(_newton_matrix(problem, evaluation, ratio, dtype), symmetrize_input=False)

    def direction(complementarity):
        """du, ds of  (G * G) du - ds = -residual,  s du + u ds = u complementarity."""
        right_side = jnp.where(is_free, complementarity - residual, 0.0).astype(dtype)
        weights_step = jax.scipy.linalg.cho_solve((factor, True), right_side)
        weights_step = jnp.where(is_free, weights_step.astype(weights.dtype), 0.0)
        return weights_step, complementarity - ratio * weights_step

    num_free = jnp.sum(is_free)
    centrality = jnp.sum(jnp.where(is_free, weights * slack, 0.0)) / num_free
    weights_step, slack_step = direction(-slack)
    predicted = (weights + _longest_step(weights, weights_step) * weights_step) * (
        slack + _longest_step(slack, slack_step) * slack_step
    )
    predicted_centrality = jnp.sum(jnp.where(is_free, predicted, 0.0)) / num_free
    target = (predicted_centrality / centrality) ** 3 * centrality
    weights_step, slack_step = direction(-slack + (target - weights_step * slack_step) / safe_weights)
    # Near the optimum longer steps keep the convergence quadratic.
    fraction = jnp.maximum(_STEP_FRACTION, 1.0 - centrality * num_free / rank)
    new_weights = weights + jnp.minimum(1.0, fraction * _longest_step(weights, weights_step)) * weights_step
    new_slack = slack + jnp.minimum(1.0, fraction * _longest_step(slack, slack_step)) * slack_step
    return _accept(problem, dtype, state, new_weights, new_slack)


def _accept(problem, dtype, state, weights, slack):
    """The new point, or the old one where the factorisation broke (nan); and whether to go on.

    The certificate may grow for a step on the way. In float32 such a step may be rounding as well:
    the better arithmetic takes over.
    """
    evaluation = evaluate(problem, weights)
    before = state.solution
    is_finite = jnp.isfinite(evaluation.factor)
    is_stalled = ~is_finite
    if dtype == jnp.float32:
        is_stalled |= evaluation.factor >= before.evaluation.factor
    weights, slack, evaluation = jax.tree.map(
        lambda new, old: jnp.where(is_finite, new, old),
        (weights, slack, evaluation),
        (before.weights, state.slack, before.evaluation),
    )
    return _State(before.moved(weights, evaluation), slack, is_stalled)
