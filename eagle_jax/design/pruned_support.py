"""A design on fewer rows, with a bound on what that costs.

Axis letters: K candidates, d width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from eagle_jax.design.design_problem import GOptimalSettings, evaluate
from eagle_jax.design.float64_batches import in_float64, over_problems
from eagle_jax.design.kept_subset import approximation_factor, finite_problem


class PrunedDesign(NamedTuple):
    """design_weights: [..., K], sum 1, zero on the rows that were removed.

    certified_factor: [...], known from the given design alone; at most max_approximation_factor
        unless the given design is worse than that, of which nothing is removed.
    approximation_factor: [...], recomputed from the rows: at most the certified one.
    """

    design_weights: jax.Array
    certified_factor: jax.Array
    approximation_factor: jax.Array


def prune_support(
    next_embeddings: jax.Array,
    design_weights: jax.Array,
    max_approximation_factor: float,
    *,
    settings: GOptimalSettings,
) -> PrunedDesign:
    """Remove rows of small q_a l_a while the factor is certified to stay below a given one.

    Let M = M(q), l_a = z_a' M^-1 z_a, D the removed rows, s = sum_D q_a l_a < 1, and
    y_a = M^(-1/2) z_a, so that |y_a|^2 = l_a. A sum of y y' is at most its trace times I, hence
        sum_(not D) q_a z_a z_a' = M^(1/2) (I - sum_D q_a y_a y_a') M^(1/2) >= (1 - s) M,
    and with the weights renormalised by 1 / (1 - q(D)) every leverage is at most
        l_b (1 - q(D)) / (1 - s)  <=  l_b / (1 - s).
    The renormalised weights alone do not say this: s counts weight by the leverage it holds up.
    Rows are removed in the order of q_a l_a as long as factor (1 - q(D)) / (1 - s) stays below.

    Args:
      next_embeddings: [..., K, d].
      design_weights: [..., K].
      max_approximation_factor: of the pruned design.

    Raises:
      ValueError: shapes that do not fit, or a ridge (the bound is for designs of vectors).
    """
    next_embeddings = jnp.asarray(next_embeddings)
    if next_embeddings.ndim < 2 or design_weights.shape != next_embeddings.shape[:-1]:
        raise ValueError(
            "expected next_embeddings [..., K, d] and design_weights [..., K], got"
            f" {next_embeddings.shape} and {design_weights.shape}"
        )
    if settings.ridge:
        raise ValueError(
            f"the bound is for designs of vectors: settings.ridge must be 0, got {settings.ridge}"
        )
    return _prune_support(
        next_embeddings, design_weights, max_approximation_factor, settings=settings
    )


@in_float64("settings")
def _prune_support(rows, design_weights, max_approximation_factor, settings):
    def one(rows, weights):
        problem, is_finite = finite_problem(rows, settings)
        weights = weights / jnp.sum(weights)
        factor = approximation_factor(problem, weights, settings)
        held = weights * evaluate(problem, weights).variance
        negative_held, order = jax.lax.top_k(-held, held.shape[0])
        removed_held = jnp.cumsum(-negative_held)
        bounds = factor * (1.0 - jnp.cumsum(weights[order])) / (1.0 - removed_held)
        is_allowed = (
            (removed_held < 1.0) & (bounds <= max_approximation_factor) & (problem.rank > 0)
        )
        index = jnp.arange(held.shape[0], dtype=jnp.int32)
        num_removed = jnp.min(jnp.where(is_allowed, held.shape[0], index))
        certified = jnp.where(num_removed > 0, bounds[jnp.maximum(num_removed - 1, 0)], factor)
        pruned = weights * jnp.zeros_like(weights).at[order].set(index >= num_removed)
        pruned = pruned / jnp.sum(pruned)
        recomputed = approximation_factor(problem, pruned, settings)
        return PrunedDesign(
            *(jnp.where(is_finite, value, jnp.nan) for value in (pruned, certified, recomputed))
        )

    return over_problems(one, rows, design_weights.astype(jnp.float64))
