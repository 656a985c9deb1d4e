"""The multiplicative algorithm for the G-optimal design: few lines, cheap steps, slow at the end.

    u_a <- u_a variance_a / r

raises log det M(u) at every step (Silvey, Titterington and Torsney 1978; Yu 2010). Ten steps
reach a factor of 1.05, thousands 1.001; rows that cannot be in the support are left out on the way.

Axis letters: K candidates.
"""

import jax
import jax.numpy as jnp

from eagle_jax.design.design_problem import DesignProblem, GOptimalSettings, Solution, evaluate, start, start_weights


def support_bound(factor: jax.Array, rank: jax.Array) -> jax.Array:
    """No row of variance below this, under a design with this factor, is in an optimal support.

    h = r (1 + e / 2 - sqrt(e (4 + e - 4 / r)) / 2),  e = max variance - r, the absolute gap (the
    relative one deletes true support points): Harman and Pronzato (2007), theorem 1.
    """
    gap = jnp.maximum(factor - 1.0, 0.0) * rank
    root = jnp.sqrt(jnp.maximum(gap * (4.0 + gap - 4.0 / rank), 0.0))
    # The margin is for rounding in the variance.
    return rank * (1.0 + gap / 2.0 - root / 2.0) * (1.0 - 1e-9)


def multiplicative_steps(problem: DesignProblem, settings: GOptimalSettings) -> Solution:
    """Multiplicative steps from the leverage scores until the certificate is good enough."""
    rank = jnp.maximum(problem.rank, 1)

    def step(state: Solution) -> Solution:
        weights = state.weights * state.evaluation.variance / rank
        if not settings.ridge:  # the bound is for designs of vectors
            is_possible = state.evaluation.variance >= support_bound(state.evaluation.factor, rank)
            weights = jnp.where(is_possible, weights, 0.0)
        weights = weights / jnp.sum(weights)
        return state.moved(weights, evaluate(problem, weights))

    return jax.lax.while_loop(
        lambda state: state.goes_on(settings.max_approximation_factor),
        step,
        start(problem, start_weights(problem), settings),
    )
