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
import numpy as np

from eagle_jax.base.settings import setting, settings
from eagle_jax.embeddings.nearest import nearest_rows

_MOST_MEASURED = 4096  # entities of which it is known how far they are from all others


@settings
class UtilitySettings:
    """The terms of U."""

    neighbor_weight: float = setting("lambda of the neighbour-distance term.", at_least=0)
    num_neighbors: int = setting("Catalogue entities that it sums over.", at_least=1)
    neighbor_cap: float | None = setting(
        "Quantile of what the catalogue's own entities have of it, without themselves: it counts no further. "
        "None: however far.",
        default=None,
        above=0,
        at_most=1,
        later=True,
    )


class UtilityInputs(NamedTuple):
    """What a term may depend on; `creator_utility` is None where no creators are known."""

    domain_embeddings: jax.Array  # z [B, d]
    user_embeddings: jax.Array  # z_u [B, d]
    catalogue_embeddings: jax.Array  # D [N, d]
    creator_utility: jax.Array | None  # [B]
    mean_user: jax.Array | None = None  # mean of z_u over all users [d]; None: U is not split
    neighbor_limit: jax.Array | float | None = None  # of `catalogue_neighbor_limit`


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
    """Sum over the `num_neighbors` nearest z_m of D of ||z - z_m||_2, capped; NaN where a distance is.

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

    squared, _ = nearest_rows(inputs.domain_embeddings, catalogue, settings.num_neighbors)
    # sqrt has no derivative at 0: there the gradient is set to 0 instead of NaN.
    roots = jnp.sqrt(jnp.where(squared == 0, 1, squared))
    found = jnp.sum(jnp.where(squared == 0, 0, roots), axis=1)
    return found if inputs.neighbor_limit is None else jnp.minimum(found, inputs.neighbor_limit)


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
    neighbor_limit: jax.Array | float | None = None,
) -> UtilityTerms:
    """U(z) = <z_u, z> + creator_term + neighbor_weight * sum over the nearest of D ||z - z_m||_2.

    That is, the weighted sum of `TERMS`. Tennenholtz et al. 2024, section 3; the paper has 3
    neighbours and no creator term, which counts where `creator_utility` [B] is given.
    `catalogue_embeddings` [N, d] is all of D. `mean_user` [d] splits the user term into `USER_TERM_PARTS`,
    which are in U once, by that term. `neighbor_limit` is what the neighbour term counts up to where `neighbor_cap`
    wants a limit. Raises ValueError if D has fewer than `num_neighbors`, and where one of limit and cap is missing.
    """
    if (neighbor_limit is None) != (settings.neighbor_cap is None):
        given = "missing" if neighbor_limit is None else "given"
        raise ValueError(f"neighbor_cap is {settings.neighbor_cap}, and the limit that belongs to it is {given}")
    chex.assert_rank([domain_embeddings, user_embeddings, catalogue_embeddings], 2)
    chex.assert_equal_shape([domain_embeddings, user_embeddings])
    inputs = UtilityInputs(
        domain_embeddings, user_embeddings, catalogue_embeddings, creator_utility, mean_user, neighbor_limit
    )
    terms = {name: term.function(inputs, settings) for name, term in TERMS.items()}
    present = {name: values for name, values in terms.items() if values is not None}
    chex.assert_shape(list(present.values()), (len(domain_embeddings),))
    total = sum(TERMS[name].weight(settings) * values for name, values in present.items())
    if mean_user is None:
        return UtilityTerms(total, **terms)
    common = jnp.matmul(domain_embeddings, mean_user, precision=jax.lax.Precision.HIGHEST)
    return UtilityTerms(total, **terms, common_part=common, personal_part=terms["user_term"] - common)


def catalogue_neighbor_limit(catalogue_embeddings: np.ndarray, settings: UtilitySettings) -> float | None:
    """The `neighbor_cap` quantile of the neighbour term over D [N, d] itself, each entity left out of its own; None
    without a cap.

    Of more than 4096 entities so many are drawn, always the same ones. Raises ValueError if D has no more than
    `num_neighbors` entities.
    """
    if settings.neighbor_cap is None:
        return None
    if settings.num_neighbors >= len(catalogue_embeddings):
        raise ValueError(
            f"num_neighbors is {settings.num_neighbors}; with a neighbor_cap it must be below the "
            f"{len(catalogue_embeddings)} entities of the catalogue, of which one is left out"
        )
    drawn = np.random.default_rng(0).permutation(len(catalogue_embeddings))[:_MOST_MEASURED]
    rows = catalogue_embeddings[np.sort(drawn)]
    # An entity's nearest is itself, at distance 0: one more neighbour leaves it out.
    found = _uncapped(
        rows, catalogue_embeddings, UtilitySettings(neighbor_weight=0, num_neighbors=settings.num_neighbors + 1)
    )
    return float(np.quantile(np.asarray(found, np.float64), settings.neighbor_cap))


@partial(jax.jit, static_argnames="settings")
def _uncapped(rows: jax.Array, catalogue_embeddings: jax.Array, settings: UtilitySettings) -> jax.Array:
    return _neighbor_distance_term(UtilityInputs(rows, rows, catalogue_embeddings, None), settings)
