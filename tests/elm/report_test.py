"""ELM's page: the paper's scores beside ours, what models wrote, and what a run does not have."""

import dataclasses
import math

import numpy as np
import pytest

from eagle_jax.elm.report import ElmReport, write_elm_report
from eagle_jax.elm.settings import GRAMMAR
from eagle_jax.elm.verdict import SINGLE
from eagle_jax.reports.figures import embedding_picture
from eagle_jax.reports.markdown import to_markdown
from tests.elm.consistency_rows import GROUPS, all_rows, comparison, curve, mixtures

_EVIL = "<script>alert(1)</script> | [x](y) **bold**"


def _sample(system, text):
    return {
        "system": system,
        "task": "positive_review",
        "items": [_EVIL],
        "user": None,
        "seed": 0,
        "text": text,
        "malformed": None if text else "length",
        "target": _EVIL,
        "scores": {"sc": 0.8125, "slots": 0.5},
    }


_BARE = ElmReport(
    title="An ELM",
    confidence=0.95,
    consistency={"groups": {}, "rows": [], "comparisons": []},
    curves=[],
    picture=None,
    samples=[],
    training=[],
    facts={"world": "Ants with 7 films and 5 users"},
    settings={
        "book": "detailed",
        "models": {"reader": "a-reader", "teacher": "ants"},
        "teacher": {"shows": "text"},
        "tasks": ["summary"],
    },
    provenance={"commit": "abc"},
)
_WHOLE = dataclasses.replace(
    _BARE,
    consistency={
        "groups": GROUPS,
        "rows": [
            own | {"malformed": {"length": 2, _EVIL: 1}} if (own["group"], own["system"]) == ("pitch", "elm") else own
            for own in all_rows()
        ],
        "comparisons": [*(comparison(group, "nearest", "sc", 0.2) for group in (SINGLE, "summary")), *mixtures()],
    },
    curves=[
        curve("semantic", "interpolation", [0.8, 0.7, 0.8], _EVIL),
        curve("semantic", "extrapolation", [0.8, 0.7, 0.6]) | {"texts": [_EVIL, "x", None]},
        curve("behavioral", "extrapolation", [0.5, 0.6, 0.7]),
    ],
    picture=embedding_picture(np.eye(4, 3), {"a path": np.eye(2, 3)}),
    samples=[_sample("elm", _EVIL), _sample("nearest", None)],
    training=[{"stage": s, "step": i, "loss": 2.0 / (i + 1)} for s in "ab" for i in range(3)],
    facts={"world": "MiniLens with 7 films and 5 users", "targets": {"malformed": {"empty": 4}}},
    settings={"book": "detailed", "models": {"reader": "a-reader", "teacher": GRAMMAR}, "teacher": {"shows": "title"}},
)


def _page(folder, data):
    return write_elm_report(folder, data)[1].read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return _page(tmp_path_factory.mktemp("report"), _WHOLE)


def test_the_papers_scores_stand_beside_ours(text):
    assert (
        "| summary | 0.91 | 0.800 [0.780, 0.820] | 0.900 [0.880, 0.920] | 0.600 [0.580, 0.620] "
        "| 0.500 [0.480, 0.520] |\n" in text
    )
    assert "| single-movie tasks | 0.94 | 0.800" in text  # the mean of 0.91 and 0.96 is 0.935
    assert "| user profile | – | 0.250" in text  # table 2 has no user profile
    assert "| positive review | 0.95 | 0.89 |" in text.replace("amazon ", "")  # table 4


def test_tables_hold_the_numbers(text):
    assert "| at least 0.85 | 0.875 [0.855, 0.895] | met |" in text
    # Of tasks alone nothing is compared: the group has them.
    assert text.count(" | ELM | nearest item | +0.200 [+0.180, +0.220] | yes |") == 1
    assert "| film mixture | semantic consistency | ELM | text-only, one example | +0.300" in text
    assert r"| a path | summary | 2 | sc/point 0.600 \[0.580, 0.620\] | 0 of 8 |" in text
    assert "| 2 | could not be read |" in text
    assert "| pitch | ELM | 30 | length: 2, " in text
    assert "| nearest item | 0 | could not be read: length | sc 0.812; slots 0.500 |" in text
    assert "| targets.malformed.empty | 4 |" in text
    assert "MiniLens with 7 films and 5 users." in text and "a-reader learned to read" in text


def test_what_models_wrote_stays_text(text):
    # The subject, the target, a text and a reason; a path's name in its claim and in three rows of
    # its table; a text of a path.
    assert text.count(to_markdown(_EVIL)) == 9 and "<script" not in text


def test_parts_may_be_missing(tmp_path):
    text = _page(tmp_path, _BARE)
    for sentence in (
        "This run has no output of ELM.",
        "Ants with 7 films and 5 users.",
        "a-reader learned to read them; ants, which sees texts, wrote",
        "the teacher is ants, which was asked 1 tasks.",
        "No task was measured",
        "This run compares nothing",
        "No path was measured",
        "No texts were kept",
        "No training curve was recorded",
        "None of 0.",
    ):
        assert sentence in text
    assert not list(tmp_path.glob("*.png"))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    training = [{"stage": "a", "step": 0, "loss": math.nan}]
    with pytest.raises(ValueError, match=r"training\[0\], loss: nan is not finite"):
        write_elm_report(tmp_path, dataclasses.replace(_WHOLE, training=training))
    assert not list(tmp_path.iterdir())
