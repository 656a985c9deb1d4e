"""The rows of a table that are nearest to points, exactly.

Axis letters: `B` points, `N` rows, `d` width, `k` rows asked for.

A large table is first looked through by one matrix product: |x|^2 - 2 <z, x>, which is |z - x|^2 less |z|^2, and of
that the least in each group of rows. The k nearest lie in k groups at most, so that differences have to be formed for
the rows of the k and a few more that have the least. Rounding of the product is bounded (Higham 2002, section 3.1: a
sum of d products is off by no more than d u times that of their sizes), and where it might hide a nearer row in another
group, the point is compared with all rows.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

_SMALL = 1 << 14  # rows that are compared one by one as fast
_GROUP, _BLOCK = 64, 4096  # rows that have one least value; rows of one product
_SPARE = 8  # groups, or rows, beyond those asked for
_POINTS, _ELEMENTS = 512, 1 << 24  # of one product; at most so many numbers in the rows of chosen groups


def nearest_rows(points: jax.Array, rows: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """|z - x|^2 [B, k] of the k rows [N, d] nearest to each point [B, d], the nearest first, and which they are [B, k].

    Of equal ones the first. Squares are NaN where any row's is, and can be differentiated. Raises ValueError
    where there are no k rows.
    """
    if not 1 <= count <= len(rows):
        raise ValueError(f"{count} nearest rows asked for of {len(rows)}")
    points, rows = jnp.asarray(points), jnp.asarray(rows)
    if len(rows) <= max(_SMALL, (count + _SPARE) * _GROUP):
        # A few points at a time: [B, N, d] at once would be large.
        return jax.lax.map(partial(_by_differences, rows=rows, count=count), points, batch_size=8)
    found, is_nan = _find(jax.lax.stop_gradient(points), jax.lax.stop_gradient(rows), count)
    squared = jnp.sum((rows[found] - points[:, None]) ** 2, axis=2)
    return jnp.where(is_nan[:, None], jnp.nan, squared), found


def _by_differences(point: jax.Array, rows: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`nearest_rows` of one point [d]: a small distance would drown in the rounding of expanded squares."""
    squared = jnp.sum((rows - point[None]) ** 2, axis=1)
    least, found = jax.lax.top_k(-squared, count)
    # top_k orders a NaN by its sign bit: it would be a neighbour or would not, in silence.
    return jnp.where(jnp.isnan(squared).any(), jnp.nan, -least), found


def _find(points: jax.Array, rows: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The nearest rows [B, k] in a large table, and for which points [B] a distance is NaN."""
    (number, width), (total, _) = points.shape, rows.shape
    padded = jnp.pad(rows, ((0, -total % _BLOCK), (0, 0)))
    squares = jnp.where(jnp.arange(len(padded)) < total, jnp.sum(padded**2, axis=1), jnp.inf)
    # A maximum leaves NaN out on CPUs, a sum does not; where it is NaN, no point is certain of its rows.
    of_rows = squares[:total]
    largest = jnp.where(jnp.isnan(jnp.sum(of_rows)), jnp.nan, jnp.sqrt(jnp.max(of_rows)))
    most = min(_POINTS, max(8, _ELEMENTS // ((count + _SPARE) * _GROUP * width)))
    parts = -(-number // most)
    share = -(-number // max(parts, 1))  # of each part, as equal as can be
    in_parts = jnp.pad(points, ((0, parts * share - number), (0, 0))).reshape(parts, share, width)

    def of_part(part):
        found, is_certain = _by_groups(part, padded, squares, largest, total, count)
        uncertain_first = jnp.argsort(is_certain)

        def again(index, known):
            place = uncertain_first[index]
            squared, nearest = _by_differences(part[place], rows, count)
            return known[0].at[place].set(nearest), known[1].at[place].set(jnp.isnan(squared[0]))

        return jax.lax.fori_loop(0, jnp.sum(~is_certain), again, (found, jnp.zeros(share, bool)))

    found, is_nan = jax.lax.map(of_part, in_parts)
    return found.reshape(-1, count)[:number], is_nan.reshape(-1)[:number]


def _by_groups(
    points: jax.Array, padded: jax.Array, squares: jax.Array, largest: jax.Array, total: int, count: int
) -> tuple[jax.Array, jax.Array]:
    """The nearest rows [B, k] among the groups with the least products, and whether no other can have a nearer [B]."""
    width = points.shape[1]

    def least_of_groups(_, block):
        rows, squares = block
        products = jnp.matmul(rows, points.T, precision=jax.lax.Precision.HIGHEST)
        values = squares[:, None] - 2 * products
        return None, jnp.min(values.reshape(-1, _GROUP, len(points)), axis=1)

    blocks = padded.reshape(-1, _BLOCK, width), squares.reshape(-1, _BLOCK)
    least = jax.lax.scan(least_of_groups, None, blocks)[1].reshape(-1, len(points)).T
    chosen, groups = jax.lax.top_k(-least, count + _SPARE)
    candidates = jnp.sort(groups, axis=1)[:, :, None] * _GROUP + jnp.arange(_GROUP)[None, None]
    candidates = candidates.reshape(len(points), -1)
    squared = jnp.sum((padded[candidates] - points[:, None]) ** 2, axis=2)
    nearest, place = jax.lax.top_k(-jnp.where(candidates < total, squared, jnp.inf), count)
    rounding = (width + 4) * jnp.finfo(points.dtype).eps
    of_points = jnp.sum(points**2, axis=1)
    # Minima, not last columns: with a column taken of it XLA does not see top_k, and sorts all groups.
    beyond = of_points - jnp.min(chosen, axis=1) - rounding * (jnp.sqrt(of_points) + largest) ** 2
    return jnp.take_along_axis(candidates, place, axis=1), beyond > -jnp.min(nearest, axis=1) * (1 + rounding)


def find_nearest(points: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows [B, k] of [N, d] are nearest to points [B, d], the nearest first, and how far they are [B, k].

    As sorted by float64 distances, of equal ones the first. Raises ValueError where there are no k rows.
    """
    points, rows = np.asarray(points), np.asarray(rows)
    if len(rows) <= max(_SMALL, count + _SPARE):
        if not 1 <= count <= len(rows):
            raise ValueError(f"{count} nearest rows asked for of {len(rows)}")
        is_certain = np.zeros(len(points), bool)
        found, distances = np.zeros((len(points), count), np.int64), np.zeros((len(points), count))
    else:
        squared, near = map(np.asarray, _nearest_rows(np.float32(points), np.float32(rows), count + _SPARE))
        exact = np.linalg.norm(np.float64(rows[near]) - np.float64(points)[:, None], axis=2)
        order = np.lexsort((near, exact), axis=1)[:, :count]
        found, distances = (np.take_along_axis(of, order, axis=1) for of in (near.astype(np.int64), exact))
        # What rounding, to float32 as in it, can have taken from a row that was left out.
        rounding, sizes = np.finfo(np.float32).eps, [np.linalg.norm(of, axis=1) for of in (points, rows)]
        beyond = np.sqrt(squared[:, -1]) * (1 - (rows.shape[1] + 4) * rounding) - rounding * (sizes[0] + sizes[1].max())
        is_certain = beyond > distances[:, -1]
    for point in np.flatnonzero(~is_certain):
        to_all = np.linalg.norm(np.float64(rows) - np.float64(points[point]), axis=1)
        found[point] = np.argsort(to_all, kind="stable")[:count]
        distances[point] = to_all[found[point]]
    return found, distances


_nearest_rows = jax.jit(nearest_rows, static_argnames="count")
