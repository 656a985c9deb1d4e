"""Ratings packed into dense blocks, for normal equations on hardware that wants static shapes.

Axis letters: the table of both sides lies in `P` parts, a device each; the ratings of a part's rows (its users', then
its items') fill `G` blocks of `S` segments of `L` ratings, which belong to the block's `M` rows.
"""

import heapq
from typing import NamedTuple

import numpy as np

_BLOCK_ELEMENTS = 1 << 21  # float32 elements of a block's largest intermediate: 8 MiB
_LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_SEGMENT_COST = 32  # ratings that a segment costs beside its own: its matrix is written and added up


class RatingBlocks(NamedTuple):
    """Ratings, every row whole inside one block of its side and its part.

    S and L are one axis: a TPU would pad an L of 16 to 128.
    """

    row: np.ndarray  # [P G, M] place in the own part, as padding its last
    segment_row: np.ndarray  # [P G, S] position of the segment's row in `row`
    column: np.ndarray  # [P G, S L] place of the other side's row in the whole table; as padding, of zeros
    rating: np.ndarray  # [P G, S L], 0 as padding
    sides: np.ndarray  # [sides + 1] of the G blocks of any part side k's are sides[k] to sides[k + 1]


class TablePlaces(NamedTuple):
    """Where users and items lie in the table: each part has places for users, for items, and a last one of zeros."""

    place: np.ndarray  # [U + N] in the whole table; 0, 1, 2 ... if there is one part
    sizes: tuple[int, int]  # users and items that a part has room for

    @property
    def part_size(self) -> int:
        return sum(self.sizes) + 1


