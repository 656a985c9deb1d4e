"""From a design to the k rows that are kept, each subset with the factor that it reaches.

Rows and factors are on the solver's footing: float64, prepared by `design_problem.prepare`. Every
function takes one problem or a batch, is compiled once per shape and settings, and draws nothing at
random. Factors come back in the rows' dtype; a problem with a nan or inf has factor nan and counts
0.

Axis letters: K candidates, k kept candidates, d width, p = min(K, d) coordinates.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from eagle_jax.design import fedorov_exchange
from eagle_jax.design.design_problem import DesignProblem, GOptimalSettings, evaluate, prepare
from eagle_jax.design.float64_batches import in_float64, over_problems


class KeptSubset(NamedTuple):
    """counts: [..., K] int32, 1 where a row is taken, sum k.

    approximation_factor: [...], of equal weights, counts / sum: max_a z_a' M^-1 z_a / rank over all
        rows; inf when a direction is missed, so always for k < rank.
    """

    counts: jax.Array
    approximation_factor: jax.Array


def top_k_subset(
    next_embeddings: jax.Array, design_weights: jax.Array, num_kept: int, *, settings: GOptimalSettings
) -> KeptSubset:
    """The k rows of next_embeddings [..., K, d] of largest weight [..., K], of equal ones the first.

    Where most of K rows carry weight this covers badly: see `exchange_subset`. Raises ValueError for
    shapes that do not fit, or num_kept not in 1..K.
    """
    next_embeddings = _checked(next_embeddings, num_kept)
    if design_weights.shape != next_embeddings.shape[:-1]:
        raise ValueError(
            f"weights must be {next_embeddings.shape[:-1]}, as next_embeddings {next_embeddings.shape} are, "
            f"got {design_weights.shape}"
        )
    return _top_k_subset(next_embeddings, design_weights, num_kept=num_kept, settings=settings)


def exchange_subset(
    next_embeddings: jax.Array, num_kept: int, *, settings: GOptimalSettings, is_valid: jax.Array | None = None
) -> KeptSubset:
    """k rows of large log det sum_kept z z': pivoted start, then Fedorov exchange.

    The start adds the row of largest leverage, k times (in exact arithmetic pivoted Gram-Schmidt,
    then D-greedy). An exchange of kept row i for row j multiplies the determinant by
    (1 - v_ii) (1 + v_jj) + v_ij^2, v = Z M^-1 Z' (Fedorov, Theory of Optimal Experiments, 1972);
    the best pair is exchanged until none gains a thousandth. All rows may enter, not only the
    support of the approximate design: with so few rows the best ones need not lie in it. A row is
    taken once; duplicates are rows.

    Args:
      next_embeddings: [..., K, d].
      is_valid: [..., K] bool; any other row may hold anything and is neither kept nor to be
        covered. Fewer than k valid rows: all of them.

    Raises:
      ValueError: shapes that do not fit, or num_kept not in 1..K.
    """
    next_embeddings = _checked(next_embeddings, num_kept)
    is_valid = jnp.broadcast_to(True if is_valid is None else is_valid, next_embeddings.shape[:-1])
    return _exchange_subset(next_embeddings, is_valid, num_kept=num_kept, settings=settings)


def finite_problem(rows: jax.Array, settings: GOptimalSettings) -> tuple[DesignProblem, jax.Array]:
    """Rows [K, d] as a problem, and whether they are finite; of zeros where they are not."""
    is_finite = jnp.all(jnp.isfinite(rows))
    return prepare(jnp.where(is_finite, rows, 0.0), settings), is_finite


def approximation_factor(problem: DesignProblem, weights: jax.Array, settings: GOptimalSettings) -> jax.Array:
    """[], max_a z_a' M(q)^-1 z_a / rank of any q = weights / sum, weights [K], in float64.

    inf when M(q) misses a direction of the rows: its smallest singular value on whitened rows is at
    most rank_tolerance of the largest. With a ridge nothing is missed.
    """
    evaluation = evaluate(problem, weights)
    if settings.ridge:
        return evaluation.factor
    moment = problem.rows.T @ (weights[:, None] * problem.rows)
    # Whitened rows have Z'Z >= I, so the leverages sum to tr(M^-1) or more. 1e-6: a Cholesky factor
    # of a matrix that is as good as singular may look better than it is.
    tolerance = max(settings.rank_tolerance, 1e-6)
    inverse_ratio = jnp.sum(evaluation.variance) * jnp.trace(moment) / jnp.sum(weights)
    is_proven = inverse_ratio < tolerance**-2

    def rank_by_eigenvalues():
        eigenvalues = jnp.linalg.eigvalsh(moment, symmetrize_input=False)
        return jnp.sum(eigenvalues > settings.rank_tolerance**2 * eigenvalues[-1], dtype=jnp.int32)

    rank = jax.lax.cond(is_proven, lambda: problem.rank, rank_by_eigenvalues)
    return jnp.where(rank < problem.rank, jnp.inf, evaluation.factor)


def kept_subset(
    problem: DesignProblem, is_finite: jax.Array, counts: jax.Array, settings: GOptimalSettings
) -> KeptSubset:
    """Counts [K] int32 with their factor."""
    factor = approximation_factor(problem, counts.astype(jnp.float64), settings)
    return KeptSubset(jnp.where(is_finite, counts, 0), jnp.where(is_finite, factor, jnp.nan))


def _checked(next_embeddings, num_kept):
    next_embeddings = jnp.asarray(next_embeddings)
    if next_embeddings.ndim < 2 or 0 in next_embeddings.shape:
        raise ValueError(f"next_embeddings must be a non-empty [..., K, d], got {next_embeddings.shape}")
    if not 1 <= num_kept <= next_embeddings.shape[-2]:
        raise ValueError(f"num_kept must lie in 1..K = {next_embeddings.shape[-2]}, got {num_kept}")
    return next_embeddings


@in_float64("num_kept", "settings")
def _top_k_subset(rows, design_weights, num_kept, settings):
    def one(rows, weights):
        _, largest = jax.lax.top_k(weights, num_kept)
        counts = jnp.zeros(weights.shape, jnp.int32).at[largest].set(1)
        return kept_subset(*finite_problem(rows, settings), counts, settings)

    return over_problems(one, rows, design_weights.astype(jnp.float64))


@in_float64("num_kept", "settings")
def _exchange_subset(rows, is_valid, num_kept, settings):
    def one(rows, is_valid):
        problem, is_finite = finite_problem(jnp.where(is_valid[:, None], rows, 0.0), settings)
        is_kept = fedorov_exchange.exchange(problem, is_valid, num_kept, settings)
        return kept_subset(problem, is_finite, is_kept.astype(jnp.int32), settings)

    return over_problems(one, rows, is_valid)
