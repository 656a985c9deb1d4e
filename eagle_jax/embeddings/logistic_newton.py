"""Logistic loss of a linear score with an L2 penalty, minimised by Newton's method under jit.

    J(w) = sum_k s_k log(1 + exp(-y_k <w, a_k>)) + penalty / 2 * |w without the bias|^2

Newton steps are solved by conjugate gradients (Hessian-vector products only: a batch of problems
that share their rows costs one matrix product each) and halved until J decreases (Nocedal and
Wright 2006, algorithm 7.1), or its slope does where J differs by rounding only. Stops when |grad J|
is below `tolerance` times its norm at w = 0, or no halving helps any more in float32.

Axis letters: P rows, d width (d + 1 with a bias).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

_MAX_CG_STEPS = 100
_MAX_HALVINGS = 20
_NO_SIGNAL = 1e-6  # a gradient at 0 below it is rounding, with rows of unit variance
_ROUNDING = 1e-5  # of J in float32, summed in whatever order: a smaller change of it tells nothing


class LogisticSolution(NamedTuple):
    """gradient_norm: relative to that at 0; nan where that vanishes: w = 0 is the minimum."""

    weights: jax.Array  # [d], or [d + 1] with the bias last
    gradient_norm: jax.Array  # []
    num_iterations: jax.Array  # []


class _Carry(NamedTuple):
    weights: jax.Array
    gradient: jax.Array
    value: jax.Array
    step: jax.Array
    stuck: jax.Array


def solve_logistic(
    rows: jax.Array,
    signs: jax.Array,
    row_weights: jax.Array,
    penalty: jax.Array,
    *,
    with_bias: bool,
    tolerance: jax.Array,
    max_iterations: jax.Array,
) -> LogisticSolution:
    """argmin of J / sum_k s_k (with the penalty as given); pure, to be vmapped and jitted.

    rows a [P, d]; signs y [P] of +1 and -1; row_weights s [P], 0 for rows that do not count.
    """
    width = rows.shape[1]
    row_weights = row_weights / jnp.sum(row_weights)

    def linear(weights):
        scores = jnp.matmul(rows, weights[:width], precision=jax.lax.Precision.HIGHEST)
        return scores + weights[width] if with_bias else scores

    def objective(weights):
        loss = jnp.sum(row_weights * jax.nn.softplus(-signs * linear(weights)))
        return loss + 0.5 * penalty * jnp.sum(weights[:width] ** 2)

    value_and_gradient = jax.value_and_grad(objective)
    transposed = jax.linear_transpose(linear, jnp.zeros(width + with_bias))
    shrunk = penalty * (jnp.arange(width + with_bias) < width)

    def iterate(carry: _Carry) -> _Carry:
        chance = jax.nn.sigmoid(linear(carry.weights))
        curvature = row_weights * chance * (1 - chance)

        def hessian_product(vector):
            return transposed(curvature * linear(vector))[0] + shrunk * vector

        # Inexact Newton: the residual shrinks with the gradient, so convergence is superlinear.
        norm = jnp.linalg.norm(carry.gradient)
        direction, _ = jax.scipy.sparse.linalg.cg(
            hessian_product, -carry.gradient, tol=jnp.minimum(0.1, jnp.sqrt(norm)), maxiter=_MAX_CG_STEPS
        )
        slope = jnp.vdot(direction, carry.gradient)

        def attempt(length):
            weights = carry.weights + length * direction
            return length, weights, *value_and_gradient(weights)

        def too_far(attempted):
            length, _, value, gradient = attempted
            gained = value - carry.value
            # Near the minimum J changes by its rounding only. There its slope says whether the step is short enough
            # (Hager and Zhang 2005, approximate Wolfe condition), which float32 still tells.
            is_level = (jnp.abs(gained) <= _ROUNDING * carry.value) & (jnp.vdot(direction, gradient) <= -0.9 * slope)
            return (gained > 1e-4 * length * slope) & ~is_level

        length, weights, value, gradient = jax.lax.while_loop(
            lambda attempted: too_far(attempted) & (attempted[0] > 0.5**_MAX_HALVINGS),
            lambda attempted: attempt(attempted[0] / 2),
            attempt(jnp.float32(1)),
        )
        stuck = length <= 0.5**_MAX_HALVINGS
        return _Carry(weights, gradient, value, carry.step + 1, stuck)

    start = jnp.zeros(width + with_bias)
    value, gradient = value_and_gradient(start)
    limit = jnp.linalg.norm(gradient)

    def goes_on(carry: _Carry):
        small = jnp.linalg.norm(carry.gradient) <= tolerance * limit
        return (limit > _NO_SIGNAL) & ~small & ~carry.stuck & (carry.step < max_iterations)

    first = _Carry(start, gradient, value, jnp.int32(0), jnp.bool_(False))
    last = jax.lax.while_loop(goes_on, iterate, first)
    relative = jnp.where(limit > _NO_SIGNAL, jnp.linalg.norm(last.gradient) / limit, jnp.float32(jnp.nan))
    return LogisticSolution(last.weights, relative, last.step)
