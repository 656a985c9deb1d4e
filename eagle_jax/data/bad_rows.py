"""Rows that were left out of what was read: all are counted, the first of each kind are listed."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from eagle_jax.base.errors import visible

_VERSION = re.compile(r"\d+\.\d+\.\d+")
TEXT_SHOWN = 120  # characters of a bad row that are kept


@dataclasses.dataclass(frozen=True)
class BadRow:
    """A row that was left out: where it starts, why, and the beginning of what it says."""

    file: str
    line: int
    reason: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}: {self.text}"


def bad_row(path: Path, line: int, reason: str, text: str) -> BadRow:
    """A BadRow with its strings made visible and its text cut."""
    return BadRow(_called(path), line, visible(reason), visible(text.strip())[:TEXT_SHOWN])


def _called(path: Path) -> str:
    """A file's name; with the folder's above where it is but a version, as of a data set that TFDS has prepared."""
    return "/".join(path.parts[-2:]) if _VERSION.fullmatch(path.name) else path.name


class Appendable(Protocol):
    """What takes bad rows: a list, or `BadRows`."""

    def append(self, row: BadRow, /) -> None: ...


class BadRows:
    """Rows that were left out: every one is counted, the first of each kind are listed.

    A kind is a file and a reason without its particulars, what follows the reason's first colon.
    """

    MOST_LISTED = 1000  # of each kind

    def __init__(self, rows: Iterable[BadRow] = ()):
        self.counts: Counter[tuple[str, str]] = Counter()
        self.listed: list[BadRow] = []
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return self.counts.total()

    def __iter__(self) -> Iterator[BadRow]:
        return iter(self.listed)

    def append(self, row: BadRow) -> None:
        kind = row.file, row.reason.partition(":")[0]
        self.counts[kind] += 1
        if self.counts[kind] <= self.MOST_LISTED:
            self.listed.append(row)

    def count(self, path: Path, kind: str, lines: Sequence[int], row: Callable[[int], tuple[str, str]]) -> None:
        """Rows of one kind at `lines`; `row` gives the reason and the text of the i-th."""
        if not len(lines):
            return
        for i in range(min(len(lines), max(0, self.MOST_LISTED - self.counts[_called(path), kind]))):
            self.listed.append(bad_row(path, int(lines[i]), *row(i)))
        self.counts[_called(path), kind] += len(lines)

    def sort(self) -> None:
        """By line within each file; files stay in the order of their first bad row."""
        place_of = {file: place for place, file in enumerate(dict.fromkeys(row.file for row in self.listed))}
        self.listed.sort(key=lambda row: (place_of[row.file], row.line))


def summarize_bad_rows(bad_rows: Iterable[BadRow], num_shown: int) -> str:
    """Counts by file and reason, then the first `num_shown` rows, one line each."""
    found = bad_rows if isinstance(bad_rows, BadRows) else BadRows(bad_rows)
    if not found:
        return "no bad rows"
    lines = [f"{len(found)} bad rows left out"]
    lines += [f"  {count} x {file}: {kind}" for (file, kind), count in found.counts.most_common()]
    lines += [f"  {row}" for row in found.listed[:num_shown]]
    if len(found) > num_shown:
        lines.append(f"  ... and {len(found) - num_shown} more")
    return "\n".join(lines)
