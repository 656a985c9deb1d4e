"""Ratings packed into dense blocks, for normal equations on hardware that wants static shapes.

Axis letters: one side's ratings (all users', or all items') fill `G` blocks of `S` segments of `L`
ratings, which belong to the block's `M` rows.
"""

from typing import NamedTuple

import numpy as np

_BLOCK_ELEMENTS = 1 << 22  # float32 elements of a block's largest intermediate: 16 MiB


class RatingBlocks(NamedTuple):
    """One side's ratings, every row whole inside one block; padding has mask 0 or row == rows."""

    row: np.ndarray  # [G, M]
    count: np.ndarray  # [G, M] ratings of the row
    segment_row: np.ndarray  # [G, S] position of the segment's row in `row`
    column: np.ndarray  # [G, S, L] index on the other side
    rating: np.ndarray  # [G, S, L]
    mask: np.ndarray  # [G, S, L]


def pack_ratings(
    row_index: np.ndarray, column_index: np.ndarray, rating: np.ndarray, num_rows: int, width: int
) -> RatingBlocks:
    """Cut every row's ratings into segments of L and fill blocks of whole rows with them.

    Padding stays below L per row however uneven the counts are, and a block's intermediates
    ([S, L, f] and [S, f, f]) below _BLOCK_ELEMENTS unless a single row needs more.
    """
    counts = np.bincount(row_index, minlength=num_rows)
    rows = np.flatnonzero(counts)
    mean_count = counts[rows].mean()
    length = int(np.clip(2 ** np.floor(np.log2(mean_count)), 8, 128))
    segments = -(-counts[rows] // length)
    budget = _BLOCK_ELEMENTS // (width * max(length, width))
    capacity = int(min(max(budget, segments.max()), segments.sum()))

    # Rows in order, each on consecutive segments; one that would straddle opens a new block.
    first_segment = np.zeros(len(rows), np.int64)
    used = 0
    for position, needed in enumerate(segments.tolist()):
        if used % capacity + needed > capacity:
            used += capacity - used % capacity
        first_segment[position] = used
        used += needed
    block = first_segment // capacity
    num_blocks = int(block[-1]) + 1
    row_in_block = np.arange(len(rows)) - np.searchsorted(block, np.arange(num_blocks))[block]

    num_slots = int(row_in_block.max()) + 1
    row = np.full((num_blocks, num_slots), num_rows, np.int32)
    count = np.zeros((num_blocks, num_slots), np.float32)
    row[block, row_in_block], count[block, row_in_block] = rows, counts[rows]

    segment_row = np.zeros(num_blocks * capacity, np.int32)
    owner, nth = _members(segments)
    segment_row[first_segment[owner] + nth] = row_in_block[owner]

    owner, nth = _members(counts[rows])
    place = first_segment[owner] * length + nth  # a row's segments are neighbours
    order = np.argsort(row_index, kind="stable")
    column = np.zeros(num_blocks * capacity * length, np.int32)
    values, mask = np.zeros(column.shape, np.float32), np.zeros(column.shape, np.float32)
    column[place], values[place], mask[place] = column_index[order], rating[order], 1.0
    shape = (num_blocks, capacity, length)
    return RatingBlocks(
        row, count, segment_row.reshape(shape[:2]), column.reshape(shape), values.reshape(shape), mask.reshape(shape)
    )


def _members(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For groups of these sizes laid end to end: every member's group, and its place in it."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return owner, np.arange(len(owner)) - (np.cumsum(sizes) - sizes)[owner]
