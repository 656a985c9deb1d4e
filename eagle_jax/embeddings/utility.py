"""The content-gap utility of a domain embedding.

Axis letters: `B` batch, `N` catalogue, `d` domain width.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class UtilityTerms(NamedTuple):
    """U and its terms [B]; report them all, their scales are not comparable by themselves."""

    utility: jax.Array
    user_term: jax.Array
    creator_term: jax.Array
    neighbor_distance_term: jax.Array  # before neighbor_weight


@partial(jax.jit, static_argnames=("num_neighbors",))
def content_gap_utility(
    domain_embeddings: jax.Array,
    user_embeddings: jax.Array,
    catalogue_embeddings: jax.Array,
    *,
    neighbor_weight: float,
    num_neighbors: int,
    creator_term: jax.Array | None = None,
) -> UtilityTerms:
    """U(z) = <z_u, z> + creator_term + neighbor_weight * sum over the nearest of D ||z - z_m||_2.

    Tennenholtz et al. 2024, section 3; the paper has 3 neighbours and no creator term, which is 0
    unless given as [B]. `catalogue_embeddings` [N, d] is all of D, so at an existing entity's own
    embedding the nearest distance is 0. Distances come from differences, not from expanded squares:
    a small distance would drown in rounding. Raises ValueError if D has fewer than `num_neighbors`.
    """
    chex.assert_rank([domain_embeddings, user_embeddings, catalogue_embeddings], 2)
    chex.assert_equal_shape([domain_embeddings, user_embeddings])
    if not 1 <= num_neighbors <= catalogue_embeddings.shape[0]:
        raise ValueError(
            f"num_neighbors is {num_neighbors}; it must be from 1 to the "
            f"{catalogue_embeddings.shape[0]} entities of the catalogue"
        )

    def nearest_distances(domain_embedding: jax.Array) -> jax.Array:
        squared = jnp.sum((catalogue_embeddings - domain_embedding[None]) ** 2, axis=1)
        nearest = -jax.lax.top_k(-squared, num_neighbors)[0]
        # sqrt has no derivative at 0: there the gradient is set to 0 instead of NaN.
        return jnp.sum(jnp.where(nearest > 0, jnp.sqrt(jnp.where(nearest > 0, nearest, 1)), 0))

    # A few rows at a time: [B, N, d] at once would be large.
    neighbor_distance_term = jax.lax.map(nearest_distances, domain_embeddings, batch_size=8)
    user_term = jnp.einsum(
        "bd,bd->b", domain_embeddings, user_embeddings, precision=jax.lax.Precision.HIGHEST
    )
    if creator_term is None:
        creator_term = jnp.zeros_like(user_term)
    chex.assert_equal_shape([creator_term, user_term])
    utility = user_term + creator_term + neighbor_weight * neighbor_distance_term
    return UtilityTerms(utility, user_term, creator_term, neighbor_distance_term)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UtilitySettings:
    """lambda of the neighbour-distance term, and how many neighbours it sums over."""

    neighbor_weight: float
    num_neighbors: int
