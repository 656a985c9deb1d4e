"""results.json and results.csv say what the page shows: read back by other readers than ours."""

import csv
import dataclasses
import json
from html.parser import HTMLParser

import numpy as np
import pytest

from eagle_jax.reports.markdown import LEFT, Column, table
from eagle_jax.reports.pages import Report, render_html
from eagle_jax.reports.results import COLUMNS, number_in, results_files

ROWS = (
    {"name": "a | *b* <i>", "u": {"mean": 0.51239, "low": -0.25, "high": 1.0}, "n": 12345, "share": "12.5 %"},
    {"name": "1. [x](y)\nz", "u": None, "n": 7, "share": "under 0.1 %"},
)
TABLE = table(ROWS, [Column("Row | x", "name", LEFT), Column("U", "u"), Column("Pairs", "n"), Column("Share", "share")])
TEXT = f"# Title\n\n## First & *last*\n\nwords | no table\n\n{TABLE}\n\n## Second\n\n### Below\n\n{TABLE}\n"


class PageTables(HTMLParser):
    """Every cell of every table as a browser shows it."""

    def __init__(self, source):
        super().__init__()
        self.tables, self.cell = [], None
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, text):
        if self.cell:
            self.tables[-1][-1][-1] += text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study(Report):
    numbers: object


@pytest.fixture(scope="module")
def files():
    numbers = {"third": 1 / 3, "array": np.float32([0.5, np.inf]), 3: (float("nan"), None, True)}
    data = Study(title="A study", settings={"seed": 0}, provenance={"time": "now"}, numbers=numbers)
    return results_files("own/report", dataclasses.asdict(data), TEXT)


def test_every_cell_of_the_page_is_a_line_of_the_csv(files):
    lines = list(csv.DictReader(files["results.csv"].decode().splitlines()))
    assert tuple(lines[0]) == COLUMNS
    shown = [
        (str(number), str(row), cells[0], head, cell)
        for number, (heads, *rows) in enumerate(PageTables(render_html(TEXT, "t", {})).tables, start=1)
        for row, cells in enumerate(rows, start=1)
        for head, cell in zip(heads, cells, strict=True)
    ]
    assert len(shown) == 2 * 2 * 4
    assert [tuple(line[name] for name in ("table", "line", "row", "column", "text")) for line in lines] == shown
    assert [line["section"] for line in lines[:1] + lines[-1:]] == ["First & last", "Below"]
    assert [lines[1][name] for name in ("text", "value", "low", "high")] == [
        "0.512 [-0.250, 1.000]",
        "0.512",
        "-0.25",
        "1.0",
    ]
    assert [lines[place]["value"] for place in (0, 2, 3, 5, 7)] == ["", "12345.0", "0.125", "", ""]


def test_the_json_has_every_field_unrounded_and_is_json_for_everybody(files):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    told = json.loads(files["results.json"], parse_constant=refuse)
    assert (told["report"], told["title"], told["settings"]) == ("own/report", "A study", {"seed": 0})
    assert told["numbers"] == {"third": 1 / 3, "array": [0.5, "inf"], "3": ["nan", None, True]}
    assert [(one["section"], one["columns"]) for one in told["tables"]] == [
        (section, ["Row | x", "U", "Pairs", "Share"]) for section in ("First & last", "Below")
    ]
    assert told["tables"][0]["rows"][1] == ["1. [x](y) z", "–", "7", "under 0.1 %"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.5", (0.5, None, None, None)),
        ("+0.500 [-0.250, +1.000]", (0.5, -0.25, 1.0, None)),
        ("1,234", (1234.0, None, None, None)),
        ("1.2e+06", (1.2e6, None, None, None)),
        ("over 99.9 %", None),
        ("12.5 %", (0.125, None, None, None)),
        ("0.500 [-0.250, 1.000] (n = 12)", (0.5, -0.25, 1.0, 12)),
        ("102 s", None),
        ("–", None),
        ("5 x 1 steps", None),
        ("2024-01", None),
        ("", None),
    ],
)
def test_a_cell_is_a_number_where_it_is_nothing_else(text, number):
    assert number_in(text) == number
