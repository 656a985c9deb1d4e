"""ELM's report stands alone, escapes what models wrote, works in parts; its verdict can turn."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from eagle_jax.elm.report import ElmReport, write_elm_report
from eagle_jax.elm.verdict import (
    FILM_MIXTURE,
    PROFILE,
    SINGLE,
    TWO,
    USER_MIXTURE,
)
from eagle_jax.reports.figures import embedding_picture

_EVIL = "<script>alert(1)</script> | [x](y) **bold** <img src=http://a.example/x.png>"
_GROUPS = {
    SINGLE: ["summary", "pitch"], TWO: ["similarities"], PROFILE: [PROFILE],
    "summary": ["summary"], "pitch": ["pitch"], "similarities": ["similarities"],
    FILM_MIXTURE: [FILM_MIXTURE], USER_MIXTURE: [USER_MIXTURE],
}  # fmt: skip
_SC = {"elm": 0.8, "teacher": 0.9, "nearest": 0.6, "text_only": 0.5}
_MIXED = ("elm", "text_only")  # who answers about mixtures


def _cell(mean, half=0.02):
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _row(group, system, seeds=3):
    if group in (PROFILE, USER_MIXTURE):
        cells = {"bc/ndcg": _cell(_SC[system] - 0.1), "bc/spearman": _cell(0.25)}
    elif group in (TWO, "similarities", FILM_MIXTURE):
        cells = {"sc": _cell(_SC[system] - 0.125)}
    else:
        cells = {"sc": _cell(_SC[system]), "slots": _cell(0.875), "bc/spearman": _cell(0.375)}
    return {
        "group": group, "system": system, "num_outputs": 30, "num_entities": 10,
        "num_seeds": seeds, "cells": cells,
        "malformed": {"length": 2, _EVIL: 1} if (group, system) == ("pitch", "elm") else {},
    }  # fmt: skip


def _mixture(group, baseline, measure, difference):
    return {
        "group": group, "system": "elm", "baseline": baseline, "measure": measure,
        "system_mean": _cell(0.8), "baseline_mean": _cell(0.8 - difference),
        "difference": _cell(difference), "separated": False,
    }  # fmt: skip


def _curve(kind, path, means, name="a path"):
    measure = "sc/point" if kind == "semantic" else "bc/ndcg"
    positions = [0.0, 0.5, 1.0] if path == "interpolation" else [0.0, 1.0, 2.0]
    return {
        "name": name, "kind": kind, "path": path, "how": None, "task": "summary",
        "tag": None if path == "interpolation" else "funny",
        **({"chance": {"bc/ndcg": 0.3}, "truth": {"bc/ndcg": 0.6}} if kind == "behavioral" else {}),
        "rows": [
            {"position": at, "num_outputs": 8, "num_malformed": 0, "cells": {measure: _cell(mean)}}
            for at, mean in zip(positions, means, strict=True)
        ],
    }  # fmt: skip


def _sample(system, text):
    return {
        "system": system, "task": "summary", "items": [_EVIL], "user": None, "seed": 0,
        "text": text, "malformed": None if text else "length", "target": _EVIL,
        "scores": {"sc": 0.8125},
    }  # fmt: skip


@pytest.fixture(scope="module")
def data():
    """As it is read from the artifacts of a run: all of it went through JSON."""
    made = ElmReport(
        title="An <ELM>",
        task="Films.",
        confidence=0.95,
        consistency={
            "groups": _GROUPS,
            "rows": [
                _row(group, system)
                for group in _GROUPS
                for system in (_MIXED if group in (FILM_MIXTURE, USER_MIXTURE) else _SC)
            ],
            "comparisons": [
                {"group": group, "system": "elm", "baseline": "nearest", "measure": "sc",
                 "system_mean": _cell(0.8), "baseline_mean": _cell(0.6),
                 "difference": _cell(0.2), "separated": True}
                for group in (SINGLE, "summary")
            ] + [
                _mixture(FILM_MIXTURE, "text_only", "sc", 0.2),
                _mixture(FILM_MIXTURE, "text_only_example", "sc", 0.3),
                _mixture(USER_MIXTURE, "text_only", "bc/ndcg", 0.1),
            ],
        },
        curves=[
            _curve("semantic", "interpolation", [0.8, 0.7, 0.8], _EVIL),
            _curve("semantic", "extrapolation", [0.8, 0.7, 0.6]) | {"texts": [_EVIL, "x", None]},
            _curve("behavioral", "extrapolation", [0.5, 0.6, 0.7]),
        ],
        picture=embedding_picture(np.eye(4, 3), {_EVIL: np.eye(2, 3)}),
        samples=[_sample("elm", _EVIL), _sample("nearest", None)],
        training=[{"stage": s, "step": i, "loss": 2.0 / (i + 1)} for s in "ab" for i in range(3)],
        facts={"targets": {"malformed": {"empty": 4}}},
        left_out=["no RLAIF"],
        not_reproduced=["PaLM 2"],
        settings={"elm": {"rank": 8}},
        provenance={"commit": "abc"},
    )  # fmt: skip
    return ElmReport(**json.loads(json.dumps(dataclasses.asdict(made))))


@pytest.fixture(scope="module")
def written(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return folder, *(path.read_text(encoding="utf-8") for path in write_elm_report(folder, data))


class _Page(HTMLParser):
    """Checks that tags nest, and collects what a browser would show, fetch or run."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


