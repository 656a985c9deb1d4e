"""A report can be read without a network and without the code, and what was written stays text."""

import dataclasses
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from eagle_jax.reports import figures, pages
from eagle_jax.reports.markdown import (
    LEFT,
    Column,
    Measure,
    fact,
    fact_table,
    format_interval,
    measure_columns,
    share,
    table,
    to_markdown,
    value_table,
)
from eagle_jax.reports.pages import Report, refuse_non_finite, render_html, write_pages
from eagle_jax.reports.statistics import Interval
from eagle_jax.reports.verdicts import arrow, side

TEMPLATES = sorted(Path(pages.__file__).parents[1].rglob("report.md"))
TEXTS = (
    "<b>bold</b>",
    "<!-- no -->",
    "<script>alert(1)</script>",
    "a < b & c > d",
    "&lt;b&gt; &amp;",
    "[x](http://a.example)",
    "![x](http://a.example/x.png)",
    "<http://a.example>",
    "[x]: y",
    "[x]",
    "<img src=http://a.example/x.png>",
    "**bold** __bold__",
    "*em* _em_",
    "~~gone~~",
    "`code`",
    "```",
    "~~~",
    "# no heading",
    "- no item",
    "+ no item",
    "* no item",
    "1. no item",
    "2) no item",
    "---",
    "===",
    "> no quote",
    ">no",
    "a | b",
    r"a \| b",
    "|",
    "\\",
    r"\*",
    "$x$",
    "<",
    "-",
    "1.",
    "two\nlines\n\nand a third",
    "ends with [x]",
    "-1.5",
    "1.5",
)
# A text at every place that a template may put one.
PLACES = (
    "{{ text }}",
    "Rated: {{ text }}.",
    "- {{ text }}",
    "- {{ text }}: {{ text }}",
    "- x\n  - {{ text }}",
    "**{{ text }}** ~~{{ text }}~~ *{{ text }}:* x",
    "### {{ text }}",
    "x\n{{ text }}",
    "![figure]({{ figures.plot }})\n{{ text }}",
    "{{ [{'name': text, 'value': text, 'meaning': text}]|facts }}",
    "{{ [text, text]|bullets }}",
    "{{ {'a': {'b': text}}|values }}",
)


class Page(HTMLParser):
    """Checks that tags nest, and collects what a browser would show, fetch or run."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in ("meta", "br", "hr", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in ("br", "hr", "img"):
            assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)

    def values(self, name):
        return [value for found, value in self.attributes if found == name]

    @property
    def seen(self):
        return " ".join("".join(self.texts).split())


def report(**changes):
    return Report(
        title="A <run> of ours",
        provenance={"commit": "<abc>"},
        settings={"design": {"kind": "g_optimal", "num_kept": 10}, "seed": None},
        **changes,
    )


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the report of a template that is a string; returns both pages' texts."""
    package = tmp_path / "package"
    shutil.copytree(pages._PACKAGE / "reports", package / "reports")
    monkeypatch.setattr(pages, "_PACKAGE", package)

    def write_with(template, drawn=None, **context):
        (package / "own.md").write_text(template)
        context = {"data": report(confidence=0.95), **context}
        paths = write_pages(tmp_path / "run", "own", context, drawn or {})
        return [path.read_text(encoding="utf-8") for path in paths]

    return write_with


def plot():
    figure, (axis,) = figures.new_figure(1, 1, width=2, height=1)
    axis.plot([0, 1], [0, 1], label="a line")
    axis.legend()
    return figure


def test_page_needs_nothing_beside_it_and_nests(write, tmp_path):
    caption = "Up *it* goes, {{ data.level }}."
    template = f"x\n\n## One\n\n![A line.]({{{{ figures.plot }}}})\n{caption}\n\n## Two words\n"
    html, text = write(template, {"plot": plot(), "absent": None})
    page = Page(html)
    assert "<title>A &lt;run&gt; of ours</title>" in html and "<html lang=" in html
    assert page.tags.count("svg") == page.tags.count("figure") == 1
    assert page.values("aria-label") == ["A line.", "Sections", "Table: Settings", "Table: Provenance"]
    assert "<figcaption>Up <em>it</em> goes, 95 %.</figcaption>" in html
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    loaders = {"src", "srcset", "action", "data", "xlink:href"}
    assert not [name for name, _ in page.attributes if name in loaders or name.startswith("on")]
    assert "@import" not in html and "http" not in html
    assert all("//" not in (value or "") for _, value in page.attributes)
    ids, links = page.values("id"), page.values("href")
    assert len(ids) == len(set(ids)) and all(link.startswith("#") for link in links)
    assert {"#one", "#two-words", "#settings", "#provenance"} <= set(links)
    used = {link[1:] for link in links} | set(re.findall(r"url\(#([^)]+)\)", html))
    assert used <= set(ids)
    # The same in Markdown, its figure beside it.
    assert "![A line.](report_plot.png)\nUp *it* goes, 95 %." in text
    assert (tmp_path / "run/report_plot.png").read_bytes().startswith(b"\x89PNG")
    assert text.startswith("# A &lt;run> of ours\n\nx\n\n## One\n\n")
    assert "| design.kind | g\\_optimal |\n| design.num\\_kept | 10 |\n| seed | None |\n" in text
    assert text.endswith("\n\n| Name | Value |\n| --- | --- |\n| commit | &lt;abc> |\n")


