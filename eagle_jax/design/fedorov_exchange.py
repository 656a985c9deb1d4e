"""Fedorov's exchange: k rows of large log det, in coordinates that never see the rows again.

All that is needed of the kept rows is V = Z M^-1 Z', M = ridge I + sum_kept z z', which moves by
rank one when a row is added and by rank two when one is exchanged: no factorisation in the loop.

Axis letters: K candidates, k kept candidates.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from eagle_jax.design.design_problem import DesignProblem, GOptimalSettings, evaluate
from eagle_jax.design.float64_batches import first_argmax

# Keeps log det finite before the kept rows span the space; whitened rows have moments near 1 / K.
_RIDGE = 1e-6
# A smaller gain of an exchange is worth nothing here and may be rounding, which could cycle.
_SMALLEST_GAIN = 1.001


class _Exchange(NamedTuple):
    cross: jax.Array  # [K, K], V = Z M^-1 Z'
    is_kept: jax.Array  # [K]
    kept: jax.Array  # [k] int32
    position: jax.Array  # [], in kept, of the row that is best to leave
    entering: jax.Array  # [], the row that is best to enter
    gain: jax.Array  # [], of the determinant
    step: jax.Array  # []


def exchange(problem: DesignProblem, is_valid: jax.Array, num_kept: int, settings: GOptimalSettings) -> jax.Array:
    """is_kept [K] bool, as `kept_subset.exchange_subset` says; float64 rows, is_valid [K] bool."""
    num_rows = is_valid.shape[0]
    state = jax.lax.while_loop(
        lambda state: (state.gain > _SMALLEST_GAIN) & (state.step < num_kept * num_rows),
        functools.partial(_exchange_best, is_valid),
        _find_best(_pivoted_start(problem, is_valid, num_kept, settings), is_valid),
    )
    return state.is_kept


def _pivoted_start(problem, is_valid, num_kept, settings):
    if settings.ridge:  # M(q) + ridge, times k
        rows = problem.rows
        ridge = jnp.maximum(num_kept * jnp.square(problem.ridge_rows[0, 0]), _RIDGE)
    else:
        # The start depends on what is round: all rows, and a change that many actions make counts
        # as often (a prepared problem is round in the distinct rows).
        rows = evaluate(problem, jnp.ones(is_valid.shape)).half_rows
        ridge = _RIDGE

    def add(step, state):
        is_allowed = is_valid & ~state.is_kept
        leverage = jnp.diagonal(state.cross)
        row = first_argmax(jnp.where(is_allowed, leverage, -1.0))
        shrink = jnp.where(is_allowed[row], 1.0 / (1.0 + leverage[row]), 0.0)
        return state._replace(
            cross=state.cross - shrink * jnp.outer(state.cross[row], state.cross[row]),
            is_kept=state.is_kept.at[row].set(state.is_kept[row] | is_allowed[row]),
            kept=state.kept.at[step].set(row),
        )

    nothing = _Exchange(
        rows @ rows.T / ridge,
        jnp.zeros(is_valid.shape, bool),
        jnp.zeros(num_kept, jnp.int32),
        jnp.int32(0),
        jnp.int32(0),
        jnp.float64(0),
        jnp.int32(0),
    )
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(num_kept), add, nothing)


def _find_best(state, is_valid):
    leverage = jnp.diagonal(state.cross)
    gain = (1.0 - leverage[state.kept])[:, None] * (1.0 + leverage)[None, :]
    gain += jnp.square(state.cross[state.kept])
    gain = jnp.where((is_valid & ~state.is_kept)[None, :], gain, 0.0).reshape(-1)
    pair = first_argmax(gain)
    num_rows = jnp.int32(is_valid.shape[0])
    return state._replace(position=pair // num_rows, entering=pair % num_rows, gain=gain[pair])


def _exchange_best(is_valid, state):
    """Both rows at once: through M without the leaving row, which may be singular, V loses digits.

    V + [(1 + v_jj) c_i c_i' - v_ij (c_i c_j' + c_j c_i') - (1 - v_ii) c_j c_j'] / gain.
    """
    leaving, entering = state.kept[state.position], state.entering
    out, into = state.cross[leaving], state.cross[entering]
    along_out = (1.0 + into[entering]) * out - out[entering] * into
    along_into = -out[entering] * out - (1.0 - out[leaving]) * into
    moved = jnp.outer(out, along_out / state.gain) + jnp.outer(into, along_into / state.gain)
    state = state._replace(
        cross=state.cross + moved,
        is_kept=state.is_kept.at[leaving].set(False).at[entering].set(True),
        kept=state.kept.at[state.position].set(entering),
        step=state.step + 1,
    )
    return _find_best(state, is_valid)
