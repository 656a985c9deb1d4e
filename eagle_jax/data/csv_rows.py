"""CSV files whose bad rows are counted and listed, never silently dropped."""

import csv
import dataclasses
import itertools
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eagle_jax.base.errors import UserError
from eagle_jax.data.text_files import open_text

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


class CsvRow(NamedTuple):
    """One record: the line it starts on, the columns asked for, and its text as it stands."""

    line: int
    values: tuple[str, ...]
    text: str


class NamedRow(NamedTuple):
    """One record: where it starts, its values by name, and its text as it stands."""

    line: int
    values: Mapping[str, Any]
    text: str


def bad_row(path: Path, line: int, reason: str, text: str) -> BadRow:
    """A BadRow with its strings made printable and its text cut."""
    return BadRow(path.name, line, _printable(reason), _printable(text.strip())[:_TEXT_SHOWN])


def read_rows(
    path: Path, required: Sequence[str], optional: Sequence[str], bad_rows: list[BadRow]
) -> Iterator[CsvRow]:
    """Records of a CSV file as `read_named_rows` reads them, values stripped.

    An optional column that is absent reads "". Raises UserError, also when a required column is
    absent.
    """
    names = [*required, *optional]
    rows = read_named_rows(
        path,
        lambda header: [name for name in required if name not in header],
        f"with the columns {', '.join(required)}",
        bad_rows,
    )
    for line, values, text in rows:
        yield CsvRow(line, tuple(values.get(name, "").strip() for name in names), text)


def read_named_rows(
    path: Path,
    absent: Callable[[Collection[str]], Sequence[str]],
    expected: str,
    bad_rows: list[BadRow],
) -> Iterator[NamedRow]:
    """Records of a UTF-8 CSV file (or .csv.gz) with a header line, by the header's names.

    A byte order mark, CRLF and quoted line breaks are fine, blank lines hold no record. Undecodable
    bytes, bad quoting and a wrong number of fields go to `bad_rows`; reading resumes on the line
    after the one where the bad record starts, so a stray quote costs one row. `absent` tells which
    columns a header lacks, `expected` which it should have ("with the columns ..."). Raises
    UserError when the file is missing, unreadable, empty, or lacks a column.
    """
    with open_text(path, f"a CSV file {expected}") as file:
        header = _fields(file.readline())
        if not header or not any(header):
            raise UserError(f"{path}: empty; expected a header line {expected}")
        header = [name.strip() for name in header]
        found = _printable(", ".join(header))[:_TEXT_SHOWN]
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
                yield NamedRow(line, dict(zip(header, fields, strict=True)), text)


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


def _printable(text: str) -> str:
    """Surrogates, which stand for undecodable bytes, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _kind(reason: str) -> str:
    """A reason without its particulars: what follows its first colon."""
    return reason.partition(":")[0]


def _fields(text: str) -> list[str] | None:
    """Fields of one record; None if its quoting is bad."""
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error:
        return None


def _records(lines: Iterator[str], width: int) -> Iterator[tuple[int, str]]:
    """(first line number, text) of every record; lines inside quotes are joined if that fits."""
    ahead: deque[str] = deque()
    line = 2
    while _read_ahead(lines, ahead, 1):
        num_lines, open_quote = 1, ahead[0].count('"') % 2
        while open_quote and _read_ahead(lines, ahead, num_lines + 1):
            open_quote ^= ahead[num_lines].count('"') % 2
            num_lines += 1
        text = "".join(itertools.islice(ahead, num_lines))
        if num_lines > 1 and len(_fields(text) or ()) != width:
            num_lines, text = 1, ahead[0]
        for _ in range(num_lines):
            ahead.popleft()
        if text.strip():
            yield line, text
        line += num_lines


def _read_ahead(lines: Iterator[str], ahead: deque[str], num_lines: int) -> bool:
    """Have at least `num_lines` lines in `ahead`, if there are so many."""
    ahead.extend(itertools.islice(lines, max(0, num_lines - len(ahead))))
    return len(ahead) >= num_lines
