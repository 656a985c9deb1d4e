"""Columns out of CSV, TSV, JSON lines and Parquet, block by block, for files of many millions of rows.

Lines that pyarrow cuts as the line-exact reader of `rows` does are parsed by it in blocks, the others between them by
that reader: what is wrong costs its own row and is told with its line, whoever read it.

Axis letters: `n` rows of a block.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from eagle_jax.base.errors import UserError
from eagle_jax.data.bad_rows import Appendable
from eagle_jax.data.readers.blocks import ColumnBlock, FileLines, Parsed, WantedColumns, as_text_lines, read_blocks
from eagle_jax.data.readers.json_columns import LARGEST_EXACT, read_json_columns
from eagle_jax.data.readers.prepared_data import is_prepared, prepared_columns
from eagle_jax.data.rows import MOST_LINES, Delimited, RecordReader, delimiter_of, file_kind, open_bytes, read_header

_PIECE_BYTES = 1 << 22  # that pyarrow reads at once
_BLOCK_ROWS = 1 << 16  # of Parquet
_TEXT = pa.dictionary(pa.int32(), pa.string())
_BLANK_LINE = re.compile(rb"^\r?\n", re.MULTILINE)
_LONE_RETURN = re.compile(rb"\r(?!\n)")
_FIELD = rb'(?:"[^"\n]*"|[^"\n%b]*)'


def read_columns(
    path: Path,
    text: Sequence[str],
    numbers: Sequence[str],
    bad_rows: Appendable,
    layout: Sequence[str] = (),
    delimiter: str = "",
    numbers_may_be_absent: bool = False,
) -> Iterator[ColumnBlock]:
    """The columns `text` and `numbers` of .csv, .tsv, .jsonl, .json (each also .gz, .zst), .parquet, or of a folder
    that TFDS has prepared.

    `layout` are the names of the columns of a file without a header line, and without quotes where `delimiter` is
    given, too. Raises UserError for a file that is missing, unreadable, empty or lacks a column; rows that cannot be
    read go to `bad_rows`.
    """
    wanted = WantedColumns(text, numbers)
    needed = list(dict.fromkeys([*text, *(() if numbers_may_be_absent else numbers)]))
    expected = f"with the columns {', '.join(needed)}"
    kind = file_kind(path)
    if is_prepared(path):
        yield from prepared_columns(path, wanted, expected, bad_rows)
    elif kind == ".parquet":
        yield from _read_parquet(path, wanted, expected)
    elif kind in (".json", ".jsonl"):
        yield from read_json_columns(path, wanted, expected, bad_rows)
    elif kind in (".csv", ".tsv") or delimiter:
        with open_bytes(path, f"a table {expected}") as file:
            names, first_line = list(layout), 1
            if not layout:
                header = file.readline().decode("utf-8-sig", "surrogateescape")
                names = read_header(path, header, lambda found: [n for n in needed if n not in found], expected)
                first_line = 2
            wanted = WantedColumns(text, [name for name in numbers if name in names])
            columns = Delimited(len(names), delimiter or delimiter_of(path), not delimiter)
            yield from _Table(path, names, columns, wanted, bad_rows).blocks(file, first_line)
    else:
        raise UserError(
            f"{path}: unknown kind of file; expected .csv, .tsv, .jsonl or .json (or one of them with .gz or .zst) "
            f"or .parquet, {expected}"
        )


class _Table(NamedTuple):
    """Delimited text."""

    path: Path
    names: Sequence[str]
    layout: Delimited
    wanted: WantedColumns
    bad_rows: Appendable

    def blocks(self, file: BinaryIO, line: int) -> Iterator[ColumnBlock]:
        """All rows of the file from where it is, `line` being the number of the next one."""
        return read_blocks(FileLines(file), line, self.wanted, self._parse, self._read_exactly, self._plain_bytes)

    def _plain_bytes(self, block: bytes) -> int:
        """How many at the beginning are whole lines, each of them a record, that pyarrow cuts into fields as the exact
        reader does."""
        delimiter = self.layout.delimiter.encode()
        end = len(block)
        lone = _LONE_RETURN.search(block) if b"\r" in block else None
        if lone:
            end = block.rfind(b"\n", 0, lone.start()) + 1
        if len(delimiter) > 1 and (at := block.find(b"\x1f", 0, end)) >= 0:
            end = block.rfind(b"\n", 0, at) + 1
        if self.layout.has_quotes and (at := block.find(b'"', 0, end)) >= 0:
            field = _FIELD % re.escape(delimiter)
            row = rb"%b(?:%b%b)*+\r?" % (field, re.escape(delimiter), field)
            begin = block.rfind(b"\n", 0, at) + 1
            end = re.compile(rb"(?:%b\n)*+(?:%b\Z)?" % (row, row)).match(block, begin, end).end()
        return end

    def _parse(self, block: bytes) -> Parsed | None:
        """By pyarrow, without blank lines and those that are not UTF-8; None where it does not read all others."""
        whole, num_lines = block, block.count(b"\n") + (not block.endswith(b"\n"))
        kept, odd = np.arange(num_lines), _odd_lines(block)
        if len(odd):
            ends = np.append(np.flatnonzero(np.frombuffer(whole, np.uint8) == ord("\n")) + 1, len(whole))
            pieces = zip([0, *ends[odd]], [*np.append(0, ends)[odd], len(whole)], strict=True)
            block, kept = b"".join(whole[start:end] for start, end in pieces), np.delete(kept, odd)
        delimiter = self.layout.delimiter.encode()
        if len(delimiter) > 1:
            block, delimiter = block.replace(delimiter, b"\x1f"), b"\x1f"
        text, numbers = self.wanted
        for number_type in (pa.float64(), pa.string()) if numbers else (None,):
            types = {**dict.fromkeys(numbers, number_type), **dict.fromkeys(text, _TEXT)}
            table, left_out = self._read_csv(block, delimiter, types)
            if table is None:
                continue
            columns = table.unify_dictionaries().combine_chunks()
            columns = {name: columns[name].chunk(0) for name in types}
            if table.num_rows + len(left_out) != len(kept):
                return None
            left_out_lines = np.sort(np.append(kept[left_out], odd)).tolist()
            return Parsed(columns, np.delete(kept, left_out), left_out_lines, num_lines)
        return None

    def _read_csv(
        self, block: bytes, delimiter: bytes, types: Mapping[str, pa.DataType]
    ) -> tuple[pa.Table | None, list[int]]:
        """The columns `types`, and which lines have another number of fields than the table has; None for other faults.

        Only where lines are to be left out they are read one after the other, as pyarrow counts them then.
        """
        # Other columns may be called what pyarrow cannot.
        names = [name if name in types else f"\0{place}" for place, name in enumerate(self.names)]
        left_out: list[int] = []

        def leave_out(row: csv.InvalidRow) -> str:
            left_out.append(row.number - 1)
            return "skip"

        for handler in (None, leave_out):
            try:
                table = csv.read_csv(
                    pa.BufferReader(block),
                    csv.ReadOptions(column_names=names, block_size=_PIECE_BYTES, use_threads=handler is None),
                    csv.ParseOptions(
                        delimiter=delimiter.decode(),
                        quote_char='"' if self.layout.has_quotes else False,
                        ignore_empty_lines=False,
                        invalid_row_handler=handler,
                    ),
                    csv.ConvertOptions(include_columns=list(types), column_types=types, null_values=[""]),
                )
            except pa.ArrowInvalid as error:
                if handler or "Expected" not in str(error):
                    break
            else:
                return (table, left_out) if table.num_rows else (None, [])
        return None, []

    def _may_go_on(self, line: str, lines: FileLines) -> bool:
        """False where the record of a line surely ends with it: a stray quote would have the exact reader look for its
        end in thousands of lines, one by one."""
        if not self.layout.has_quotes or line.count('"') % 2 == 0:
            return False
        ahead, is_all = lines.ahead()
        at = ahead.find(b'"')
        if at < 0:
            return not is_all and ahead.count(b"\n") < MOST_LINES
        if ahead.count(b"\n", 0, at) >= MOST_LINES:
            return False
        rest = ahead[: ahead.find(b"\n", at) + 1 or len(ahead)]
        if rest.count(b'"') % 2 == 0 or b"\r" in rest:
            return True
        return len(self.layout.fields(line + rest.decode("utf-8", "surrogateescape")) or ()) == self.layout.width

    def _read_exactly(self, block: bytes, lines: FileLines, line: int) -> tuple[ColumnBlock, int]:
        """The block by lines, with those beyond it that a quoted field at its end reaches into.

        Also the number of the line after it; what has been read beyond it is put back.
        """
        own = list(as_text_lines(block))
        more = lines if len(own) > 1 or self._may_go_on(own[0], lines) else ()
        records = RecordReader(itertools.chain(own, more), self.layout, line)
        rows = list(records.good(self.path, self.bad_rows, last_line=line + len(own) - 1))
        lines.put_back("".join(records.ahead).encode("utf-8", "surrogateescape"))
        places = {name: place for place, name in enumerate(self.names)}
        found = self.wanted.block_of_cells(
            [number for number, _, _ in rows],
            lambda name: [fields[places[name]] for _, fields, _ in rows],
            [shown for _, _, shown in rows],
        )
        return found, records.next_line


def _odd_lines(block: bytes) -> np.ndarray:
    """Numbers of the lines that are blank or not UTF-8, from 0."""
    odd = [match.start() for match in _BLANK_LINE.finditer(block)] if _has_blank(block) else []
    view, at = memoryview(block), len(block) if block.isascii() else 0
    while at < len(block):
        try:
            str(view[at:], "utf-8")
            break
        except UnicodeDecodeError as error:
            odd.append(at + error.start)
            at = block.find(b"\n", odd[-1]) + 1 or len(block)
    if not odd:
        return np.zeros(0, int)
    return np.searchsorted(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")), np.sort(odd))


def _has_blank(block: bytes) -> bool:
    return block.startswith((b"\n", b"\r\n")) or b"\n\n" in block or b"\n\r\n" in block


def _read_parquet(path: Path, wanted: WantedColumns, expected: str) -> Iterator[ColumnBlock]:
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
        if np.abs(whole).max(initial=0) >= LARGEST_EXACT:
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
