"""Blocks of a text file: parsed in one piece where they are plain, line by line where they are not.

Axis letters: `n` rows of a block.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

_BLOCK_BYTES, _LEAST_BYTES = 1 << 24, 1 << 14  # a block that is not parsed is cut down before lines are
_ODD_BYTES = 1 << 20  # of the block after a line that had to be read by itself: what is put back is copied


class ColumnBlock(NamedTuple):
    """Some rows: where each starts [n], its columns as text [n], numbers [n] of `numbers`, and its text."""

    line: np.ndarray  # int32
    text: Mapping[str, pa.DictionaryArray]
    numbers: Mapping[str, pa.Array]  # float64 with null for "", or text where a value is no plain number
    row: Callable[[int], str]


class WantedColumns(NamedTuple):
    """Columns by name: as text, and as numbers where they are such."""

    text: Sequence[str]
    numbers: Sequence[str]

    def block(
        self, line: Sequence[int] | np.ndarray, columns: Mapping[str, pa.Array], row: Callable[[int], str]
    ) -> ColumnBlock:
        """Of columns that are text or numbers already."""
        text = {name: columns[name] for name in self.text}
        for name, column in text.items():
            text[name] = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        return ColumnBlock(np.asarray(line, np.int32), text, {name: columns[name] for name in self.numbers}, row)

    def block_of_cells(
        self, line: Sequence[int], cells: Callable[[str], Sequence[str]], rows: Sequence[str]
    ) -> ColumnBlock:
        """Of texts, `cells(name)` being those of a column."""
        columns = {name: pa.array(cells(name), pa.string()) for name in {*self.text, *self.numbers}}
        return self.block(line, columns, rows.__getitem__)


class FileLines:
    """Bytes of a file, by blocks of whole lines and by lines, that can be put back."""

    def __init__(self, file: BinaryIO):
        self._file, self._left = file, io.BytesIO()
        self._pieces: deque[str] = deque()  # of a line that Python's text files end more often

    def block(self, size: int) -> bytes:
        """About `size` bytes up to the end of a line; b"" at the file's end."""
        block = self._left.read(size)
        block += self._left.readline() if len(block) == size else self._file.read(size - len(block))
        return block if block.endswith(b"\n") or not block else block + self._left.readline() + self._file.readline()

    def __iter__(self) -> Iterator[str]:
        """Lines, which end where Python's text files end them."""
        while line := self._left.readline() or self._file.readline():
            if b"\r" not in line:
                yield line.decode("utf-8", "surrogateescape")
                continue
            self._pieces.extend(as_text_lines(line))
            while self._pieces:
                yield self._pieces.popleft()

    def ahead(self) -> tuple[bytes, bool]:
        """Some of the next lines, and whether they are all."""
        ahead = self.block(_ODD_BYTES)
        self.put_back(ahead)
        return ahead, len(ahead) < _ODD_BYTES

    def put_back(self, block: bytes) -> None:
        """Before what is left; nothing that was begun with is lost."""
        pieces = "".join(self._pieces).encode("utf-8", "surrogateescape")
        self._pieces.clear()
        self._left = io.BytesIO(block + pieces + self._left.read())


def as_text_lines(block: bytes) -> Iterator[str]:
    return iter(io.StringIO(block.decode("utf-8", "surrogateescape"), newline=""))


class Parsed(NamedTuple):
    """A block that was parsed in one piece."""

    columns: Mapping[str, pa.Array]
    place: np.ndarray  # [n] the line of each row, from 0
    left_out: Sequence[int]  # lines that are no rows
    num_lines: int


def read_blocks(
    lines: FileLines,
    line: int,
    wanted: WantedColumns,
    parse: Callable[[bytes], Parsed | None],
    read_exactly: Callable[[bytes, FileLines, int], tuple[ColumnBlock, int]],
    plain_bytes: Callable[[bytes], int] = len,
) -> Iterator[ColumnBlock]:
    """All rows: blocks by `parse`, and those for which it has None, cut down before, and the lines that it leaves out
    by `read_exactly`; so is the line after the `plain_bytes` that a block begins with, which may go on in others."""
    size = _BLOCK_BYTES
    while block := lines.block(size):
        plain = plain_bytes(block)
        if plain < len(block):
            end = plain or block.find(b"\n") + 1 or len(block)
            lines.put_back(block[end:])
            block, size = block[:end], min(size, _ODD_BYTES)
            if not plain:
                found, line = read_exactly(block, lines, line)
                if len(found.line):
                    yield found
                continue
        parsed = parse(block)
        if parsed is not None:
            row = _row_of(block)
            for place in parsed.left_out:
                found, _ = read_exactly(f"{row(place)}\n".encode("utf-8", "surrogateescape"), lines, line + place)
                if len(found.line):
                    yield found
            yield wanted.block(
                line + parsed.place, parsed.columns, lambda i, row=row, places=parsed.place: row(int(places[i]))
            )
            line += parsed.num_lines
            size = min(4 * size, _BLOCK_BYTES)
        elif len(block) > _LEAST_BYTES and size > _LEAST_BYTES:
            lines.put_back(block)
            size = max(size // 16, _LEAST_BYTES)
        else:
            found, line = read_exactly(block, lines, line)
            yield found


def _row_of(block: bytes) -> Callable[[int], str]:
    """The text of a line of the block by its place; where lines end is looked up when one is asked for."""
    ends: list[int] = []

    def row(i: int) -> str:
        if not ends:
            ends.extend([*np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")), len(block)])
        return block[ends[i - 1] + 1 if i else 0 : ends[i]].decode("utf-8", "surrogateescape")

    return row
