"""k-means with two clusters, of a few points given by their distances.

With the points' mean at the origin and s the sum of the points of cluster A of n points out of V,

    inertia(A) = sum_i |x_i|^2 - |s|^2 V / (n (V - n)),

so the search needs inner products alone and costs the same at any width of the points. A step moves
the one point whose move lowers the inertia most (Hartigan 1975; wherever it stops Lloyd's algorithm
would stop, but not the other way round: Telgarsky and Vattani 2010). Every point p gives a start: p
and the point farthest from it, each with the points that are nearer to it. The search goes on from
the 16 best of them, and the best end is kept. Nothing is drawn.

Axis letter: K points.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

# A move has to gain more than float32 may have made up.
_LEAST_GAIN = 1e-6
_NUM_STARTS = 16
# Accelerators multiply with fewer digits unless they are told.
_product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class TwoMeans(NamedTuple):
    """is_first [K] bool: in the cluster of the first point, is_second [K] bool: in the other.

    centre_distances [K]: squared, of a point to its own cluster's mean, inf where it is not valid.
    inertia []: their sum over the valid points.
    """

    is_first: jax.Array
    is_second: jax.Array
    centre_distances: jax.Array
    inertia: jax.Array


class _Search(NamedTuple):
    in_a: jax.Array  # [K] bool
    products: jax.Array  # [K], of the points with s
    squared_sum: jax.Array  # [], |s|^2
    is_done: jax.Array  # []
    step: jax.Array  # []


def two_means(squared_distances: jax.Array, is_valid: jax.Array) -> TwoMeans:
    """The best two clusters found of the valid points; neither is empty where two are valid.

    squared_distances: [K, K] float32; is_valid: [K]. Points that all coincide: the first one is a
    cluster of its own. With fewer than two valid points the result means nothing.
    """
    num_points = jnp.sum(is_valid).astype(squared_distances.dtype)
    gram = _centred_gram(squared_distances, is_valid, num_points)
    starts, is_start = _best_starts(squared_distances, gram, is_valid, num_points)
    ends = jax.vmap(lambda start: _exchange(gram, is_valid, num_points, start))(starts)
    sizes = jnp.sum(ends.in_a, axis=-1).astype(gram.dtype)
    between = jnp.where(is_start, _between(ends.squared_sum, sizes, num_points), -1.0)
    best = jnp.argmax(between)
    in_a = ends.in_a[best]
    size = sizes[best]
    # Products of the points with the own cluster's mean: s / n in A, -s / (V - n) in B.
    shares = jnp.where(in_a, 1.0 / size, -1.0 / jnp.maximum(num_points - size, 1.0))
    norms = jnp.diagonal(gram)
    squared_sum = ends.squared_sum[best]
    to_centre = norms - 2.0 * shares * ends.products[best] + shares**2 * squared_sum
    in_b = is_valid & ~in_a
    is_swapped = jnp.argmax(in_b) < jnp.argmax(in_a)
    return TwoMeans(
        is_first=jnp.where(is_swapped, in_b, in_a),
        is_second=jnp.where(is_swapped, in_a, in_b),
        centre_distances=jnp.where(is_valid, jnp.maximum(to_centre, 0.0), jnp.inf),
        inertia=jnp.sum(norms) - between[best],
    )


def _centred_gram(squared_distances, is_valid, num_points):
    """[K, K] inner products about the mean: -1/2 J D J; 0 for what is not valid."""
    is_pair = is_valid[:, None] & is_valid[None, :]
    masked = jnp.where(is_pair, squared_distances, 0.0)
    means = jnp.sum(masked, axis=1) / jnp.maximum(num_points, 1.0)
    mean = jnp.sum(means) / jnp.maximum(num_points, 1.0)
    gram = -0.5 * (masked - means[:, None] - means[None, :] + mean)
    return jnp.where(is_pair, gram, 0.0)


def _best_starts(squared_distances, gram, is_valid, num_points):
    """[starts, K] bool, cluster A of the best starts, and [starts]: whether of a valid point."""
    is_own = jnp.eye(len(is_valid), dtype=bool)
    is_other = is_valid[None, :] & ~is_own
    farthest = jnp.argmax(jnp.where(is_other, squared_distances, -1.0), axis=1)
    is_nearer = squared_distances < squared_distances[farthest]
    starts = (is_nearer & is_other) | (is_own & is_valid[None, :])
    in_a = starts.astype(gram.dtype)
    squared_sums = jnp.sum(_product(in_a, gram) * in_a, axis=1)
    between = _between(squared_sums, jnp.sum(in_a, axis=1), num_points)
    order = jax.lax.top_k(jnp.where(is_valid, between, -1.0), min(_NUM_STARTS, len(is_valid)))[1]
    return starts[order], is_valid[order]


def _between(squared_sum, size, num_points):
    """|s|^2 V / (n (V - n)): what the clusters take off the inertia."""
    return squared_sum * num_points / jnp.maximum(size * (num_points - size), 1.0)


def _exchange(gram, is_valid, num_points, in_a) -> _Search:
    norms = jnp.diagonal(gram)

    def step(state: _Search) -> _Search:
        size = jnp.sum(state.in_a).astype(gram.dtype)
        signs = jnp.where(state.in_a, -1.0, 1.0)
        squared_sums = state.squared_sum + 2.0 * signs * state.products + norms
        sizes = size + signs
        may_move = is_valid & (sizes >= 1.0) & (sizes <= num_points - 1.0)
        reached = jnp.where(may_move, _between(squared_sums, sizes, num_points), -jnp.inf)
        moved = jnp.argmax(reached)
        now = _between(state.squared_sum, size, num_points)
        is_done = ~(reached[moved] > (1.0 + _LEAST_GAIN) * now)
        moves = ~is_done & (jnp.arange(len(in_a)) == moved)
        return _Search(
            in_a=state.in_a ^ moves,
            products=state.products + jnp.where(is_done, 0.0, signs[moved]) * gram[moved],
            squared_sum=jnp.where(is_done, state.squared_sum, squared_sums[moved]),
            is_done=is_done,
            step=state.step + 1,
        )

    products = _product(gram, in_a.astype(gram.dtype))
    squared_sum = jnp.sum(jnp.where(in_a, products, 0.0))
    first = _Search(in_a, products, squared_sum, jnp.array(False), jnp.array(0))
    # It stops by itself after fewer than K steps; rounding alone could make it go on.
    return jax.lax.while_loop(lambda state: ~state.is_done & (state.step < 2 * len(in_a)), step, first)
