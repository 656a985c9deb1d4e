"""A design problem as every method sees it: settings, prepared rows, certificate, result.

Leverages do not change under an invertible change of basis, so the methods work on rows in
coordinates in which the uniform design is round.

Axis letters: K candidates, d domain width, p = min(K, d, max_rank) coordinates, R = K + p rows with
ridge, else R = K.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from eagle_jax.base.settings import setting, settings

# A Gram matrix in float64 resolves singular values down to about 1e-8 of the largest.
SMALLEST_RANK_TOLERANCE = 1e-7


@settings
class GOptimalSettings:
    """How to solve, when to stop, and what counts as a direction."""

    method: Literal["interior_point", "frank_wolfe", "multiplicative"] = setting(
        "The solver.", default="interior_point"
    )
    max_approximation_factor: float = setting(
        "Stop as soon as the certificate is at most this; 1 is the optimum.", above=1, default=1.0001
    )
    max_iterations: int = setting(
        "Then `converged` is False. interior_point takes about 5, frank_wolfe thousands.", at_least=1, default=50
    )
    rank_tolerance: float = setting(
        "Directions with a singular value of at most this fraction of the largest are projected "
        "out; with a ridge none is.",
        at_least=SMALLEST_RANK_TOLERANCE,
        below=1,
        default=1e-6,
    )
    max_rank: int | None = setting(
        "So many leading directions at most; None: all that pass rank_tolerance.", at_least=1, default=None
    )
    ridge: float = setting(
        "Added to the diagonal of the information matrix.", at_least=0, default=0.0, unit="squared rows"
    )

    def __post_init__(self):
        if self.ridge and self.method == "frank_wolfe":
            raise ValueError(
                "frank_wolfe moves by rank-one updates, which a ridge does not allow: use"
                " interior_point or multiplicative"
            )


class GOptimalDesign(NamedTuple):
    """A design and its certificate; every field has the input's leading axes.

    design_weights: [K], sums to 1.
    prediction_variance: [K], z_a' M(q)^-1 z_a on the kept directions; M(q) + ridge with a ridge.
    approximation_factor: [], max prediction_variance / rank, in float64, rounded up. With a ridge
        1 + (max prediction_variance - effective dimension) / rank.
    rank: [] int32.
    num_iterations: [] int32.
    converged: [] bool, approximation_factor <= max_approximation_factor.
    errors: [max_iterations], approximation_factor - 1 after every step (of very many rows: of the
        steps after which all rows were looked at), nan elsewhere and after the last one.
    """

    design_weights: jax.Array
    prediction_variance: jax.Array
    approximation_factor: jax.Array
    rank: jax.Array
    num_iterations: jax.Array
    converged: jax.Array
    errors: jax.Array


class DesignProblem(NamedTuple):
    """Rows ready for a method.

    rows: [K, p], zero in the directions that were projected out.
    ridge_rows: [p, p] or [0, p], sqrt(ridge) times the unit vectors.
    is_direction: [p] bool, the `rank` directions that were kept.
    rank: [] int32.
    is_support: [K] bool, rows a design may put weight on: not zero, first of their duplicates;
        all rows where every row is zero.
    """

    rows: jax.Array
    ridge_rows: jax.Array
    is_direction: jax.Array
    rank: jax.Array
    is_support: jax.Array


class DesignEvaluation(NamedTuple):
    """What a design of weights u >= 0, not necessarily of sum 1, is worth.

    half_rows: [R, p], Y with Y Y' = A M(u)^-1 A', A the rows and below them the ridge rows.
    variance: [K], of u / sum(u), the ridge rows' part included: bounded by `rank` at the optimum.
    factor: [], max variance / rank; 1 for rank 0, where every design is optimal.
    """

    half_rows: jax.Array
    variance: jax.Array
    factor: jax.Array


class Solution(NamedTuple):
    """Where a method stands: weights u [K], their evaluation, step [] int32, errors [steps]."""

    weights: jax.Array
    evaluation: DesignEvaluation
    step: jax.Array
    errors: jax.Array

    def goes_on(self, factor: float) -> jax.Array:
        """[] bool: a step is left, and the certificate is not broken (nan) and not good enough."""
        return (self.step < len(self.errors)) & (self.evaluation.factor > factor)

    def moved(self, weights: jax.Array, evaluation: DesignEvaluation, num_steps: jax.Array | int = 1) -> "Solution":
        """After so many steps to other weights; the error is that of the last of them."""
        step = self.step + num_steps
        place = jnp.minimum(step, len(self.errors)) - 1
        errors = self.errors.at[place].set(evaluation.factor - 1.0)
        return Solution(weights, evaluation, step, errors)


def first_duplicate(rows: jax.Array) -> jax.Array:
    """[K] int32: the first of rows [K, d] that equals this one or its negative (same z z')."""
    num_rows, width = rows.shape
    index = jnp.arange(num_rows, dtype=jnp.int32)
    # Equal rows have equal sums under fixed odd weights, opposite rows opposite ones; so only one
    # partner per row has to be compared in full.
    odd_weights = jnp.cos(1.0 + jnp.arange(width, dtype=rows.dtype))
    signature = jnp.abs(jnp.sum(rows * odd_weights[None, :], axis=1))
    is_same_signature = signature[:, None] == signature[None, :]
    partner = jnp.min(jnp.where(is_same_signature, index[None, :], num_rows - 1), axis=1)
    partner_rows = rows[partner]
    is_equal = jnp.all(rows == partner_rows, axis=1) | jnp.all(rows == -partner_rows, axis=1)
    return jnp.where(is_equal, partner, index)


def prepare(rows: jax.Array, settings: GOptimalSettings) -> DesignProblem:
    """Finite rows [K, d], float64 -> coordinates on their leading directions, whitened.

    Whitened means that the uniform design over the support has information matrix I / its size. A
    Gram matrix that is provably of full rank under the tolerance is whitened by its Cholesky
    factor; any other by its eigenvectors, which cost five times as much.
    Columns are brought to about one size before rank_tolerance is asked, so that their units decide
    nothing (but with max_rank or a ridge, whose directions depend on the units).
    """
    num_rows, width = rows.shape
    # A common scale changes nothing and keeps squares of very large or small entries finite.
    scale = jnp.max(jnp.abs(rows))
    scale = jnp.where(scale > 0, scale, 1.0)
    rows = rows / scale
    duplicate_of = first_duplicate(rows)
    is_first = duplicate_of == jnp.arange(num_rows, dtype=jnp.int32)
    distinct = jnp.where(is_first[:, None], rows, 0.0)
    is_support = is_first & jnp.any(rows != 0, axis=1)
    if settings.max_rank is None and not settings.ridge:
        distinct, rows = (_with_columns_alike(array, rows) for array in (distinct, rows))
    is_wide = width > num_rows
    gram = distinct @ distinct.T if is_wide else distinct.T @ distinct
    num_coordinates = min(settings.max_rank or len(gram), len(gram))

    def spectral_coordinates():
        isometric, scaling, is_direction = _spectral_coordinates(rows, gram, num_coordinates, settings)
        if is_wide:  # the Gram matrix knows distinct rows only
            isometric = isometric[duplicate_of]
        return jnp.where(is_direction[None, :], isometric * scaling[None, :], 0.0), is_direction

    if num_coordinates < len(gram) or (settings.ridge and is_wide):
        coordinates, is_direction = spectral_coordinates()
    elif settings.ridge:
        coordinates, is_direction = rows, jnp.full(num_coordinates, True)
    else:
        half_inverse, is_full_rank = _cholesky_whitening(gram, settings.rank_tolerance)

        def cholesky_coordinates():
            # A wide full row rank means independent rows: whitened they are the unit vectors.
            whitened = jnp.eye(num_rows) if is_wide else rows @ half_inverse.T
            return whitened, jnp.full(num_coordinates, True)

        coordinates, is_direction = jax.lax.cond(is_full_rank, cholesky_coordinates, spectral_coordinates)
    ridge_rows = jnp.sqrt(settings.ridge) / scale * jnp.eye(num_coordinates)
    return DesignProblem(
        rows=coordinates,
        ridge_rows=ridge_rows if settings.ridge else ridge_rows[:0],
        is_direction=is_direction,
        rank=jnp.sum(is_direction, dtype=jnp.int32),
        is_support=jnp.where(jnp.any(is_support), is_support, True),
    )


def _with_columns_alike(array, rows):
    """Columns [K, d] over the power of two nearest to the largest entry in those of rows: exact."""
    largest = jnp.max(jnp.abs(rows), axis=0) * jnp.sqrt(2.0)  # nearest: the one below the product
    exponent_bits = jax.lax.bitcast_convert_type(largest, jnp.int64) & (0x7FF << 52)
    power = jax.lax.bitcast_convert_type(exponent_bits, largest.dtype)
    return array / jnp.where(power > 0, power, 1.0)[None, :]


def _cholesky_whitening(gram, rank_tolerance):
    """L^-1 of gram = L L', and whether smallest / largest singular value > tolerance is proven.

    In Frobenius norms 1 / (|L| |L^-1|) is below that ratio; not > is also true for nan.
    """
    factor = jax.lax.linalg.cholesky(gram, symmetrize_input=False)
    half_inverse = jax.lax.linalg.triangular_solve(factor, jnp.eye(gram.shape[0]), left_side=True, lower=True)
    ratio_bound = 1.0 / jnp.sqrt(jnp.trace(gram) * jnp.sum(jnp.square(half_inverse)))
    # 1e-6: beyond it the factor of a Gram matrix has too few digits left to whiten with.
    return half_inverse, ratio_bound > max(rank_tolerance, 1e-6)


def _spectral_coordinates(rows, gram, num_coordinates, settings):
    """Isometric coordinates on the leading singular directions, what whitens them, the kept."""
    eigenvalues, eigenvectors = jnp.linalg.eigh(gram, symmetrize_input=False)
    singular_values = jnp.sqrt(jnp.maximum(eigenvalues, 0.0))[-num_coordinates:]
    eigenvectors = eigenvectors[:, -num_coordinates:]
    is_wide = rows.shape[1] > rows.shape[0]
    isometric = eigenvectors * singular_values[None, :] if is_wide else rows @ eigenvectors
    if settings.ridge:
        return isometric, jnp.ones(num_coordinates), jnp.full(num_coordinates, True)
    is_direction = singular_values > settings.rank_tolerance * singular_values[-1]
    return isometric, 1.0 / jnp.where(is_direction, singular_values, 1.0), is_direction


def start_weights(problem: DesignProblem) -> jax.Array:
    """[K], sum 1: leverage scores of the support, the first multiplicative step from uniform.

    Free: whitened rows are the uniform design's half rows. With a ridge just a positive start.
    """
    scores = jnp.where(problem.is_support, jnp.sum(jnp.square(problem.rows), axis=1), 0.0)
    scores = jnp.where(problem.rank > 0, scores, problem.is_support)
    return scores / jnp.sum(scores)


def start(problem: DesignProblem, weights: jax.Array, settings: GOptimalSettings) -> Solution:
    """Weights [K] > 0 on a spanning set of rows, before the first step."""
    errors = jnp.full(settings.max_iterations, jnp.nan)
    return Solution(weights, evaluate(problem, weights), jnp.int32(0), errors)


def evaluate(problem: DesignProblem, weights: jax.Array) -> DesignEvaluation:
    """The certificate of weights u [K] >= 0, from the rows, in their dtype.

    M(u) = sum_a u_a z_a z_a' + sum(u) ridge I, so that a common factor of u cancels.
    """
    total = jnp.sum(weights)
    half_rows = _half_rows(problem, weights, total)
    leverage = jnp.sum(jnp.square(half_rows), axis=1)
    num_rows = weights.shape[0]
    variance = (leverage[:num_rows] + jnp.sum(leverage[num_rows:])) * total
    rank = jnp.maximum(problem.rank, 1)
    return DesignEvaluation(half_rows, variance, jnp.where(problem.rank > 0, jnp.max(variance) / rank, 1.0))


def prediction_variance(problem: DesignProblem, solution: Solution) -> jax.Array:
    """[K], z_a' (M(q) + ridge)^-1 z_a of q = weights / sum, without the ridge rows' part."""
    half_rows = solution.evaluation.half_rows[: problem.rows.shape[0]]
    return jnp.sum(jnp.square(half_rows), axis=1) * jnp.sum(solution.weights)


def _half_rows(problem, weights, total):
    information_matrix = problem.rows.T @ (weights[:, None] * problem.rows)
    if problem.ridge_rows.shape[0]:
        information_matrix += total * (problem.ridge_rows.T @ problem.ridge_rows)
    # The identity on dropped directions, where all rows are zero, only keeps the factor finite.
    information_matrix += jnp.diag((~problem.is_direction).astype(weights.dtype))
    factor = jax.lax.linalg.cholesky(information_matrix, symmetrize_input=False)
    return jax.lax.linalg.triangular_solve(
        factor, jnp.concatenate([problem.rows, problem.ridge_rows]), left_side=False, lower=True, transpose_a=True
    )
