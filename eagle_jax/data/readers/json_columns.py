"""Columns out of JSON lines, block by block.

Axis letters: `n` rows of a block.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import json as arrow_json

from eagle_jax.base.errors import UserError
from eagle_jax.data.bad_rows import Appendable, bad_row
from eagle_jax.data.readers.blocks import ColumnBlock, FileLines, Parsed, WantedColumns, as_text_lines, read_blocks
from eagle_jax.data.rows import cell_text, json_rows, open_bytes

LARGEST_EXACT = 2**53  # float64 has no odd numbers above it
_TYPES = {int: pa.int64(), float: pa.float64()}  # of the first line's value; others are read as text


def read_json_columns(path: Path, wanted: WantedColumns, expected: str, bad_rows: Appendable) -> Iterator[ColumnBlock]:
    """A field that no line has is an error."""
    rows = _JsonLines(path, wanted, bad_rows)
    with open_bytes(path, f"lines of JSON objects {expected}") as file:
        if file.peek(3).startswith(codecs.BOM_UTF8):
            file.read(3)
        yield from read_blocks(FileLines(file), 1, wanted, rows.parse, rows.read_exactly)
    if missing := [name for name in rows.names if name not in rows.seen]:
        raise UserError(f"{path}: no line has the field {', '.join(missing)}; expected lines of JSON {expected}")


class _JsonLines:
    """Lines of JSON objects; a field that a line lacks is empty there."""

    def __init__(self, path: Path, wanted: WantedColumns, bad_rows: Appendable):
        self._path, self._wanted, self._bad_rows = path, wanted, bad_rows
        self.names = list(dict.fromkeys([*wanted.text, *wanted.numbers]))
        self.seen: set[str] = set()  # fields that some line has

    def parse(self, block: bytes) -> Parsed | None:
        """By pyarrow; None where it would not read the block as the exact reader does."""
        num_lines = block.count(b"\n") + (not block.endswith(b"\n"))
        is_plain = block.startswith(b"{") and block.count(b"}\n{") + block.count(b"}\r\n{") == num_lines - 1
        if not is_plain or block.count(b"\r") != block.count(b"\r\n"):
            return None
        try:
            block.decode()
            first = json.loads(block[: block.find(b"\n") + 1] or block)
        except (ValueError, RecursionError):
            return None
        types = {name: _TYPES.get(type(first.get(name)), pa.string()) for name in self.names}
        for integer in (pa.int64(), pa.float64()):
            tried = {name: integer if type_ == pa.int64() else type_ for name, type_ in types.items()}
            try:
                table = arrow_json.read_json(
                    pa.BufferReader(block),
                    arrow_json.ReadOptions(block_size=2 * len(block) + 1024),  # in one piece: a row is not cut
                    arrow_json.ParseOptions(
                        explicit_schema=pa.schema(tried.items()), unexpected_field_behavior="ignore"
                    ),
                )
            except pa.ArrowInvalid:
                continue
            columns = {name: table[name].combine_chunks() for name in self.names}
            # A field of nulls alone may be one that the lines have, or not.
            if table.num_rows != num_lines or any(len(c) == c.null_count for c in columns.values()):
                return None
            columns = {name: self._as_wanted(name, column) for name, column in columns.items()}
            if any(column is None for column in columns.values()):
                return None
            self.seen.update(self.names)
            return Parsed(columns, np.arange(num_lines), (), num_lines)
        return None

    def _as_wanted(self, name: str, column: pa.Array) -> pa.Array | None:
        """The column as the exact reader has it; None where its numbers are not exact."""
        if pa.types.is_floating(column.type):
            values = column.fill_null(0).to_numpy(zero_copy_only=False)
            if not np.isfinite(values).all() or np.abs(values).max(initial=0) >= LARGEST_EXACT:
                return None
            if name not in self._wanted.text:
                return column
            coded = column.dictionary_encode()
            texts = pa.array([json_cell(value, name) for value in coded.dictionary.to_pylist()], pa.string())
            column = pa.DictionaryArray.from_arrays(coded.indices, texts).dictionary_decode()
        elif pa.types.is_integer(column.type):
            if name not in self._wanted.text:
                return column.cast(pa.float64(), safe=False)
            column = column.cast(pa.string())
        return column.fill_null("")

    def read_exactly(self, block: bytes, _: FileLines, line: int) -> tuple[ColumnBlock, int]:
        """The block by lines, and the number of the line after it."""
        lines = list(as_text_lines(block))
        kept = []
        for row in json_rows(self._path, lines, line, self._absent, self._bad_rows):
            try:
                kept.append((row, {name: json_cell(row.values.get(name), name) for name in self.names}))
            except ValueError as error:
                self._bad_rows.append(bad_row(self._path, row.line, str(error), row.text))
        found = self._wanted.block_of_cells(
            [row.line for row, _ in kept],
            lambda name: [cells[name] for _, cells in kept],
            [row.text for row, _ in kept],
        )
        return found, line + len(lines)

    def _absent(self, found: Collection[str]) -> Sequence[str]:
        self.seen.update(name for name in self.names if name in found)
        return ()


def json_cell(value: object, name: str) -> str:
    """The cell as text; ValueError for what is no single value."""
    if isinstance(value, (dict, list)):
        raise ValueError(f"no single value: {name} is {value!r:.40}")
    if isinstance(value, float) and value.is_integer():
        if abs(value) >= LARGEST_EXACT:
            raise ValueError(f"floating-point number above 2^53, which is not exact: {name} is {value}")
        return str(int(value))
    return cell_text(value, name)
