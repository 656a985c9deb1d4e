"""Frank-Wolfe with exact line search and away steps for the G-optimal design.

Fedorov (1972), Wolfe (1970), Atwood (1973); as in Todd, Minimum-Volume Ellipsoids (2016), chapter
3. All that a step needs is the Gram form V = Z M^-1 Z' of the rows under the design: its diagonal
are the leverages, and column a says how they change, in O(K), when row a gains or loses weight.

Axis letters: K candidates.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from eagle_jax.design.design_problem import DesignProblem, GOptimalSettings, Solution, evaluate, start_weights
from eagle_jax.design.float64_batches import first_argmax
from eagle_jax.design.multiplicative import support_bound

# Rank-one updates drift; the covariances are formed afresh at least this often.
_STEPS_BETWEEN_REFRESHES = 64


class _State(NamedTuple):
    weights: jax.Array  # [K], sums to 1
    gram: jax.Array  # [K, K] V
    leverages: jax.Array  # [K], its diagonal
    step: jax.Array  # []
    errors: jax.Array  # [max_iterations]


def frank_wolfe_steps(problem: DesignProblem, settings: GOptimalSettings) -> Solution:
    """Steps towards the largest leverage or away from the smallest in the support."""
    state = _State(
        *_refresh(problem, start_weights(problem)), step=jnp.int32(0), errors=jnp.full(settings.max_iterations, jnp.nan)
    )

    def goes_on(state):
        is_near = _factor(problem, state.leverages) <= settings.max_approximation_factor
        return (state.step < settings.max_iterations) & ~is_near

    def steps_between_refreshes(state):
        end = state.step + _STEPS_BETWEEN_REFRESHES
        state = jax.lax.while_loop(
            lambda state: goes_on(state) & (state.step < end), functools.partial(_step, problem), state
        )
        # No stop is believed before the leverages are recomputed.
        weights, gram, leverages = _refresh(problem, state.weights)
        errors = state.errors.at[state.step - 1].set(_factor(problem, leverages) - 1.0)
        return _State(weights, gram, leverages, state.step, errors)

    state = jax.lax.while_loop(goes_on, steps_between_refreshes, state)
    return Solution(state.weights, evaluate(problem, state.weights), state.step, state.errors)


def _refresh(problem, weights):
    """Weights without rows that cannot be in the support, their Gram form and its diagonal."""
    evaluation = evaluate(problem, weights)
    bound = support_bound(evaluation.factor, jnp.maximum(problem.rank, 1))
    is_possible = (evaluation.variance >= bound) | (problem.rank == 0)
    weights = jnp.where(is_possible, weights, 0.0)
    weights = weights / jnp.sum(weights)
    evaluation = evaluate(problem, weights)
    return weights, evaluation.half_rows @ evaluation.half_rows.T, evaluation.variance


def _factor(problem, leverages):
    return jnp.where(problem.rank > 0, jnp.max(leverages) / jnp.maximum(problem.rank, 1), 1.0)


def line_search(problem, weights, leverages):
    """The row to move towards or away from, the best step, and whether it empties the row.

    Moving q to (1 - step) q + step e_a changes log det M by
    r log(1 - step) + log(1 + step / (1 - step) g), largest at step = (g - r) / (r (g - 1)), where g
    is the leverage of row a: positive towards g > r, negative (away) from 1 < g < r.
    """
    rank = jnp.maximum(problem.rank, 1).astype(leverages.dtype)
    towards = first_argmax(jnp.where(problem.is_support, leverages, -jnp.inf))
    away = first_argmax(jnp.where(weights > 0, -leverages, -jnp.inf))
    is_away = rank - leverages[away] > leverages[towards] - rank
    row = jnp.where(is_away, away, towards)
    leverage = leverages[row]
    is_interior = leverage > 1.0
    step = (leverage - rank) / (rank * jnp.where(is_interior, leverage - 1.0, 1.0))
    # With rank 1 the best step is 1, where the rank-one update would divide by zero.
    step = jnp.minimum(step, 0.999)
    drop_step = -weights[row] / (1.0 - jnp.minimum(weights[row], 0.999))
    # At a leverage of 1 or less log det grows all the way until the row is empty.
    is_drop = is_away & (~is_interior | (step <= drop_step))
    return row, jnp.where(is_drop, drop_step, step), is_drop


def _step(problem: DesignProblem, state: _State) -> _State:
    row, step, is_drop = line_search(problem, state.weights, state.leverages)
    moved = (state.weights * (1.0 - step)).at[row].add(step)
    weights = moved.at[row].set(jnp.where(is_drop, 0.0, jnp.maximum(moved[row], 0.0)))

    # Sherman-Morrison on (1 - step) (M + odds z z'), odds = step / (1 - step).
    odds = step / (1.0 - step)
    column = state.gram[row]
    shrink = odds / (1.0 + odds * column[row])
    gram = (1.0 + odds) * (state.gram - shrink * (column[:, None] * column[None, :]))
    leverages = (1.0 + odds) * (state.leverages - shrink * jnp.square(column))
    errors = state.errors.at[state.step].set(_factor(problem, leverages) - 1.0)
    return _State(weights, gram, leverages, state.step + 1, errors)
