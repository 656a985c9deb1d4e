"""The G-optimal design of a finite set of vectors, by Frank-Wolfe, with a certificate.

    min over design_weights q on the simplex of  max_a z_a' M(q)^-1 z_a,   M(q) = sum_b q_b z_b z_b'

By Kiefer and Wolfowitz (1960) the same q maximises log det M(q), and the optimal value is the rank
r of the rows. So  approximation_factor = max_a prediction_variance_a / r  is 1 at the optimum,
never below it, and certifies any q without knowing the optimum.

Axis letters: B batch, K candidates, d domain width, p = min(K, d).
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg

# Rank-one updates drift; the inverse is formed afresh at least this often.
_STEPS_BETWEEN_REFRESHES = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class GOptimalSettings:
    """When to stop, and what counts as a direction.

    max_approximation_factor: stop as soon as max prediction_variance / rank is at most this (> 1).
    max_iterations: Frank-Wolfe steps at most; running out of them gives `converged` False.
    rank_tolerance: directions with a singular value of at most this fraction of the largest are
        projected out; the certificate then holds for the projected rows.
    """

    max_approximation_factor: float
    max_iterations: int
    rank_tolerance: float

    def __post_init__(self):
        if not self.max_approximation_factor > 1.0:
            raise ValueError(
                f"max_approximation_factor must be above 1 (the optimum), got"
                f" {self.max_approximation_factor}"
            )
        if self.max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, got {self.max_iterations}")
        if not 0.0 < self.rank_tolerance < 1.0:
            raise ValueError(f"rank_tolerance must lie in (0, 1), got {self.rank_tolerance}")


class GOptimalDesign(NamedTuple):
    """A design and its certificate; every field has a leading [B] when the input had one.

    design_weights: [K], sums to 1.
    prediction_variance: [K], z_a' M(q)^-1 z_a on the leading `rank` directions.
    approximation_factor: [], max prediction_variance / rank, recomputed from the rows.
    rank: [] int32.
    num_iterations: [] int32.
    converged: [] bool, approximation_factor <= max_approximation_factor.
    errors: [max_iterations], approximation_factor - 1 after every step, nan after the last one.
    """

    design_weights: jax.Array
    prediction_variance: jax.Array
    approximation_factor: jax.Array
    rank: jax.Array
    num_iterations: jax.Array
    converged: jax.Array
    errors: jax.Array


class WhitenedRows(NamedTuple):
    """The rows in coordinates in which the uniform design over all rows is round.

    Leverages do not change under an invertible change of basis, so a design of these rows is one
    of the given rows.

    rows: [K, p], zero in the directions that were projected out.
    is_direction: [p] bool, the `rank` directions that were kept.
    rank: [] int32.
    is_support: [K] bool, rows a design may put weight on: non-zero, first of its duplicates.
    """

    rows: jax.Array
    is_direction: jax.Array
    rank: jax.Array
    is_support: jax.Array


def whiten(rows: jax.Array, rank_tolerance: float) -> WhitenedRows:
    """Project rows [K, d] on their leading singular directions (uncentred) and whiten them."""
    # A common scale changes nothing and keeps squares of very large or small entries finite.
    scale = jnp.max(jnp.abs(rows))
    scaled_rows = rows / jnp.where(scale > 0, scale, 1.0)
    _, singular_values, directions = jnp.linalg.svd(scaled_rows, full_matrices=False)
    is_direction = singular_values > rank_tolerance * singular_values[0]
    # From the rows, not from the left singular vectors: those carry their own rounding.
    projected = scaled_rows @ directions.T
    whitened = jnp.where(
        is_direction[None, :],
        projected / jnp.where(is_direction, singular_values, 1.0)[None, :],
        0.0,
    )
    is_same = jnp.all(rows[:, None, :] == rows[None, :, :], axis=-1)
    is_first = jnp.argmax(is_same, axis=1) == jnp.arange(rows.shape[0])
    return WhitenedRows(
        rows=whitened,
        is_direction=is_direction,
        rank=jnp.sum(is_direction, dtype=jnp.int32),
        is_support=is_first & jnp.any(whitened != 0, axis=1),
    )


class _State(NamedTuple):
    design_weights: jax.Array  # [K]
    inverse: jax.Array  # [p, p], of the information matrix, identity on dropped directions
    variance: jax.Array  # [K]
    step: jax.Array  # []
    errors: jax.Array  # [max_iterations]


def _refresh(problem: WhitenedRows, design_weights: jax.Array):
    """Weights that sum to one, the inverse information matrix and the leverages, by Cholesky."""
    design_weights = design_weights / jnp.sum(design_weights)
    information_matrix = problem.rows.T @ (design_weights[:, None] * problem.rows)
    information_matrix += jnp.diag((~problem.is_direction).astype(information_matrix.dtype))
    factor = jnp.linalg.cholesky(information_matrix)
    half_inverse = linalg.solve_triangular(
        factor, jnp.eye(factor.shape[0], dtype=factor.dtype), lower=True
    )
    variance = jnp.sum(jnp.square(problem.rows @ half_inverse.T), axis=1)
    return design_weights, half_inverse.T @ half_inverse, variance


def _line_search(problem: WhitenedRows, state: _State):
    """The row to move towards or away from, the best step, and whether it empties the row.

    Moving q to (1 - step) q + step e_a changes log det M by
    r log(1 - step) + log(1 + step / (1 - step) g), largest at step = (g - r) / (r (g - 1)), where g
    is the leverage of row a: positive towards g > r, negative (away) from 1 < g < r.
    """
    rank = problem.rank.astype(state.variance.dtype)
    towards = jnp.argmax(jnp.where(problem.is_support, state.variance, -jnp.inf))
    away = jnp.argmin(jnp.where(state.design_weights > 0, state.variance, jnp.inf))
    is_away = rank - state.variance[away] > state.variance[towards] - rank
    row = jnp.where(is_away, away, towards)
    leverage = state.variance[row]
    is_interior = leverage > 1.0
    step = (leverage - rank) / (rank * jnp.where(is_interior, leverage - 1.0, 1.0))
    # With rank 1 the best step is 1, where the rank-one update would divide by zero.
    step = jnp.minimum(step, 0.999)
    weight = state.design_weights[row]
    drop_step = -weight / (1.0 - jnp.minimum(weight, 0.999))
    # At a leverage of 1 or less log det grows all the way until the row is empty.
    is_drop = is_away & (~is_interior | (step <= drop_step))
    return row, jnp.where(is_drop, drop_step, step), is_drop


def _frank_wolfe_step(problem: WhitenedRows, settings: GOptimalSettings, state: _State) -> _State:
    row, step, is_drop = _line_search(problem, state)
    moved = (state.design_weights * (1.0 - step)).at[row].add(step)
    weights = moved.at[row].set(jnp.where(is_drop, 0.0, jnp.maximum(moved[row], 0.0)))

    # Sherman-Morrison on (1 - step) (M + odds z z'), odds = step / (1 - step).
    odds = step / (1.0 - step)
    direction = state.inverse @ problem.rows[row]
    shrink = odds / (1.0 + odds * state.variance[row])
    inverse = (1.0 + odds) * (state.inverse - shrink * jnp.outer(direction, direction))
    variance = (1.0 + odds) * (state.variance - shrink * jnp.square(problem.rows @ direction))

    # No stop is believed before the leverages are recomputed (not > is also true for nan).
    is_stale = (
        ~(_factor(problem, variance) > settings.max_approximation_factor)
        | ((state.step + 1) % _STEPS_BETWEEN_REFRESHES == 0)
        | (state.step + 1 == settings.max_iterations)
    )
    weights, inverse, variance = jax.lax.cond(
        is_stale,
        lambda: _refresh(problem, weights),
        lambda: (weights, inverse, variance),
    )
    errors = state.errors.at[state.step].set(_factor(problem, variance) - 1.0)
    return _State(weights, inverse, variance, state.step + 1, errors)


def _factor(problem: WhitenedRows, variance: jax.Array) -> jax.Array:
    """max leverage / rank; 1 for rank 0, where every design is optimal."""
    rank = jnp.maximum(problem.rank, 1).astype(variance.dtype)
    return jnp.where(problem.rank > 0, jnp.max(variance) / rank, 1.0)


def _solve_one(next_embeddings: jax.Array, settings: GOptimalSettings) -> GOptimalDesign:
    num_candidates = next_embeddings.shape[0]
    is_finite = jnp.all(jnp.isfinite(next_embeddings))
    problem = whiten(jnp.where(is_finite, next_embeddings, 0.0), settings.rank_tolerance)

    has_support = jnp.any(problem.is_support)
    start = jnp.where(has_support, problem.is_support, True).astype(next_embeddings.dtype)
    state = _State(
        *_refresh(problem, start),
        step=jnp.int32(0),
        errors=jnp.full(settings.max_iterations, jnp.nan, next_embeddings.dtype),
    )
    state = jax.lax.while_loop(
        lambda state: (state.step < settings.max_iterations)
        & (_factor(problem, state.variance) > settings.max_approximation_factor),
        functools.partial(_frank_wolfe_step, problem, settings),
        state,
    )
    nan = jnp.full(num_candidates, jnp.nan, next_embeddings.dtype)
    factor = jnp.where(is_finite, _factor(problem, state.variance), jnp.nan)
    return GOptimalDesign(
        design_weights=jnp.where(is_finite, state.design_weights, nan),
        prediction_variance=jnp.where(is_finite, state.variance, nan),
        approximation_factor=factor,
        rank=problem.rank,
        num_iterations=state.step,
        converged=factor <= settings.max_approximation_factor,
        errors=state.errors,
    )


# Accelerators multiply float32 in fewer bits by default; a certificate must not.
@functools.partial(jax.jit, static_argnames="settings")
@jax.default_matmul_precision("highest")
def g_optimal_design(next_embeddings: jax.Array, settings: GOptimalSettings) -> GOptimalDesign:
    """min_q max_a z_a' M(q)^-1 z_a by Frank-Wolfe with exact line search and away steps.

    Wolfe (1970), Atwood (1973); as in Todd, Minimum-Volume Ellipsoids (2016), chapter 3. Starts
    uniform over the distinct non-zero rows. Stops at max_approximation_factor, believed only after
    a fresh factorisation of the information matrix.

    Answers for degenerate input: duplicates: the weight is on the first of them. Rows of zeros: no
    weight. K < d or dependent rows: the design of the rows' span (K independent rows: uniform,
    factor 1). K = 1: weight 1. All rows zero: rank 0, uniform, factor 1. A nan or inf
    anywhere: weights, variance and factor nan, rank 0, `converged` False.

    Args:
      next_embeddings: [K, d] or [B, K, d]; a batch is solved problem by problem.
      settings: static; one compilation per shape and settings.

    Raises:
      ValueError: the input has neither two nor three axes, or an empty one.
    """
    if next_embeddings.ndim not in (2, 3) or 0 in next_embeddings.shape:
        raise ValueError(
            f"next_embeddings must be a non-empty [K, d] or [B, K, d], got {next_embeddings.shape}"
        )
    next_embeddings = next_embeddings.astype(
        jnp.promote_types(next_embeddings.dtype, jnp.float32)
    )
    if next_embeddings.ndim == 2:
        return _solve_one(next_embeddings, settings)
    return jax.lax.map(lambda rows: _solve_one(rows, settings), next_embeddings)
