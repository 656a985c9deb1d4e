"""Columns out of CSV, TSV, JSON lines and Parquet, block by block, for files of many millions of rows.

A block of text whose quoting is plain and whose rows are whole is parsed by pyarrow, any other one by the line-exact
reader of `rows`: what is wrong costs its own row and is told with its line, whoever read it.

Axis letters: `n` rows of a block.
"""

from __future__ import annotations

import io
import itertools
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from eagle_jax.base.errors import UserError
from eagle_jax.data.bad_rows import Appendable, bad_row
from eagle_jax.data.rows import (
    Delimited,
    RecordReader,
    cell_text,
    delimiter_of,
    file_kind,
    open_bytes,
    read_header,
    read_json_lines,
)

_BLOCK_BYTES, _LEAST_BYTES = 1 << 24, 1 << 14  # a block that pyarrow does not read is cut down before lines are
_BLOCK_ROWS = 1 << 16  # of JSON lines and Parquet
_TEXT = pa.dictionary(pa.int32(), pa.string())
_LARGEST_EXACT = 2**53  # float64 has no odd numbers above it
_BLANK_LINE = re.compile(rb"^\r?\n", re.MULTILINE)
_FIELD = rb'(?:"[^"\n]*"|[^"\n%b]*)'


class ColumnBlock(NamedTuple):
    """Some rows: where each starts [n], its columns as text [n], numbers [n] of `numbers`, and its text."""

    line: np.ndarray  # int32
    text: Mapping[str, pa.DictionaryArray]
    numbers: Mapping[str, pa.Array]  # float64 with null for "", or text where a value is no plain number
    row: Callable[[int], str]


def read_columns(
    path: Path,
    text: Sequence[str],
    numbers: Sequence[str],
    bad_rows: Appendable,
    layout: Sequence[str] = (),
    delimiter: str = "",
    numbers_may_be_absent: bool = False,
) -> Iterator[ColumnBlock]:
    """The columns `text` and `numbers` of .csv, .tsv, .jsonl, .json (each also .gz, .zst) or .parquet.

    `layout` are the names of the columns of a file without a header line, and without quotes where `delimiter` is
    given, too. Raises UserError for a file that is missing, unreadable, empty or lacks a column; rows that cannot be
    read go to `bad_rows`.
    """
    wanted = _Wanted(text, numbers)
    needed = list(dict.fromkeys([*text, *(() if numbers_may_be_absent else numbers)]))
    expected = f"with the columns {', '.join(needed)}"
    kind = file_kind(path)
    if kind == ".parquet":
        yield from _read_parquet(path, wanted, expected)
    elif kind in (".json", ".jsonl"):
        yield from _read_json(path, wanted, expected, bad_rows)
    elif kind in (".csv", ".tsv") or delimiter:
        with open_bytes(path, f"a table {expected}") as file:
            names, first_line = list(layout), 1
            if not layout:
                header = file.readline().decode("utf-8-sig", "surrogateescape")
                names = read_header(path, header, lambda found: [n for n in needed if n not in found], expected)
                first_line = 2
            wanted = _Wanted(text, [name for name in numbers if name in names])
            columns = Delimited(len(names), delimiter or delimiter_of(path), not delimiter)
            yield from _Table(path, names, columns, wanted, bad_rows).blocks(file, first_line)
    else:
        raise UserError(
            f"{path}: unknown kind of file; expected .csv, .tsv, .jsonl or .json (or one of them with .gz or .zst) "
            f"or .parquet, {expected}"
        )


class _Wanted(NamedTuple):
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


class _Lines:
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
            self._pieces.extend(_as_text(line))
            while self._pieces:
                yield self._pieces.popleft()

    def put_back(self, block: bytes) -> None:
        """Before what is left; nothing that was begun with is lost."""
        pieces = "".join(self._pieces).encode("utf-8", "surrogateescape")
        self._pieces.clear()
        self._left = io.BytesIO(block + pieces + self._left.read())


