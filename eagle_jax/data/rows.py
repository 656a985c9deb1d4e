"""Rows out of CSV, TSV, JSON lines and Parquet; a bad row is counted and listed, never silently dropped.

A row that cannot be read costs itself alone: it goes to `bad_rows` with its file and line.
"""

import contextlib
import csv
import gzip
import io
import itertools
import json
import zlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

from eagle_jax.base.errors import UserError, visible
from eagle_jax.data.bad_rows import TEXT_SHOWN, Appendable, bad_row

# Names of a header or a row -> those that it lacks.
Absent = Callable[[Collection[str]], Sequence[str]]

MOST_LINES = 10_000  # of one record; a quote that is open for longer is a stray one
_COMPRESSED = (".gz", ".zst")


class FileRow(NamedTuple):
    """One record: where it starts, its values by name, and its text as it stands."""

    line: int
    values: Mapping[str, Any]
    text: str


def file_kind(path: Path) -> str:
    """The ending that says how a file is written, that of compression aside: .csv of x.csv.gz."""
    return (path.with_suffix("") if path.suffix in _COMPRESSED else path).suffix


def delimiter_of(path: Path) -> str:
    """Of a table as text: a tab where the file is named .tsv, else a comma."""
    return "\t" if file_kind(path) == ".tsv" else ","


@contextlib.contextmanager
def open_bytes(path: Path, expected: str) -> Iterator[BinaryIO]:
    """A file to read, unpacked if its name ends with .gz or .zst.

    Raises UserError, also while it is read, when the file is missing or unreadable, is not packed
    although its name says so, or is cut or damaged.
    """
    try:
        with _unpacked(path) as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({why}); expected {expected}") from error


def _unpacked(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))
    return open(path, "rb")


@contextlib.contextmanager
def _open_text(path: Path, expected: str, encoding: str = "utf-8-sig") -> Iterator[TextIO]:
    """The text of `open_bytes`; a byte order mark is left out.

    Line ends stay as they are, bytes that are not UTF-8 are read as surrogates.
    """
    with open_bytes(path, expected) as file:
        yield io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")


def read_row_file(path: Path, absent: Absent, expected: str, bad_rows: Appendable) -> Iterator[FileRow]:
    """Rows of .csv, .tsv, .jsonl or .json (JSON lines, too), each also .gz or .zst, or .parquet.

    Blank lines of text hold no row. A line that is not UTF-8, is no JSON object or lacks a field
    goes to `bad_rows`. A row's line is that of its file, of Parquet its number from 1. Raises
    UserError for another ending, a file that cannot be read, and a table that lacks a column;
    `expected` ("with the fields ...") says in such an error what the file should have.
    """
    kind = file_kind(path)
    if kind in (".csv", ".tsv"):
        return _read_csv(path, absent, expected, bad_rows)
    if kind in (".jsonl", ".json"):
        return read_json_lines(path, absent, expected, bad_rows)
    if path.suffix == ".parquet":
        return _read_parquet(path, absent, expected)
    raise UserError(
        f"{path}: unknown kind of file; expected .jsonl, .json, .csv or .tsv (or one of them with .gz or .zst) "
        f"or .parquet, {expected}"
    )


def read_rows(path: Path, required: Sequence[str], optional: Sequence[str], bad_rows: Appendable) -> Iterator[FileRow]:
    """Records of a CSV file (or .csv.gz): the columns asked for, stripped.

    An optional column that is absent reads "". Raises UserError, also when a required column is
    absent.
    """
    rows = _read_csv(
        path,
        lambda header: [name for name in required if name not in header],
        f"with the columns {', '.join(required)}",
        bad_rows,
    )
    for row in rows:
        values = {name: row.values.get(name, "").strip() for name in (*required, *optional)}
        yield row._replace(values=values)


def cell_text(value: Any, name: str) -> str:
    """A cell as text: "" for null and NaN, a list's cells joined by ", ", truth as JSON has it.

    Raises ValueError for characters that are not Unicode.
    """
    if value is None or value != value:
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, (cell_text(cell, name) for cell in value)))
    if isinstance(value, bool):
        return str(value).lower()
    return text_value({name: str(value)}, name).strip()


def text_value(values: Mapping[str, Any], name: str) -> str:
    """The text of a field, as it stands; ValueError if it is none or cannot be encoded as UTF-8."""
    text = values[name]
    if not isinstance(text, str):
        raise ValueError(f"no text: {name} is {text!r:.40}")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # undecodable bytes, or half of an escaped pair
        raise ValueError(f"characters that are not Unicode: {name}, {error.reason}") from error
    return text


def read_header(path: Path, line: str, absent: Absent, expected: str) -> list[str]:
    """The names of a header line; raises UserError where it is empty, lacks or repeats a column."""
    delimiter = delimiter_of(path)
    header = [name.strip() for name in _fields(line, delimiter) or ()]
    if not any(header):
        raise UserError(f"{path}: empty; expected a header line {expected}")
    found = visible(", ".join(header))[:TEXT_SHOWN]
    if missing := absent(header):
        raise UserError(
            f"{path}: line 1: no column {', '.join(missing)}; the header (UTF-8, separated by "
            f"{'tabs' if delimiter == chr(9) else 'commas'}) must name it, and it has: {found}"
        )
    if repeated := [name for name, count in Counter(header).items() if name and count > 1]:
        raise UserError(f"{path}: line 1: column repeated: {', '.join(repeated)} in {found}")
    return header


