"""From a set of vectors to the k of them that are kept, and the variance of any design.

Axis letters: K candidates, k kept candidates, S rows of a design, d width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Keeps log det finite before the kept rows span the space; whitened rows have moments near 1 / K.
_RIDGE = 1e-6


class DesignVariance(NamedTuple):
    """variance: [K], z_a' M^+ z_a; rank: [] int32, of the design's own rows."""

    variance: jax.Array
    rank: jax.Array


def design_variance(
    design_rows: jax.Array, weights: jax.Array, rows: jax.Array, rank_tolerance: float
) -> DesignVariance:
    """z_a' M^+ z_a for rows [K, d], with M = sum_s weights_s z_s z_s' over design_rows [S, d].

    The pseudo-inverse sees only the span of the design's rows: what a row has outside it counts as
    zero. Compare `rank` with the rank of all rows before calling the variance small.
    """
    weighted_rows = jnp.sqrt(weights)[:, None] * design_rows
    _, singular_values, directions = jnp.linalg.svd(weighted_rows, full_matrices=False)
    is_direction = (singular_values > rank_tolerance * singular_values[0]) & (singular_values > 0)
    coordinates = rows @ directions.T / jnp.where(is_direction, singular_values, 1.0)[None, :]
    variance = jnp.sum(jnp.where(is_direction[None, :], jnp.square(coordinates), 0.0), axis=1)
    return DesignVariance(variance, jnp.sum(is_direction, dtype=jnp.int32))


def exchange_subset(whitened_rows: jax.Array, is_valid: jax.Array, num_kept: int) -> jax.Array:
    """k rows of large log det sum_kept z z', equal weights: pivoted start, then Fedorov exchange.

    The start adds the row of largest leverage, k times (in exact arithmetic pivoted Gram-Schmidt,
    then D-greedy). An exchange of kept row i for row j multiplies the determinant by
    (1 - v_ii) (1 + v_jj) + v_ij^2, v = Z M^-1 Z' (Fedorov, Theory of Optimal Experiments, 1972);
    the best pair is exchanged until none gains. All candidates may enter, not only the support of
    the approximate design: with so few rows the best ones need not lie in it.

    Args:
      whitened_rows: [K, d], as `g_optimal.whiten` gives them.
      is_valid: [K] bool, rows that may be kept; at least num_kept of them.
      num_kept: k.

    Returns:
      is_kept: [K] bool.
    """

    def covariances(is_kept):
        moment = whitened_rows.T @ (is_kept[:, None] * whitened_rows)
        ridge = _RIDGE * jnp.eye(moment.shape[0], dtype=moment.dtype)
        factor = jnp.linalg.cholesky(moment + ridge)
        half = jax.scipy.linalg.solve_triangular(factor, whitened_rows.T, lower=True)
        return half.T @ half

    def add(_, is_kept):
        leverage = jnp.diagonal(covariances(is_kept))
        return is_kept.at[jnp.argmax(jnp.where(is_valid & ~is_kept, leverage, -1.0))].set(True)

    def best_pair(is_kept):
        cross = covariances(is_kept)
        leverage = jnp.diagonal(cross)
        gain = (1.0 - leverage)[:, None] * (1.0 + leverage)[None, :] + jnp.square(cross)
        is_allowed = is_kept[:, None] & (is_valid & ~is_kept)[None, :]
        gain = jnp.where(is_allowed, gain, 0.0)
        pair = jnp.unravel_index(jnp.argmax(gain), gain.shape)
        return pair, gain[pair]

    def exchange(state):
        is_kept, (leaving, entering), _, step = state
        is_kept = is_kept.at[leaving].set(False).at[entering].set(True)
        return is_kept, *best_pair(is_kept), step + 1

    num_rows = whitened_rows.shape[0]
    start = jax.lax.fori_loop(0, num_kept, add, jnp.zeros(num_rows, bool))
    # A gain below 1e-3 is worth nothing here and may be rounding, which could cycle.
    is_kept, *_ = jax.lax.while_loop(
        lambda state: (state[2] > 1.001) & (state[3] < num_kept * num_rows),
        exchange,
        (start, *best_pair(start), jnp.int32(0)),
    )
    return is_kept
