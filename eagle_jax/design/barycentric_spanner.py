"""A basis among the rows in which no row has a large coordinate.

Axis letters: K candidates, d width, p = min(K, d) coordinates.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from eagle_jax.design.design_problem import GOptimalSettings
from eagle_jax.design.float64_batches import first_argmax, in_float64, over_problems
from eagle_jax.design.kept_subset import KeptSubset, finite_problem, kept_subset


class _Basis(NamedTuple):
    coefficients: jax.Array  # [K, p], of every row in the basis
    members: jax.Array  # [p] int32, the rows that form it


def barycentric_spanner(
    next_embeddings: jax.Array, *, settings: GOptimalSettings, coefficient_bound: float = 2.0
) -> KeptSubset:
    """rank rows such that every row is sum_i x_i b_i of them with |x_i| <= C, the bound.

    Awerbuch and Kleinberg (2004): from the unit vectors, replace each by the row that makes |det|
    largest; then swap while some |x_i| > C, which multiplies |det| by that |x_i|. With equal
    weights z' M^-1 z = rank * sum_i x_i^2, so the factor is at most C^2 rank.

    Args:
      next_embeddings: [..., K, d]; "every row" is its part on the directions that are kept.
      coefficient_bound: C > 1, at which the search is known to end; the closer to 1, the longer.

    Raises:
      ValueError: an empty input, C not above 1, or a ridge (it keeps directions without any row).
    """
    next_embeddings = jnp.asarray(next_embeddings)
    if next_embeddings.ndim < 2 or 0 in next_embeddings.shape:
        raise ValueError(
            f"next_embeddings must be a non-empty [..., K, d], got {next_embeddings.shape}"
        )
    if not coefficient_bound > 1.0:
        raise ValueError(f"coefficient_bound must be above 1, got {coefficient_bound}")
    if settings.ridge:
        raise ValueError(f"a spanner is of the rows alone: settings.ridge must be 0, got"
                         f" {settings.ridge}")
    return _barycentric_spanner(next_embeddings, coefficient_bound, settings=settings)


@in_float64("settings")
def _barycentric_spanner(rows, coefficient_bound, settings):
    def one(rows):
        problem, is_finite = finite_problem(rows, settings)
        num_rows, width = problem.rows.shape

        def replace(position, basis):
            row = first_argmax(jnp.abs(basis.coefficients[:, position]))
            swapped = _swap(basis, row, position)
            is_direction = problem.is_direction[position]
            return jax.tree.map(
                lambda new, old: jnp.where(is_direction, new, old), swapped, basis
            )

        def largest(basis):
            return jnp.max(jnp.abs(basis.coefficients))

        def improve(basis):
            pair = first_argmax(jnp.abs(basis.coefficients).reshape(-1))
            return _swap(basis, pair // jnp.int32(width), pair % jnp.int32(width))

        basis = _Basis(problem.rows, jnp.zeros(width, jnp.int32))
        basis = jax.lax.fori_loop(jnp.int32(0), jnp.int32(width), replace, basis)
        basis = jax.lax.while_loop(
            lambda basis: largest(basis) > coefficient_bound, improve, basis
        )
        is_member = problem.is_direction.astype(jnp.int32)
        counts = jnp.zeros(num_rows, jnp.int32).at[basis.members].add(is_member)
        return kept_subset(problem, is_finite, counts, settings)

    return over_problems(one, rows)


def _swap(basis, row, position):
    """The basis with `row` in place of its member at `position`."""
    coordinates = basis.coefficients[row]
    change = coordinates.at[position].add(-1.0) / coordinates[position]
    return _Basis(
        basis.coefficients - jnp.outer(basis.coefficients[:, position], change),
        basis.members.at[position].set(row),
    )
