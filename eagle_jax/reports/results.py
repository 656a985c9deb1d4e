"""What a report shows, for programs: results.json and results.csv beside it.

results.json has `report` (which one it is), every field of its `Report` with unrounded numbers, and
`tables`: [{"section", "columns", "rows"}], every table as it is shown. results.csv has a line for
each cell of those tables: section, number of the table, number of its line, what the line is about
(its first cell), column, text of the cell; and where that is a number, alone, in percent or with an
interval, value, low and high, and n where it is told of fewer values than its line.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt

RESULTS_JSON, RESULTS_CSV = "results.json", "results.csv"
COLUMNS = ("section", "table", "line", "row", "column", "text", "value", "low", "high", "n")

_NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
_CELL = re.compile(rf"({_NUMBER})(?: \[({_NUMBER}), ({_NUMBER})\])?( ?%)?(?: \(n = (\d+)\))?")


def results_files(name: str, fields: Mapping[str, Any], text: str) -> dict[str, bytes]:
    """The two files of the report `name`, by file name, from its fields and its Markdown."""
    tables = read_tables(text)
    value = {"report": name, **_strict(fields), "tables": tables}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_cells(tables))
    told = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return {RESULTS_JSON: told.encode(), RESULTS_CSV: stream.getvalue().encode()}


def page_parser() -> MarkdownIt:
    """Reads the Markdown of reports: tags stay text, links are not made."""
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    return parser.disable(["link", "autolink", "reference"])


def read_tables(text: str) -> list[dict[str, Any]]:
    """The tables of a report's Markdown in their order, each with the heading that it stands under."""
    parser = page_parser()
    tables: list[dict[str, Any]] = []
    section, of_line = "", []
    before = None
    for token in parser.parse(text):
        if token.type == "inline":
            shown = parser.renderer.renderInlineAsText(token.children, parser.options, {})
            if before.type == "heading_open":
                section = shown
            elif before.type in ("th_open", "td_open"):
                of_line.append(shown)
        elif token.type == "tr_open":
            of_line = []
        elif token.type == "thead_close":
            tables.append({"section": section, "columns": of_line, "rows": []})
        elif token.type == "tr_close" and before.type == "td_close":
            tables[-1]["rows"].append(of_line)
        before = token
    return tables


def number_in(text: str) -> tuple[float, float | None, float | None, int | None] | None:
    """(value, low, high, n) of a cell that is a number; a share in percent becomes one of 1."""
    found = _CELL.fullmatch(text)
    if found is None:
        return None
    scale = 100 if found[4] else 1
    value, low, high = (part and float(part.replace(",", "")) / scale for part in found.groups()[:3])
    return value, low, high, found[5] and int(found[5])


def _cells(tables: Sequence[Mapping[str, Any]]) -> Iterator[tuple]:
    for number, table in enumerate(tables, start=1):
        for line, row in enumerate(table["rows"], start=1):
            for column, shown in zip(table["columns"], row, strict=True):
                place = table["section"], number, line, row[0], column, shown
                yield *place, *(number_in(shown) or (None,) * 4)


def _strict(value: Any) -> Any:
    """JSON knows no infinity and no NaN: they become the words for them."""
    if isinstance(value, Mapping):
        return {str(key): _strict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(inner) for inner in value]
    if hasattr(value, "tolist"):  # of NumPy
        return _strict(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
