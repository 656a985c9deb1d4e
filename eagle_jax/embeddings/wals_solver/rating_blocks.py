"""Ratings packed into dense blocks, for normal equations on hardware that wants static shapes.

Axis letters: both sides' ratings (the users', then the items') fill `G` blocks of `S` segments of `L`
ratings, which belong to the block's `M` rows.
"""

import heapq
from typing import NamedTuple

import numpy as np

_BLOCK_ELEMENTS = 1 << 21  # float32 elements of a block's largest intermediate: 8 MiB
_LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_SEGMENT_COST = 32  # ratings that a segment costs beside its own: its matrix is written and added up


class RatingBlocks(NamedTuple):
    """Ratings, every row whole inside one block of its side; rows of both sides are numbered together."""

    row: np.ndarray  # [G, M], as padding the number of all rows, like `column`
    segment_row: np.ndarray  # [G, S] position of the segment's row in `row`
    column: np.ndarray  # [G, S, L] row of the other side
    rating: np.ndarray  # [G, S, L], 0 as padding
    sides: np.ndarray  # [sides + 1] side k's blocks are sides[k] to sides[k + 1]


def pack_ratings(
    sides: list[tuple[np.ndarray, np.ndarray]], rating: np.ndarray, num_rows: int, width: int
) -> RatingBlocks:
    """Cut every row's ratings into segments of L and fill blocks of whole rows with them.

    `sides` are the row and the column [R] of every rating. L is what makes the work least; rows are dealt to the
    blocks, the largest first, each to the one that has least, so that all are about as full, of segments as of rows.
    A block's intermediates ([S, L, width] and [S, width, width]) stay below _BLOCK_ELEMENTS unless a row needs more.
    """
    counts = [np.bincount(row, minlength=num_rows) for row, _ in sides]
    present = [np.flatnonzero(count) for count in counts]
    counts = [count[rows] for count, rows in zip(counts, present, strict=True)]
    everything = np.concatenate(counts)
    length = min(_LENGTHS, key=lambda length: (-(-everything // length)).sum() * (length + _SEGMENT_COST))
    segments = [-(-count // length) for count in counts]
    budget = max(_BLOCK_ELEMENTS // (width * max(length, width)), max(map(np.max, segments)))
    dealt = [_deal(needed, -(-int(needed.sum()) // budget)) for needed in segments]
    num_segments = max(int(np.bincount(block, needed).max()) for block, needed in zip(dealt, segments, strict=True))
    num_places = max(int(np.bincount(block).max()) for block in dealt)
    parts = [
        _fill(row, column, rating, *side, num_rows, (length, num_segments, num_places))
        for (row, column), *side in zip(sides, present, counts, segments, dealt, strict=True)
    ]
    bounds = np.cumsum([0, *(len(part[0]) for part in parts)], dtype=np.int32)
    return RatingBlocks(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)), bounds)


def _deal(sizes: np.ndarray, num_blocks: int) -> np.ndarray:
    """The block of each row, so that the blocks' sums of sizes are about equal."""
    blocks = np.zeros(len(sizes), np.int64)
    least = [(0, block) for block in range(num_blocks)]
    for row in np.argsort(-sizes, kind="stable").tolist():
        used, block = least[0]
        blocks[row] = block
        heapq.heapreplace(least, (used + int(sizes[row]), block))
    return blocks


def _fill(row_index, column_index, rating, rows, counts, segments, block, padding, shape) -> tuple[np.ndarray, ...]:
    """One side's arrays of `RatingBlocks`: `rows` with their counts, segments and blocks."""
    length, num_segments, num_places = shape
    num_blocks = int(block.max()) + 1
    # Rows by block, and within a block in their order, each on consecutive segments.
    by_block = np.argsort(block, kind="stable")
    row_in_block, first_segment = np.zeros((2, len(rows)), np.int64)
    place = _members(np.bincount(block, minlength=num_blocks))[1]
    row_in_block[by_block] = place
    before = np.cumsum(segments[by_block]) - segments[by_block]
    starts = before[np.searchsorted(block[by_block], np.arange(num_blocks))]
    first_segment[by_block] = before - starts[block[by_block]] + num_segments * block[by_block]

    row = np.full((num_blocks, num_places), padding, np.int32)
    row[block, row_in_block] = rows
    segment_row = np.full(num_blocks * num_segments, num_places - 1, np.int32)
    owner, nth = _members(segments)
    segment_row[first_segment[owner] + nth] = row_in_block[owner]

    owner, nth = _members(counts)
    slot = first_segment[owner] * length + nth  # a row's segments are neighbours
    order = np.argsort(row_index, kind="stable")
    column = np.full(num_blocks * num_segments * length, padding, np.int32)
    values = np.zeros(column.shape, np.float32)
    column[slot], values[slot] = column_index[order], rating[order]
    shape = (num_blocks, num_segments, length)
    return row, segment_row.reshape(shape[:2]), column.reshape(shape), values.reshape(shape)


def _members(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For groups of these sizes laid end to end: every member's group, and its place in it."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return owner, np.arange(len(owner)) - (np.cumsum(sizes) - sizes)[owner]
