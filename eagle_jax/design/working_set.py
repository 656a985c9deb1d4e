"""Many rows, few of which matter: a method on a working set of them, certified on all.

Optimal supports are small against K when K is large, and a row outside the support only has to
have a variance of at most the rank. So: solve on the rows of largest variance, recompute the
variance of all rows under that design, and again with those that exceed it, until none does
(column generation).

Axis letters: K candidates, p coordinates, W rows of the working set.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from eagle_jax.design.design_problem import DesignProblem, GOptimalSettings, Solution, evaluate, start, start_weights
from eagle_jax.design.float64_batches import first_argmax

# W, by trial: half of it has to hold a support, which on a sphere is 10 p and more, or rounds undo
# each other's work.
_LEAST_ROWS, _ROWS_PER_COORDINATE = 256, 32


def spanning_rows(problem: DesignProblem) -> jax.Array:
    """[K] bool: rows that span all kept directions, by Gram-Schmidt with pivoting."""

    def add(_, state):
        residual, is_chosen = state
        lengths = jnp.sum(jnp.square(residual), axis=1)
        row = first_argmax(lengths)
        direction = residual[row] / jnp.sqrt(jnp.where(lengths[row] > 0, lengths[row], 1.0))
        residual -= (residual @ direction)[:, None] * direction[None, :]
        return residual, is_chosen.at[row].set(True)

    num_rows, num_coordinates = problem.rows.shape
    distinct = jnp.where(problem.is_support[:, None], problem.rows, 0.0)
    _, is_chosen = jax.lax.fori_loop(
        jnp.int32(0), jnp.int32(num_coordinates), add, (distinct, jnp.zeros(num_rows, bool))
    )
    return is_chosen


def size(num_rows: int, num_coordinates: int) -> int:
    """W, at most half of K; K where a working set would not pay."""
    num_working = max(_LEAST_ROWS, _ROWS_PER_COORDINATE * num_coordinates)
    return num_working if 2 * num_working <= num_rows else num_rows


def on_working_sets(
    method: Callable[[DesignProblem, GOptimalSettings], Solution], problem: DesignProblem, settings: GOptimalSettings
) -> Solution:
    """`method` on working sets; `errors` has the certificates on all rows, one a round.

    The steps of all rounds count; the round in which they reach max_iterations is the last.
    """
    num_working = size(*problem.rows.shape)
    if num_working == problem.rows.shape[0]:
        return method(problem, settings)

    is_always_in = spanning_rows(problem)

    def round_on_largest(state):
        # Half for the design so far: without it, rows of equal variance would take turns.
        largest, carrying = jax.lax.top_k(state.weights, num_working // 2)
        score = jnp.where(is_always_in, jnp.inf, state.evaluation.variance)
        score = score.at[carrying].max(jnp.where(largest > 0, jnp.inf, 0.0))
        _, working = jax.lax.top_k(jnp.where(problem.is_support, score, -1.0), num_working)
        solution = method(
            problem._replace(rows=problem.rows[working], is_support=problem.is_support[working]), settings
        )
        weights = jnp.zeros_like(state.weights).at[working].set(solution.weights)
        return state.moved(weights, evaluate(problem, weights), jnp.maximum(solution.step, 1))

    return jax.lax.while_loop(
        lambda state: state.goes_on(settings.max_approximation_factor),
        round_on_largest,
        start(problem, start_weights(problem), settings),
    )
