"""Rows out of CSV, JSON lines and Parquet; a bad row is counted and listed, never silently dropped.

A row that cannot be read costs itself alone: it goes to `bad_rows` with its file and line.
"""

import contextlib
import csv
import dataclasses
import gzip
import itertools
import json
import zlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from eagle_jax.base.errors import UserError, visible

# Names of a header or a row -> those that it lacks.
Absent = Callable[[Collection[str]], Sequence[str]]

_TEXT_SHOWN = 120  # characters of a bad row that are kept


@dataclasses.dataclass(frozen=True)
class BadRow:
    """A row that was left out: where it starts, why, and the beginning of what it says."""

    file: str
    line: int
    reason: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}: {self.text}"


class FileRow(NamedTuple):
    """One record: where it starts, its values by name, and its text as it stands."""

    line: int
    values: Mapping[str, Any]
    text: str


def bad_row(path: Path, line: int, reason: str, text: str) -> BadRow:
    """A BadRow with its strings made visible and its text cut."""
    return BadRow(path.name, line, visible(reason), visible(text.strip())[:_TEXT_SHOWN])


def summarize_bad_rows(bad_rows: Sequence[BadRow], num_shown: int) -> str:
    """Counts by file and reason, then the first `num_shown` rows, one line each."""
    if not bad_rows:
        return "no bad rows"
    counts = Counter((row.file, _kind(row.reason)) for row in bad_rows)
    lines = [f"{len(bad_rows)} bad rows left out"]
    lines += [f"  {count} x {file}: {kind}" for (file, kind), count in counts.most_common()]
    lines += [f"  {row}" for row in bad_rows[:num_shown]]
    if len(bad_rows) > num_shown:
        lines.append(f"  ... and {len(bad_rows) - num_shown} more")
    return "\n".join(lines)


@contextlib.contextmanager
def _open_text(path: Path, expected: str) -> Iterator[TextIO]:
    """A UTF-8 file to read, gunzipped if its name ends with .gz; a byte order mark is left out.

    Line ends stay as they are, bytes that are not UTF-8 are read as surrogates. Raises UserError,
    also while it is read, when the file is missing or unreadable, is not gzip although its name
    says so, or is cut or damaged.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({why}); expected {expected}") from error


def read_row_file(path: Path, absent: Absent, expected: str, bad_rows: list[BadRow]) -> Iterator[FileRow]:
    """Rows of .jsonl, .json (JSON lines, too), .csv, each also .gz, or .parquet, in their order.

    Blank lines of text hold no row. A line that is not UTF-8, is no JSON object or lacks a field
    goes to `bad_rows`. A row's line is that of its file, of Parquet its number from 1. Raises
    UserError for another ending, a file that cannot be read, and a table that lacks a column;
    `expected` ("with the fields ...") says in such an error what the file should have.
    """
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind == ".csv":
        return _read_csv(path, absent, expected, bad_rows)
    if kind in (".jsonl", ".json"):
        return _read_json_lines(path, absent, expected, bad_rows)
    if path.suffix == ".parquet":
        return _read_parquet(path, absent, expected)
    raise UserError(
        f"{path}: unknown kind of file; expected .jsonl, .json or .csv (or one of them with .gz) "
        f"or .parquet, {expected}"
    )


def read_rows(
    path: Path, required: Sequence[str], optional: Sequence[str], bad_rows: list[BadRow]
) -> Iterator[FileRow]:
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


def _read_csv(path: Path, absent: Absent, expected: str, bad_rows: list[BadRow]) -> Iterator[FileRow]:
    """Records of a UTF-8 CSV file (or .csv.gz) with a header line, by the header's names.

    A byte order mark, CRLF and quoted line breaks are fine, blank lines hold no record. Undecodable
    bytes, bad quoting and a wrong number of fields go to `bad_rows`; reading resumes on the line
    after the one where the bad record starts, so a stray quote costs one row. `absent` tells which
    columns a header lacks, `expected` which it should have ("with the columns ..."). Raises
    UserError when the file is missing, unreadable, empty, or lacks a column.
    """
    with _open_text(path, f"a CSV file {expected}") as file:
        header = _fields(file.readline())
        if not header or not any(header):
            raise UserError(f"{path}: empty; expected a header line {expected}")
        header = [name.strip() for name in header]
        found = visible(", ".join(header))[:_TEXT_SHOWN]
        if missing := absent(header):
            raise UserError(
                f"{path}: line 1: no column {', '.join(missing)}; the header (UTF-8, "
                f"separated by commas) must name it, and it has: {found}"
            )
        if repeated := [name for name, count in Counter(header).items() if name and count > 1]:
            raise UserError(f"{path}: line 1: column repeated: {', '.join(repeated)} in {found}")
        for line, text in _records(file, len(header)):
            fields = _fields(text)
            if fields is None:
                bad_rows.append(bad_row(path, line, "bad quoting", text))
            elif len(fields) != len(header):
                reason = f"expected {len(header)} fields, found {len(fields)}"
                bad_rows.append(bad_row(path, line, reason, text))
            elif any("\udc80" <= character <= "\udcff" for character in text):
                bad_rows.append(bad_row(path, line, "bytes that are not UTF-8", text))
            else:
                yield FileRow(line, dict(zip(header, fields, strict=True)), text)


def _records(lines: Iterator[str], width: int) -> Iterator[tuple[int, str]]:
    """(first line number, text) of every record; lines inside quotes are joined if that fits."""
    ahead: deque[str] = deque()
    line = 2
    while _read_ahead(lines, ahead, 1):
        num_lines = 1
        open_quote = ahead[0].count('"') % 2
        while open_quote and _read_ahead(lines, ahead, num_lines + 1):
            open_quote ^= ahead[num_lines].count('"') % 2
            num_lines += 1
        text = "".join(itertools.islice(ahead, num_lines))
        if num_lines > 1 and len(_fields(text) or ()) != width:
            num_lines = 1
            text = ahead[0]
        for _ in range(num_lines):
            ahead.popleft()
        if text.strip():
            yield line, text
        line += num_lines


def _read_ahead(lines: Iterator[str], ahead: deque[str], num_lines: int) -> bool:
    """Have at least `num_lines` lines in `ahead`, if there are so many."""
    ahead.extend(itertools.islice(lines, max(0, num_lines - len(ahead))))
    return len(ahead) >= num_lines


def _fields(text: str) -> list[str] | None:
    """Fields of one record; None if its quoting is bad."""
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error:
        return None


def _read_json_lines(path: Path, absent: Absent, expected: str, bad_rows: list[BadRow]) -> Iterator[FileRow]:
    with _open_text(path, f"lines of JSON objects {expected}") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                values = json.loads(text)
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
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"{path}: reading Parquet needs the package pyarrow: pip install 'eagle_jax[parquet]'"
        ) from error
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


def _kind(reason: str) -> str:
    """A reason without its particulars: what follows its first colon."""
    return reason.partition(":")[0]