def pack_ratings(
    sides: list[tuple[np.ndarray, np.ndarray]],
    rating: np.ndarray,
    sizes: tuple[int, int],
    width: int,
    num_parts: int = 1,
) -> tuple[RatingBlocks, TablePlaces]:
    """Cut every row's ratings into segments of L and fill blocks of whole rows with them.

    `sides` are the row and the column [R] of every rating, by number among all `sizes` of users, then items. L is what
    makes the work least; rows are dealt to the blocks, the largest first, each to the one that has least, so that all
    are about as full, of segments as of rows. A part has the rows of its blocks, so that what is solved stays
    where it is, and its share of those without ratings.
    A block's intermediates ([S, L, width] and [S, width, width]) stay below _BLOCK_ELEMENTS unless a row needs more.
    """
    counts = [np.bincount(row, minlength=sum(sizes)) for row, _ in sides]
    present = [np.flatnonzero(count) for count in counts]
    counts = [count[rows] for count, rows in zip(counts, present, strict=True)]
    length, _, num_blocks = plan_blocks(counts, width, num_parts)
    segments = [-(-count // length) for count in counts]
    dealt = [_deal(needed, number) for needed, number in zip(segments, num_blocks, strict=True)]
    num_segments = max(int(np.bincount(block, needed).max()) for block, needed in zip(dealt, segments, strict=True))
    shape = length, num_segments, max(int(np.bincount(block).max()) for block in dealt)
    part = np.full(sum(sizes), -1)
    for rows, block, number in zip(present, dealt, num_blocks, strict=True):
        part[rows] = block // (number // num_parts)
    places = _place(part, sizes, num_parts)
    filled = [
        _fill(row, places.place[column], rating, places, *side, shape)
        for (row, column), *side in zip(sides, present, counts, segments, dealt, num_blocks, strict=True)
    ]
    by_part = [
        np.concatenate([array.reshape(num_parts, -1, *array.shape[1:]) for array in arrays], axis=1)
        for arrays in zip(*filled, strict=True)
    ]
    bounds = np.cumsum([0, *(number // num_parts for number in num_blocks)], dtype=np.int32)
    return RatingBlocks(*(array.reshape(-1, *array.shape[2:]) for array in by_part), bounds), places


def plan_blocks(counts: list[np.ndarray], width: int, num_parts: int) -> tuple[int, int, list[int]]:
    """L, S but for what dealing leaves uneven, and every side's number of blocks in all parts together.

    `counts` are the ratings of each side's rows, of those that have any.
    """
    everything = np.concatenate(counts)
    length = min(_LENGTHS, key=lambda length: (-(-everything // length)).sum() * (length + _SEGMENT_COST))
    segments = [-(-count // length) for count in counts]
    budget = max(_BLOCK_ELEMENTS // (width * max(length, width)), max(map(np.max, segments)))
    return length, int(budget), [num_parts * -(-int(each.sum()) // (num_parts * int(budget))) for each in segments]


def _place(part: np.ndarray, sizes: tuple[int, int], num_parts: int) -> TablePlaces:
    """Places of rows whose part is given, or -1: then one with room."""
    parts = np.split(part, [sizes[0]])
    places, room = [], []
    for of_side in parts:
        number = np.bincount(of_side[of_side >= 0], minlength=num_parts)
        room.append(max(-(-len(of_side) // num_parts), int(number.max())))
        free = np.repeat(np.arange(num_parts), room[-1] - number)
        of_side[of_side < 0] = free[: np.sum(of_side < 0)]
        place = np.empty(len(of_side), np.int64)
        place[np.argsort(of_side, kind="stable")] = _members(np.bincount(of_side, minlength=num_parts))[1]
        places.append(place)
    users, items = (place + of_side * (sum(room) + 1) for place, of_side in zip(places, parts, strict=True))
    return TablePlaces(np.concatenate([users, items + room[0]]), (room[0], room[1]))


def _deal(sizes: np.ndarray, num_blocks: int) -> np.ndarray:
    """The block of each row, so that the blocks' sums of sizes are about equal."""
    blocks = np.zeros(len(sizes), np.int64)
    least = [(0, block) for block in range(num_blocks)]
    for row in np.argsort(-sizes, kind="stable").tolist():
        used, block = least[0]
        blocks[row] = block
        heapq.heapreplace(least, (used + int(sizes[row]), block))
    return blocks


def _fill(
    row_index, column_place, rating, places, rows, counts, segments, block, num_blocks, shape
) -> tuple[np.ndarray, ...]:
    """One side's arrays of `RatingBlocks`, block by block: `rows` with their counts, segments and blocks."""
    length, num_segments, num_places = shape
    padding = places.part_size - 1
    # Rows by block, and within a block in their order, each on consecutive segments.
    by_block = np.argsort(block, kind="stable")
    row_in_block, first_segment = np.zeros((2, len(rows)), np.int64)
    place = _members(np.bincount(block, minlength=num_blocks))[1]
    row_in_block[by_block] = place
    before = np.cumsum(segments[by_block]) - segments[by_block]
    starts = np.append(before, 0)[np.searchsorted(block[by_block], np.arange(num_blocks))]
    first_segment[by_block] = before - starts[block[by_block]] + num_segments * block[by_block]

    row = np.full((num_blocks, num_places), padding, np.int32)
    row[block, row_in_block] = places.place[rows] % places.part_size
    segment_row = np.full(num_blocks * num_segments, num_places - 1, np.int32)
    owner, nth = _members(segments)
    segment_row[first_segment[owner] + nth] = row_in_block[owner]

    owner, nth = _members(counts)
    slot = first_segment[owner] * length + nth  # a row's segments are neighbours
    order = np.argsort(row_index, kind="stable")
    column = np.full(num_blocks * num_segments * length, padding, np.int32)
    values = np.zeros(column.shape, np.float32)
    column[slot], values[slot] = column_place[order], rating[order]
    return row, *(array.reshape(num_blocks, -1) for array in (segment_row, column, values))


def _members(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For groups of these sizes laid end to end: every member's group, and its place in it."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return owner, np.arange(len(owner)) - (np.cumsum(sizes) - sizes)[owner]
