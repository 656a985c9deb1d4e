"""The G-optimal design of a finite set of vectors, with a certificate.

    min over design_weights q on the simplex of  max_a z_a' M(q)^+ z_a,   M(q) = sum_b q_b z_b z_b'

over the span of the rows. By Kiefer and Wolfowitz (1960) the same q maximises log det M(q), and the
optimal value is the rank r of the rows. So  approximation_factor = max_a prediction_variance_a / r
is 1 at the optimum, never below it, and certifies any q without knowing the optimum.

Axis letters: K candidates, d domain width.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from eagle_jax.design import design_problem
from eagle_jax.design.design_problem import GOptimalDesign, GOptimalSettings
from eagle_jax.design.float64_batches import in_float64, over_problems
from eagle_jax.design.frank_wolfe import frank_wolfe_steps
from eagle_jax.design.interior_point import newton_steps
from eagle_jax.design.multiplicative import multiplicative_steps
from eagle_jax.design.working_set import on_working_sets

METHODS = {
    # Both form a K x K matrix, so of many rows they see only some at a time.
    "interior_point": functools.partial(on_working_sets, newton_steps),
    "frank_wolfe": functools.partial(on_working_sets, frank_wolfe_steps),
    "multiplicative": multiplicative_steps,
}
_DEFAULT = GOptimalSettings()


def g_optimal_design(next_embeddings: jax.Array, settings: GOptimalSettings = _DEFAULT) -> GOptimalDesign:
    """min_q max_a z_a' M(q)^+ z_a (EAGLE, section 4.3), to settings.max_approximation_factor.

    Methods: `interior_point` (4 to 8 steps to any gap), `frank_wolfe` (hundreds to thousands of
    cheap ones), `multiplicative` (about ten to a factor of 1.05). From 512 rows on (more when wide)
    the first two work on a part of the rows at a time. Arithmetic and certificate are float64 for
    any input, and the certificate allows for the rounding of what is returned.

    Answers for degenerate input:
    - duplicates, also up to sign: the weight is on the first of them; rows of zeros: no weight;
    - dependent rows, also K < d: the design of the rows' span; independent rows: uniform, factor 1;
    - K = 1: weight 1; all rows equal: rank 1, weight on the first; all rows zero: rank 0, uniform,
      factor 1;
    - directions dropped by rank_tolerance or max_rank: the certificate is about projected rows;
    - a nan or inf anywhere: weights, variance and factor nan, rank 0, `converged` False.
    With a ridge the variance is that of M(q) + ridge I, and
    max variance <= effective dimension + (factor - 1) rank, effective dimension =
    tr((M + ridge I)^-1 M). This maximises log det, which with a ridge is near the min of the max
    but not the same.

    Args:
      next_embeddings: [..., K, d]; problems are solved, and stop, one by one.
      settings: static; one compilation per shape, dtype and settings.

    Raises:
      ValueError: the input has fewer than two axes, or an empty one; or a max_approximation_factor
        nearer to 1 than weights of the input's dtype can promise.
    """
    next_embeddings = jnp.asarray(next_embeddings)
    if next_embeddings.ndim < 2 or 0 in next_embeddings.shape:
        raise ValueError(f"next_embeddings must be a non-empty [..., K, d], got {next_embeddings.shape}")
    dtype = jnp.promote_types(next_embeddings.dtype, jnp.float32)
    # Weights rounded by half an eps change every leverage by that much, and the factor is rounded.
    rounding = 1.0 + 2.0 * float(jnp.finfo(dtype).eps)
    if not settings.max_approximation_factor > rounding:
        raise ValueError(
            f"max_approximation_factor {settings.max_approximation_factor} is nearer to 1 than"
            f" {dtype} weights can promise ({rounding}): ask for less or give float64 rows"
        )
    return _solve(next_embeddings, settings=settings, rounding=rounding)


@in_float64("settings", "rounding")
def _solve(next_embeddings, settings, rounding):
    solve = functools.partial(_solve_one, settings=settings, rounding=rounding)
    return over_problems(solve, next_embeddings)


def _solve_one(next_embeddings, settings, rounding):
    is_finite = jnp.all(jnp.isfinite(next_embeddings))
    problem = design_problem.prepare(jnp.where(is_finite, next_embeddings, 0.0), settings)
    target = settings.max_approximation_factor / rounding
    solution = METHODS[settings.method](problem, dataclasses.replace(settings, max_approximation_factor=target))
    factor = solution.evaluation.factor

    def unless_broken(value):
        return jnp.where(is_finite, value, jnp.nan)

    return GOptimalDesign(
        design_weights=unless_broken(solution.weights / jnp.sum(solution.weights)),
        prediction_variance=unless_broken(design_problem.prediction_variance(problem, solution)),
        approximation_factor=unless_broken(factor * rounding),
        rank=problem.rank,
        num_iterations=solution.step,
        converged=is_finite & (factor <= target),
        errors=solution.errors,
    )
