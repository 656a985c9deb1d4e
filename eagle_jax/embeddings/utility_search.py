"""Where, near known points, the content-gap utility of a domain embedding is highest.

Axis letters: `P` problems, `C` centers, `S` starts, `N` catalogue, `d` domain width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.base.settings import setting, settings
from eagle_jax.embeddings.utility import UtilitySettings, content_gap_utility


@settings
class UtilitySearchSettings:
    """Projected ascent inside a ball."""

    num_starts: int = setting("Random ones in each ball, beside the maximiser of the user's term.", at_least=0)
    num_steps: int = setting("Of the ascent from each start.", at_least=1)
    last_step: float = setting("Steps shrink from 1 to it.", above=0, below=1, unit="radii")


class FoundPoints(NamedTuple):
    """points [P, d], the centers [P] in whose balls they lie, and U of them [P]."""

    points: jax.Array
    centers: jax.Array
    utilities: jax.Array


@partial(jax.jit, static_argnames=("utility", "settings"))
def search_balls(
    centers: jax.Array,
    metrics: jax.Array,
    radius: jax.Array,
    user_embeddings: jax.Array,
    catalogue_embeddings: jax.Array,
    key: jax.Array,
    utility: UtilitySettings,
    settings: UtilitySearchSettings,
    neighbor_limit: jax.Array | float | None = None,
) -> FoundPoints:
    """argmax U(z) over the union of the balls {z: (z - c)' G (z - c) <= radius^2}.

    ELM as EAGLE's baseline (Tennenholtz et al. 2024, section 5), which leaves the search open.
    centers [P, C, d], metrics G [P, C, d, d] (positive definite), users [P, d], catalogue [N, d].
    With G = L L' a ball is z = c + radius L^-T y, |y| <= 1. There the user's term alone has its
    maximum at y = L^-1 z_u / |L^-1 z_u|: a start. Near z, U is that term and a minimum of sums of
    norms, neither convex nor concave, so it climbs from each start y <- P(y + s L^-1 dU/dz / |.|),
    P onto the unit ball, s shrinking geometrically, and keeps the best point seen. The key is
    consumed.
    """
    chex.assert_rank([centers, metrics, user_embeddings, catalogue_embeddings], [3, 4, 2, 2])

    def utility_fn(points: jax.Array, user: jax.Array) -> jax.Array:
        users = jnp.broadcast_to(user[None], points.shape)
        return content_gap_utility(points, users, catalogue_embeddings, utility, neighbor_limit=neighbor_limit).utility

    factors = jnp.linalg.cholesky(metrics)
    keys = jax.random.split(key, len(centers))
    return jax.lax.map(
        lambda problem: _search(*problem, radius, utility_fn, settings), (centers, factors, user_embeddings, keys)
    )


def _search(
    centers: jax.Array,
    factors: jax.Array,
    user: jax.Array,
    key: jax.Array,
    radius: jax.Array,
    utility_fn: Callable[[jax.Array, jax.Array], jax.Array],
    settings: UtilitySearchSettings,
) -> FoundPoints:
    """One problem: centers [C, d], factors L [C, d, d], user [d]; utility_fn: ([B, d], user)."""
    num_centers, width = centers.shape

    def place(offsets: jax.Array) -> jax.Array:  # y [C, S, d] -> z
        moved = jax.vmap(partial(jax.scipy.linalg.solve_triangular, lower=True, trans=1))(
            factors, offsets.swapaxes(1, 2)
        )
        return centers[:, None] + radius * moved.swapaxes(1, 2)

    def climb(carry, step):
        offsets, best, best_offsets = carry
        points, back = jax.vjp(place, offsets)
        flat = points.reshape(-1, width)
        utilities, gradients = jax.vjp(partial(utility_fn, user=user), flat)
        utilities = utilities.reshape(offsets.shape[:2])
        is_best = utilities > best
        best_offsets = jnp.where(is_best[..., None], offsets, best_offsets)
        (upward,) = gradients(jnp.ones(len(flat)))
        (upward,) = back(upward.reshape(offsets.shape))
        moved = _into_ball(offsets + step * _unit(upward))
        return (moved, jnp.maximum(utilities, best), best_offsets), None

    directions = jax.vmap(partial(jax.scipy.linalg.solve_triangular, lower=True), (0, None))(factors, user)
    drawn = jax.random.ball(key, width, shape=(num_centers, settings.num_starts))
    starts = jnp.concatenate([_unit(directions)[:, None], drawn], axis=1)
    # The last point is looked at too: one more round, whose step goes nowhere.
    steps = settings.last_step ** jnp.linspace(0, 1, settings.num_steps)
    carry = (starts, jnp.full(starts.shape[:2], -jnp.inf), starts)
    (_, best, offsets), _ = jax.lax.scan(climb, carry, jnp.append(steps, 0.0))
    center, start = jnp.unravel_index(jnp.argmax(best), best.shape)
    return FoundPoints(place(offsets)[center, start], center, best[center, start])


def _unit(vectors: jax.Array) -> jax.Array:
    lengths = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / jnp.where(lengths > 0, lengths, 1)


def _into_ball(vectors: jax.Array) -> jax.Array:
    return vectors / jnp.maximum(1, jnp.linalg.norm(vectors, axis=-1, keepdims=True))


class SearchCertificate(NamedTuple):
    """In float64: U of the points [P], and (z - c)' G (z - c) / radius^2 - 1 [P], at most rounding
    where a point lies in its ball."""

    utilities: np.ndarray
    excess: np.ndarray


def certify(
    found: FoundPoints,
    centers: np.ndarray,
    metrics: np.ndarray,
    radius: float,
    user_embeddings: np.ndarray,
    catalogue_embeddings: np.ndarray,
    utility: UtilitySettings,
    neighbor_limit: float | None = None,
) -> SearchCertificate:
    """What `search_balls` found, computed again from the same arguments."""
    rows = np.arange(len(centers))
    points = np.asarray(found.points, np.float64)
    chosen = np.asarray(found.centers)
    exact = map(np.float64, (points, user_embeddings, catalogue_embeddings))
    with jax.enable_x64(True):
        utilities = np.asarray(content_gap_utility(*exact, utility, neighbor_limit=neighbor_limit).utility)
    moved = points - centers[rows, chosen]
    squares = np.einsum("pd,pde,pe->p", moved, np.float64(metrics)[rows, chosen], moved)
    # A ball of radius 0 is its center.
    return SearchCertificate(utilities, squares / radius**2 - 1 if radius else squares)