@pytest.mark.parametrize("place", PLACES)
def test_a_text_stays_text_wherever_it_stands(write, place):
    """The page has the tags of a page with words in their places, and shows all as they are."""
    template = f"{{% for text in texts %}}\n\n{place}\n\nend\n{{% endfor %}}"
    words = [f"w{number}x" for number in range(len(TEXTS))]
    plain, page = (Page(write(template, {"plot": plot()}, texts=t)[0]) for t in (words, TEXTS))
    assert page.tags == plain.tags
    expected = plain.seen
    for word, text in zip(words, TEXTS, strict=True):
        expected = expected.replace(word, " ".join(text.split()))
    assert page.seen == expected


def test_tags_links_and_images_are_not_made_even_where_nobody_escaped():
    html = render_html("<b>x</b> [y](http://a) ![z](http://b) <http://c>\n\n<div>\n", "t", {})
    page = Page(html)
    assert not {"b", "img", "div"} & set(page.tags) and page.values("href") == []
    assert "<b>x</b> [y](http://a) z <http://c>" in page.seen


def test_tables_are_called_by_their_headings_and_scroll_by_keyboard():
    rows = "| a |\n| --- |\n| 1 |\n"
    html = render_html(
        f"{rows}\n## One *and* `two` < 3\n\n{rows}\nthen\n\n{rows}\n### Three\n\n{rows}", "The title", {}
    )
    names = ["The title", "One and two &lt; 3", "One and two &lt; 3, table 2", "Three"]
    assert re.findall(r"<caption>(.*?)</caption>", html) == names
    for name in names:
        assert f'<div class="scroll" tabindex="0" role="region" aria-label="Table: {name}">' in html


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.parent.name)
def test_tables_of_templates_are_made_by_the_one_function(path):
    assert not re.search(r"^\s*\|", path.read_text(), re.M)


def test_tables_have_the_columns_that_were_declared():
    rows = [
        {"name": "a | b", "cells": {"u": {"mean": 0.5, "low": -0.25, "high": 1.0}, "v": None}},
        {"name": "c", "cells": {"u": None, "v": None}, "count": 3},
    ]
    measures = Measure("u", "U", "Utility."), Measure("v", "V", "Never measured.")
    columns = [Column("Row", "name", LEFT), *measure_columns(measures, rows)]
    columns.append(Column("Count", lambda row: row.get("count", 0.123456)))
    columns.append(Column("Formatted", "{name} in {cells[v]}", LEFT))
    assert table(rows, columns).splitlines() == [
        "| Row | U | Count | Formatted |",
        "| --- | ---: | ---: | --- |",
        r"| a \| b | 0.500 [-0.250, 1.000] | 0.1235 | a \| b in None |",
        "| c | – | 3 | c in None |",
    ]
    html = render_html(table(rows, columns), "t", {})
    assert '<th scope="row">a | b</th>' in html and html.count('scope="col"') == 4
    assert '<td style="text-align:right">–</td>' in html
    assert Page(html).tags.count("tr") == 3
    assert table([], columns) == "" and fact_table([]) == "" and value_table({}) == ""
    assert fact_table([fact("R^2", 0.81234567, "high")]).endswith("\n| R^2 | 0.8123 | high |")
    names = ("num_users", "encoder: held_out_rmse", "g_optimal: a share", "action:wrong_markers")
    told = fact_table(fact(name, 1, "") for name in names).splitlines()[2:]
    assert [line.split(" | ")[0] for line in told] == [
        "| number of users",
        "| encoder: held out rmse",
        "| g\\_optimal: a share",
        "| action:wrong\\_markers",
    ]


def test_numbers_have_one_look():
    cell = Interval(mean=0.5, low=-0.25, high=1.0, num_values=3, num_clusters=3)
    assert format_interval(cell, signed=True) == "+0.500 [-0.250, +1.000]"
    assert to_markdown(cell) == format_interval(dataclasses.asdict(cell)) == "0.500 [-0.250, 1.000]"
    assert format_interval({"mean": 0.5, "low": None, "high": None}) == "0.500"
    assert to_markdown({"mean": 0.5, "low": 0.25, "high": 1.0, "n": 12}) == "0.500 [0.250, 1.000] (n = 12)"
    assert format_interval(None) == to_markdown(None) == "–"
    assert [to_markdown(value) for value in (1234.5678, 7, True)] == ["1235", "7", "True"]
    for low, high, which, mark in ((1, 2, 1, " ↑"), (-2, -1, -1, " ↓"), (0, 1, 0, "")):
        assert side({"low": low, "high": high}) == which
        assert arrow({"low": low, "high": high}) == mark
    assert side({"low": None, "high": None}) == 0
    assert (side(None), arrow(None), side(cell)) == (0, "", 0)


def test_shares_never_look_like_all_or_nothing_when_they_are_not():
    assert [share(v) for v in (0.0, 1e-5, 0.125, 0.99999, 1.0)] == [
        "0 %",
        "under 0.1 %",
        "12.5 %",
        "over 99.9 %",
        "100 %",
    ]


def test_a_number_that_is_not_finite_is_refused_by_its_place():
    refuse_non_finite("rows", [{"a": [1.0, {"b": "nan"}]}, None])
    with pytest.raises(ValueError, match=r"rows\[0\], a\[1\], b: inf is not finite"):
        refuse_non_finite("rows", [{"a": [1.0, {"b": float("inf")}]}])