def _page(source):
    page = _Page()
    page.feed(source)
    page.close()
    assert page.open == []
    return page


def _words(source):
    return " ".join(" ".join(_page(source).texts).split())


def test_page_needs_nothing_beside_it(written):
    page = _page(written[1])
    assert page.tags.count("svg") == 5
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    names = {name: [v for n, v in page.attributes if n == name] for name in ("id", "href")}
    assert len(names["id"]) == len(set(names["id"]))
    assert all(value.startswith("#") for value in names["href"])
    assert {value[1:] for value in names["href"]} <= set(names["id"])
    assert "http" not in re.sub(r"&lt;img.*?&gt;", "", written[1])


def test_markdown_finds_its_figures(written):
    folder, _, text = written
    names = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert len(names) == 5 and all((folder / name).stat().st_size > 1000 for name in names)


def test_what_models_wrote_is_shown_as_it_is(written):
    _, source, text = written
    # The subject, the target, a text and a reason; a path's name in its claim, above its figure and
    # in three rows of its table; a text of a path; the name of a path in the picture.
    assert _words(source).count(_EVIL) == 11
    assert "<script" not in source and "<script" not in text and "<img" not in text
    assert r"\*\*bold\*\*" in text and r"\| \[x\](y)" in text


def test_every_markdown_table_has_as_many_cells_in_each_row(written):
    widths = []
    for line in [*written[2].splitlines(), ""]:
        if line.startswith("|"):
            widths.append(len(re.findall(r"(?<!\\)\|", line)))
        else:
            assert len(set(widths)) <= 1, widths
            widths = []


def test_the_papers_scores_stand_beside_ours(written):
    _, source, text = written
    rows = [line for line in text.splitlines() if line.startswith("| summary | 0.91")]
    assert rows == [
        "| summary | 0.91 | 0.800 [0.780, 0.820] | 0.900 [0.880, 0.920] | 0.600 [0.580, 0.620] "
        "| 0.500 [0.480, 0.520] |"
    ]
    # Of the group the mean of its tasks: (0.91 + 0.96) / 2 = 0.935.
    assert re.search(r"\| single-movie tasks \| 0\.9[34] \| 0\.800", text)
    assert "| user profile | – | 0.250" in text  # table 2 has no user profile
    assert "| 2 | could not be read |" in text
    assert "length: 2, " in text and "could not be read: length" in text
    assert _words(source).count("0.81") >= 1


def test_parts_may_be_missing(data, tmp_path):
    empty = {name: [] for name in ("curves", "samples", "training", "left_out", "not_reproduced")}
    bare = dataclasses.replace(
        data,
        **empty,
        picture=None,
        consistency={"groups": {}, "rows": [], "comparisons": []},
        facts={},
    )
    html, text = (path.read_text(encoding="utf-8") for path in write_elm_report(tmp_path, bare))
    for said in (
        "No task was measured", "This run compares nothing", "No path was measured",
        "No texts were kept", "No training curve was recorded", "None of 0.",
    ):  # fmt: skip
        assert said in _words(html) and said in text
    assert "svg" not in _page(html).tags and not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"training": [{"stage": "a", "step": 0, "loss": math.nan}]},
            r"training\[0\]: Out of range float",
        ),
        ({"samples": [_sample("gpt", "x")]}, "system 'gpt': expected one of elm, teacher"),
        (
            {"consistency": {"groups": {}, "comparisons": [], "rows": [_row("pitch", "elm")] * 2}},
            "two rows of group 'pitch' and system 'elm'",
        ),
    ],
)
def test_what_no_run_can_have_is_refused(data, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_elm_report(tmp_path, dataclasses.replace(data, **change))
    assert not list(tmp_path.iterdir())
