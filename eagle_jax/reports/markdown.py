"""Markdown from values: text stays text, whoever wrote it; numbers and tables have one look.

Every string is escaped but those that this module made (`Markup`), so that nothing that a language
model wrote becomes a tag, a link, emphasis, a heading, an item of a list or a cell of a table.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from markupsafe import Markup

LEFT, RIGHT = "---", "---:"
_IN_CODE = re.compile(r"[a-z0-9]+(_[a-z0-9]+)+")
_SPECIAL = re.compile(r"([\\`*_\[\]#|~!$])")
# At the start of a line: what begins an item of a list or a quote, or underlines a heading.
_AT_START = re.compile(r"^(\d*)([-+.)=](?=[-=\s]|$)|>)")


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table: its title, how its cell is read from a row, and on which side it stands
    (texts on the left).

    cell: the row's key, a format string that the row fills in ("{hits} of {total}"), or a function.
    """

    title: str
    cell: str | Callable[[Any], Any]
    side: str = RIGHT

    def read(self, row: Any) -> Any:
        if not isinstance(self.cell, str):
            return self.cell(row)
        return self.cell.format_map(row) if "{" in self.cell else row[self.cell]


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number that rows may have among their "cells": its name there, its heading, and a sentence
    on what it means."""

    name: str
    heading: str
    meaning: str


def to_markdown(value: Any) -> Markup:
    """Text is escaped and put on one line, a float told by a few digits, a mean with its interval;
    None is a dash."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return Markup("–")
    if _is_interval(value):
        return format_interval(value)
    if isinstance(value, float):
        value = f"{value:.4g}"
    escaped = _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))
    escaped = _AT_START.sub(r"\1\\\2", escaped)
    return Markup(escaped.replace("&", "&amp;").replace("<", "&lt;"))


def format_interval(cell: Any, signed: bool = False) -> Markup:
    """A mean with its interval, or alone where low and high are None; a dash for None.

    cell: has "mean", "low" and "high" as keys or as attributes; a mapping's "n", where it has one, is told: it is
    over fewer values than its neighbours.
    """
    if cell is None:
        return to_markdown(None)
    mean, low, high = (
        cell[name] if isinstance(cell, Mapping) else getattr(cell, name) for name in ("mean", "low", "high")
    )
    sign = "+" if signed else ""
    told = f"{mean:{sign}.3f}"
    if low is not None:
        told += f" [{low:{sign}.3f}, {high:{sign}.3f}]"
    if isinstance(cell, Mapping) and "n" in cell:
        told += f" (n = {cell['n']})"
    return Markup(told)


def _is_interval(value: Any) -> bool:
    return "mean" in value if isinstance(value, Mapping) else hasattr(value, "low")


def share(value: float) -> str:
    """A share in percent; what is not quite nothing or all does not look like it."""
    text = f"{100 * value:.1f} %"
    if text in ("0.0 %", "100.0 %") and value not in (0.0, 1.0):
        return "under 0.1 %" if value < 0.5 else "over 99.9 %"
    return text.replace(".0 %", " %")


def table(rows: Iterable[Any], columns: Sequence[Column]) -> Markup:
    """A line of cells for each row; "" without rows."""
    lines = [[to_markdown(column.read(row)) for column in columns] for row in rows]
    if not lines:
        return Markup("")
    head = [to_markdown(column.title) for column in columns], [column.side for column in columns]
    return Markup("\n".join(f"| {' | '.join(cells)} |" for cells in (*head, *lines)))


def measure_columns(measures: Iterable[Measure], rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """A column for each measure that at least one row has a number of."""
    return [
        Column(measure.heading, lambda row, name=measure.name: row["cells"][name])
        for measure in used_measures(measures, rows)
    ]


def used_measures(measures: Iterable[Measure], rows: Sequence[Mapping[str, Any]]) -> list[Measure]:
    return [m for m in measures if any(row["cells"].get(m.name) is not None for row in rows)]


def fact(name: str, value: Any, meaning: str) -> dict[str, Any]:
    """What a stage found out about itself, as reports tell it."""
    return {"name": name, "value": value, "meaning": meaning}


def facts_of(values: Mapping[str, Any], meanings: Mapping[str, str]) -> list[dict[str, Any]]:
    """The facts that have a meaning here, in its order."""
    return [fact(name, values[name], meaning) for name, meaning in meanings.items()]


def fact_table(facts: Iterable[Mapping[str, Any]]) -> Markup:
    """A line for each fact; what is called as in the code, or so behind a colon, is told in words."""
    name = Column("Fact", lambda fact: _in_words(fact["name"]), LEFT)
    return table(facts, (name, Column("Value", "value"), Column("What it means", "meaning", LEFT)))


def _in_words(name: str) -> str:
    *before, own = name.rpartition(": ")
    if _IN_CODE.fullmatch(own):
        own = re.sub("^num ", "number of ", own.replace("_", " "))
    return "".join([*before, own])


def value_table(values: Mapping[str, Any]) -> Markup:
    """Nested mappings, a line for each (dotted name, value)."""
    names = Column("Name", itemgetter(0), LEFT), Column("Value", itemgetter(1), LEFT)
    return table(_flatten(values), names)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value) if value is None else value


def bullets(lines: Iterable[Any]) -> Markup:
    return Markup("\n".join(f"- {to_markdown(line)}" for line in lines))