def _as_text(block: bytes) -> Iterator[str]:
    return iter(io.StringIO(block.decode("utf-8", "surrogateescape"), newline=""))


class _Table(NamedTuple):
    """Delimited text."""

    path: Path
    names: Sequence[str]
    layout: Delimited
    wanted: _Wanted
    bad_rows: Appendable

    def blocks(self, file: BinaryIO, line: int) -> Iterator[ColumnBlock]:
        """All rows of the file from where it is, `line` being the number of the next one."""
        lines, size = _Lines(file), _BLOCK_BYTES
        while block := lines.block(size):
            columns = self._parse(block)
            if columns is not None:
                num_rows = len(next(iter(columns.values())))
                yield self.wanted.block(np.arange(line, line + num_rows), columns, _row_of(block))
                line += num_rows
                size = min(4 * size, _BLOCK_BYTES)
            elif len(block) > _LEAST_BYTES and size > _LEAST_BYTES:
                lines.put_back(block)
                size = max(size // 16, _LEAST_BYTES)
            else:
                found, line = self._read_exactly(block, lines, line)
                yield found

    def _parse(self, block: bytes) -> dict[str, pa.Array] | None:
        """By pyarrow; None where it would not read the block as the exact reader does."""
        delimiter = self.layout.delimiter.encode()
        if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
            return None
        if self.layout.has_quotes and b'"' in block:
            field = _FIELD % re.escape(delimiter)
            row = rb"%b(?:%b%b)*+\r?" % (field, re.escape(delimiter), field)
            if not re.fullmatch(rb"(?:%b\n)*+(?:%b)?" % (row, row), block):
                return None
        if len(delimiter) > 1:
            if b"\x1f" in block:
                return None
            block, delimiter = block.replace(delimiter, b"\x1f"), b"\x1f"
        if not block.isascii():
            try:
                block.decode()
            except UnicodeDecodeError:
                return None
        text, numbers = self.wanted
        for number_type in (pa.float64(), pa.string()) if numbers else (None,):
            types = {**dict.fromkeys(numbers, number_type), **dict.fromkeys(text, _TEXT)}
            # Other columns may be called what pyarrow cannot.
            names = [name if name in types else f"\0{place}" for place, name in enumerate(self.names)]
            try:
                table = csv.read_csv(
                    pa.BufferReader(block),
                    csv.ReadOptions(column_names=names, block_size=_BLOCK_BYTES // 4),
                    csv.ParseOptions(
                        delimiter=delimiter.decode(),
                        quote_char='"' if self.layout.has_quotes else False,
                        ignore_empty_lines=False,
                    ),
                    csv.ConvertOptions(include_columns=list(types), column_types=types, null_values=[""]),
                )
            except pa.ArrowInvalid:
                continue
            is_whole = table.num_rows == block.count(b"\n") + (not block.endswith(b"\n"))
            columns = table.unify_dictionaries().combine_chunks()
            columns = {name: columns[name].chunk(0) for name in types}
            # A blank line, which is no row, would be one of empty fields.
            is_blank = "" in columns[text[0]].dictionary.to_pylist() and _BLANK_LINE.search(block)
            return columns if is_whole and not is_blank else None
        return None

    def _read_exactly(self, block: bytes, lines: _Lines, line: int) -> tuple[ColumnBlock, int]:
        """The block by lines, with those beyond it that a quoted field at its end reaches into.

        Also the number of the line after it; what has been read beyond it is put back.
        """
        own = list(_as_text(block))
        records = RecordReader(itertools.chain(own, lines), self.layout, line)
        rows = list(records.good(self.path, self.bad_rows, last_line=line + len(own) - 1))
        lines.put_back("".join(records.ahead).encode("utf-8", "surrogateescape"))
        places = {name: place for place, name in enumerate(self.names)}
        found = self.wanted.block_of_cells(
            [number for number, _, _ in rows],
            lambda name: [fields[places[name]] for _, fields, _ in rows],
            [shown for _, _, shown in rows],
        )
        return found, records.next_line


def _row_of(block: bytes) -> Callable[[int], str]:
    """The text of a line of the block by its place; where lines end is looked up when one is asked for."""
    ends: list[int] = []

    def row(i: int) -> str:
        if not ends:
            ends.extend([*np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")), len(block)])
        return block[ends[i - 1] + 1 if i else 0 : ends[i]].decode()

    return row


def _read_json(path: Path, wanted: _Wanted, expected: str, bad_rows: Appendable) -> Iterator[ColumnBlock]:
    """A field that a line lacks is empty there; one that no line has is an error."""
    names = list(dict.fromkeys([*wanted.text, *wanted.numbers]))
    seen: set[str] = set()

    def absent(found: Collection[str]) -> Sequence[str]:
        seen.update(name for name in names if name in found)
        return ()

    rows = read_json_lines(path, absent, expected, bad_rows)
    while block := list(itertools.islice(rows, _BLOCK_ROWS)):
        kept = []
        for row in block:
            try:
                kept.append((row, {name: json_cell(row.values.get(name), name) for name in names}))
            except ValueError as error:
                bad_rows.append(bad_row(path, row.line, str(error), row.text))
        yield wanted.block_of_cells(
            [row.line for row, _ in kept],
            lambda name, kept=kept: [cells[name] for _, cells in kept],
            [row.text for row, _ in kept],
        )
    if missing := [name for name in names if name not in seen]:
        raise UserError(f"{path}: no line has the field {', '.join(missing)}; expected lines of JSON {expected}")


def json_cell(value: object, name: str) -> str:
    """The cell as text; ValueError for what is no single value."""
    if isinstance(value, (dict, list)):
        raise ValueError(f"no single value: {name} is {value!r:.40}")
    if isinstance(value, float) and value.is_integer():
        if abs(value) >= _LARGEST_EXACT:
            raise ValueError(f"floating-point number above 2^53, which is not exact: {name} is {value}")
        return str(int(value))
    return cell_text(value, name)


def _read_parquet(path: Path, wanted: _Wanted, expected: str) -> Iterator[ColumnBlock]:
    names = list(dict.fromkeys([*wanted.text, *wanted.numbers]))
    num_read = 0
    try:
        with parquet.ParquetFile(path) as file:
            there = file.schema_arrow.names
            if missing := [name for name in names if name not in there]:
                raise UserError(f"{path}: no column {', '.join(missing)}; it has: {', '.join(there)}")
            for batch in file.iter_batches(batch_size=_BLOCK_ROWS, columns=names):
                cells = {name: _parquet_numbers(path, batch[name], name) for name in wanted.numbers}
                cells |= {name: parquet_text(path, batch[name], name) for name in wanted.text}
                yield wanted.block(
                    np.arange(num_read + 1, num_read + 1 + len(batch)),
                    cells,
                    lambda i, cells=cells: ",".join(str(cells[name][i].as_py()) for name in names),
                )
                num_read += len(batch)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: cannot be read after {num_read} rows ({error}); expected a Parquet file {expected}"
        ) from error


def parquet_text(path: Path, column: pa.Array, name: str) -> pa.Array:
    """The column as text, "" for null; a whole floating-point number as an integer.

    Raises UserError for what has no text, and for floating-point numbers from 2^53, which are no longer exact.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        text = column.cast(pa.string()).fill_null("")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{path}: column {name} holds {column.type}; expected text or numbers") from error
    if pa.types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False).astype(np.float64)
        is_whole = np.isfinite(values) & (values == np.floor(values))
        whole = np.where(is_whole, values, 0)
        if np.abs(whole).max(initial=0) >= _LARGEST_EXACT:
            raise UserError(
                f"{path}: column {name} has floating-point numbers above 2^53, which are not exact: "
                "store them as integers or as text"
            )
        return pc.if_else(pa.array(is_whole), pa.array(whole.astype(np.int64)).cast(pa.string()), text)
    return text


def _parquet_numbers(path: Path, column: pa.Array, name: str) -> pa.Array:
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return column.cast(pa.float64(), safe=False)
    return parquet_text(path, column, name)