def _read_csv(path: Path, absent: Absent, expected: str, bad_rows: Appendable) -> Iterator[FileRow]:
    """Records of a UTF-8 file with a header line, by the header's names.

    A byte order mark, CRLF and quoted line breaks are fine, blank lines hold no record. Undecodable
    bytes, bad quoting and a wrong number of fields go to `bad_rows`; reading resumes on the line
    after the one where the bad record starts, so a stray quote costs one row. `absent` tells which
    columns a header lacks, `expected` which it should have ("with the columns ..."). Raises
    UserError when the file is missing, unreadable, empty, or lacks a column.
    """
    with _open_text(path, f"a CSV file {expected}") as file:
        header = read_header(path, file.readline(), absent, expected)
        layout = Delimited(len(header), delimiter_of(path))
        for line, fields, text in RecordReader(file, layout, 2).good(path, bad_rows):
            yield FileRow(line, dict(zip(header, fields, strict=True)), text)


class Delimited(NamedTuple):
    """How lines of text are fields: how many, between which characters, and whether quotes count."""

    width: int
    delimiter: str = ","
    has_quotes: bool = True

    def fields(self, text: str) -> list[str] | None:
        """Fields of one record; None if its quoting is bad."""
        if not self.has_quotes:
            return text.rstrip("\r\n").split(self.delimiter)
        return _fields(text, self.delimiter)


class RecordReader:
    """Records of delimited text, lines inside quotes joined if that fits.

    `ahead` are lines that were read and belong to no record yet.
    """

    def __init__(self, lines: Iterator[str], layout: Delimited, first_line: int):
        self._lines, self._layout, self.next_line = lines, layout, first_line
        self.ahead: deque[str] = deque()

    def good(
        self, path: Path, bad_rows: Appendable, last_line: float = float("inf")
    ) -> Iterator[tuple[int, list[str], str]]:
        """(first line number, fields, text) of every record that begins at `last_line` or before."""
        for line, text in self._joined(last_line):
            fields = self._layout.fields(text)
            if fields is None:
                bad_rows.append(bad_row(path, line, "bad quoting", text))
            elif len(fields) != self._layout.width:
                reason = f"expected {self._layout.width} fields, found {len(fields)}"
                bad_rows.append(bad_row(path, line, reason, text))
            elif not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text):
                bad_rows.append(bad_row(path, line, "bytes that are not UTF-8", text))
            else:
                yield line, fields, text

    def _joined(self, last_line: float) -> Iterator[tuple[int, str]]:
        while self.next_line <= last_line and self._read_ahead(1):
            num_lines = 1
            open_quote = self._layout.has_quotes and self.ahead[0].count('"') % 2
            while open_quote and num_lines < MOST_LINES and self._read_ahead(num_lines + 1):
                open_quote ^= self.ahead[num_lines].count('"') % 2
                num_lines += 1
            text = "".join(itertools.islice(self.ahead, num_lines))
            if num_lines > 1 and len(self._layout.fields(text) or ()) != self._layout.width:
                num_lines = 1
                text = self.ahead[0]
            for _ in range(num_lines):
                self.ahead.popleft()
            line = self.next_line
            self.next_line += num_lines
            if text.strip():
                yield line, text

    def _read_ahead(self, num_lines: int) -> bool:
        """Have at least `num_lines` lines in `ahead`, if there are so many."""
        self.ahead.extend(itertools.islice(self._lines, max(0, num_lines - len(self.ahead))))
        return len(self.ahead) >= num_lines


def _fields(text: str, delimiter: str) -> list[str] | None:
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return None


def read_separated(
    path: Path, names: Sequence[str], delimiter: str, bad_rows: Appendable, encoding: str = "utf-8"
) -> Iterator[FileRow]:
    """Rows of a file without header and quotes, `names` given: MovieLens' 1::Toy Story (1995)::Animation."""
    with _open_text(path, f"{delimiter.join(names)}", encoding) as file:
        for line, fields, text in RecordReader(file, Delimited(len(names), delimiter, False), 1).good(path, bad_rows):
            yield FileRow(line, dict(zip(names, fields, strict=True)), text)


def read_json_lines(
    path: Path, absent: Absent, expected: str, bad_rows: Appendable, parse: Callable[[str], Any] = json.loads
) -> Iterator[FileRow]:
    """One object a line, read by `parse`, which raises ValueError; see `read_row_file`."""
    with _open_text(path, f"lines of JSON objects {expected}") as file:
        yield from json_rows(path, file, 1, absent, bad_rows, parse)


def json_rows(
    path: Path,
    lines: Iterable[str],
    first_line: int,
    absent: Absent,
    bad_rows: Appendable,
    parse: Callable[[str], Any] = json.loads,
) -> Iterator[FileRow]:
    """Those of some lines of the file, the first of which has the number `first_line`."""
    for line, text in enumerate(lines, first_line):
        if not text.strip():
            continue
        try:
            values = parse(text)
            if not isinstance(values, dict):
                raise ValueError(f"no JSON object: {type(values).__name__}")
            if missing := absent(values):
                raise ValueError(f"no field {', '.join(missing)}")
        except json.JSONDecodeError as error:
            bad_rows.append(bad_row(path, line, f"no JSON object: {error}", text))
        except RecursionError:
            bad_rows.append(bad_row(path, line, "no JSON object: nested too deep", text))
        except UserError:  # the whole file is another one; not a fault of this row
            raise
        except ValueError as error:
            bad_rows.append(bad_row(path, line, str(error), text))
        else:
            yield FileRow(line, values, text)


def _read_parquet(path: Path, absent: Absent, expected: str) -> Iterator[FileRow]:
    import pyarrow
    from pyarrow import parquet

    num_read = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := absent(names):
                raise UserError(f"{path}: no column {', '.join(missing)}; it has: {', '.join(names)}")
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    num_read += 1
                    yield FileRow(num_read, values, str(values))
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(
            f"{path}: cannot be read after {num_read} rows ({error}); expected a Parquet file {expected}"
        ) from error
