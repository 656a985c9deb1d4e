"""The content-gap utility of a domain embedding: a table of terms, and their weighted sum.

Axis letters: `B` batch, `N` catalogue, `d` domain width.
"""

from collections import namedtuple
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from eagle_jax.base.settings import setting, settings


@settings
class UtilitySettings:
    """The terms of U."""

    neighbor_weight: float = setting("lambda of the neighbour-distance term.", at_least=0)
    num_neighbors: int = setting("Catalogue entities that it sums over.", at_least=1)


class UtilityInputs(NamedTuple):
    """What a term may depend on; `creator_utility` is None where no creators are known."""

    domain_embeddings: jax.Array  # z [B, d]
    user_embeddings: jax.Array  # z_u [B, d]
    catalogue_embeddings: jax.Array  # D [N, d]
    creator_utility: jax.Array | None  # [B]
    mean_user: jax.Array | None = None  # mean of z_u over all users [d]; None: U is not split


class Term(NamedTuple):
    """One term of U: (inputs, settings) -> [B], or None where it does not apply; its weight; and
    how tables call it."""

    function: Callable[[UtilityInputs, UtilitySettings], jax.Array | None]
    weight: Callable[[UtilitySettings], float]
    heading: str
    meaning: str


def _user_term(inputs: UtilityInputs, settings: UtilitySettings) -> jax.Array:
    """<z_u, z>."""
    return jnp.einsum("bd,bd->b", inputs.domain_embeddings, inputs.user_embeddings, precision=jax.lax.Precision.HIGHEST)


def _neighbor_distance_term(inputs: UtilityInputs, settings: UtilitySettings) -> jax.Array:
    """Sum over the `num_neighbors` nearest z_m of D of ||z - z_m||_2; NaN where a distance is.

    `inputs.catalogue_embeddings` is all of D, so at an existing entity's own embedding the nearest
    distance is 0. Distances come from differences, not from expanded squares: a small distance
    would drown in rounding.
    """
    catalogue = inputs.catalogue_embeddings
    if not 1 <= settings.num_neighbors <= len(catalogue):
        raise ValueError(
            f"num_neighbors is {settings.num_neighbors}; it must be from 1 to the "
            f"{len(catalogue)} entities of the catalogue"
        )

    def nearest_distances(domain_embedding: jax.Array) -> jax.Array:
        squared = jnp.sum((catalogue - domain_embedding[None]) ** 2, axis=1)
        nearest = -jax.lax.top_k(-squared, settings.num_neighbors)[0]
        # sqrt has no derivative at 0: there the gradient is set to 0 instead of NaN.
        total = jnp.sum(jnp.where(nearest > 0, jnp.sqrt(jnp.where(nearest > 0, nearest, 1)), 0))
        # top_k orders a NaN by its sign bit: it would be a neighbour or would not, in silence.
        return jnp.where(jnp.isnan(squared).any(), jnp.nan, total)

    # A few rows at a time: [B, N, d] at once would be large.
    return jax.lax.map(nearest_distances, inputs.domain_embeddings, batch_size=8)


TERMS = {
    "user_term": Term(_user_term, lambda settings: 1.0, "User term", "How well the text fits the user."),
    "creator_term": Term(
        lambda inputs, settings: inputs.creator_utility,
        lambda settings: 1.0,
        "Creator term",
        "What the text is worth to who would make it.",
    ),
    "neighbor_distance_term": Term(
        _neighbor_distance_term,
        lambda settings: settings.neighbor_weight,
        "Neighbor term",
        "How far the text is from what exists (summed distance to its nearest neighbors).",
    ),
}
# Of the user term: <mean_u z_u, z> + <z_u - mean_u z_u, z>, on which users agree and where they differ.
USER_TERM_PARTS = {
    "common_part": ("what everybody likes", "The part of the user term that is the same for all users."),
    "personal_part": ("what this user likes", "What the user term has above the mean over all users."),
}
# U [B], its terms before their weights, [B] or None, and the parts of the user term; report them
# all, for their scales are not comparable by themselves.
UtilityTerms = namedtuple(
    "UtilityTerms", ("utility", *TERMS, *USER_TERM_PARTS), defaults=(None,) * len(USER_TERM_PARTS)
)


@partial(jax.jit, static_argnames="settings")
def content_gap_utility(
    domain_embeddings: jax.Array,
    user_embeddings: jax.Array,
    catalogue_embeddings: jax.Array,
    settings: UtilitySettings,
    creator_utility: jax.Array | None = None,
    mean_user: jax.Array | None = None,
) -> UtilityTerms:
    """U(z) = <z_u, z> + creator_term + neighbor_weight * sum over the nearest of D ||z - z_m||_2.

    That is, the weighted sum of `TERMS`. Tennenholtz et al. 2024, section 3; the paper has 3
    neighbours and no creator term, which counts where `creator_utility` [B] is given.
    `catalogue_embeddings` [N, d] is all of D. `mean_user` [d] splits the user term into `USER_TERM_PARTS`,
    which are in U once, by that term. Raises ValueError if D has fewer than `num_neighbors`.
    """
    chex.assert_rank([domain_embeddings, user_embeddings, catalogue_embeddings], 2)
    chex.assert_equal_shape([domain_embeddings, user_embeddings])
    inputs = UtilityInputs(domain_embeddings, user_embeddings, catalogue_embeddings, creator_utility, mean_user)
    terms = {name: term.function(inputs, settings) for name, term in TERMS.items()}
    present = {name: values for name, values in terms.items() if values is not None}
    chex.assert_shape(list(present.values()), (len(domain_embeddings),))
    total = sum(TERMS[name].weight(settings) * values for name, values in present.items())
    if mean_user is None:
        return UtilityTerms(total, **terms)
    common = jnp.matmul(domain_embeddings, mean_user, precision=jax.lax.Precision.HIGHEST)
    return UtilityTerms(total, **terms, common_part=common, personal_part=terms["user_term"] - common)
