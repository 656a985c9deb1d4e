"""EAGLE's report says what its rows say, and stays silent on what a run does not have."""

import dataclasses
import json
from html import escape

import numpy as np
import pytest

from eagle_jax.eagle import report
from eagle_jax.eagle.environment import Step
from eagle_jax.eagle.evaluation.rater_form import RaterScores
from eagle_jax.eagle.evaluation.story import changed_words
from eagle_jax.eagle.evaluation.systems import ANCHOR, EAGLE, HEAD, PLANNER, REFERENCE, TRANSFER, EvalRow, for_others
from eagle_jax.eagle.evaluation.table import Resampling, compare, malformed_counts, summarize
from eagle_jax.eagle.evaluation.verdict import steering_sentences
from eagle_jax.reports import figures
from eagle_jax.reports.markdown import to_markdown
from eagle_jax.reports.statistics import BootstrapSettings
from tests.eagle.evaluation.records import make_record

RESAMPLING = Resampling(BootstrapSettings(num_resamples=200, confidence=0.95, seed=0))
_ROWS = {"anchor": 0.0, "reference policy, uniform": 0.2, "EAGLE, uniform": 1.0}
_EVIL = "<script>alert(1)</script> | [x](y) **bold** <img src=http://a.example/x.png>"
_ASKED = RaterScores(user_utility=1.0, distance_score=0.25, rater_utility=0.0, consistency=0.75)
_ANCHOR = "#BEGIN_PLOT a grim noir film. #END_PLOT #BEGIN_REASONS_TO_LIKE the score. #END_REASONS_TO_LIKE"


def _record(row, gain, pair, seed):
    rng = np.random.default_rng([pair, seed])
    first, last = rng.normal(scale=0.1, size=2) + (0.0, gain)
    grand = _ANCHOR.replace("grim", "grand")
    steps = (
        Step(action="make it grand.", description=grand, malformed=None),
        Step(action=None, description=grand, malformed="action:length"),
        Step(action=_EVIL, description=_ANCHOR.replace("grim", _EVIL), malformed=None),
    )
    steps = () if row == "anchor" else steps
    utilities = np.linspace(first, last if steps else first, 1 + len(steps)).tolist()
    asked = dataclasses.asdict(_ASKED) if steps and pair else None
    faults = {"action:length": 1} if steps else {}
    return make_record(
        utilities, steps, seed=seed, entity_index=pair, anchor=_ANCHOR, profile=_EVIL, malformed=faults, rater=asked
    )


@pytest.fixture(scope="module")
def data():
    records = {
        row: [_record(row, gain, pair, seed) for pair in range(12) for seed in range(2)] for row, gain in _ROWS.items()
    }
    rng = np.random.default_rng(0)
    metrics = [{"step": s, "kl": 0.1 * s, **({"val": 1.0 * s} if s % 2 else {})} for s in range(6)]
    return report.EagleReport(
        title="A run <of> ours",
        confidence=0.95,
        table=summarize(records, RESAMPLING),
        comparisons=compare(
            records, [("EAGLE, uniform", "anchor"), ("reference policy, uniform", "EAGLE, uniform")], RESAMPLING
        ),
        malformed=malformed_counts(records, {row: {"missing_block": 2} for row in records}),
        episodes=[
            {"row": "EAGLE, uniform", "item_id": "f7", "title": "Heat <1995>", "user_id": "u3"}
            | records["EAGLE, uniform"][0].to_json()
        ],
        curves=[figures.learning_curve("EAGLE", s, metrics, ["kl", "val"]) for s in range(2)],
        embedding_picture=figures.embedding_picture(
            rng.normal(size=(30, 4)), {"A": rng.normal(size=(4, 4)), "B": rng.normal(size=(2, 4))}
        ),
        stages=[{"title": "E_D", "facts": [{"name": "R^2", "value": 0.81234567, "meaning": _EVIL}]}],
        rater="Here a model <b>rates</b>.",
        remote=[
            {
                "name": "remote/large",
                "model": _EVIL,
                "base_url": "https://a.example/v1",
                "num_requests": 12,
                "num_answered": 9,
                "num_cached": 4,
                "num_uncounted": 1,
                "failed": {"http_429": 2, "timeout": 1},
                "prompt_tokens": 4321,
                "completion_tokens": 765,
                "cost": cost,
            }
            for cost in (0.0123456, None)
        ],
        decoder_sweep=[
            {
                **row,
                "metric": "pull_back",
                "radius": 0.25,
                "length": 0.1,
                "point_utility": 1.875,
                "chosen": row["row"] == "anchor",
            }
            for row in summarize(records, RESAMPLING)[:2]
        ],
        not_reproduced=["raters <people>"],
        settings={"design": {"kind": "g_optimal", "num_kept": 10}, "seed": 0},
        provenance={"commit": "abc"},
    )


def write(folder, data):
    return report.write_report(folder, data)[1].read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def written(data, tmp_path_factory):
    return write(tmp_path_factory.mktemp("report"), data)


def lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_page_has_the_figures_and_what_models_wrote_as_it_is(data, written, tmp_path):
    html, _ = report.write_report(tmp_path, data)
    page = html.read_text(encoding="utf-8")
    assert page.count("<svg") == written.count("](report_") == 3 and "<script" not in page
    # The profile, an action and the text it left; a fact; two remote models.
    assert written.count(to_markdown(_EVIL)) == 6 and "<script" not in written
    assert page.count(escape(_EVIL, quote=True)) == 6


def test_what_remote_models_took_is_told_and_an_unknown_cost_is_not_zero(written):
    told = "| 12 | 9 | http\\_429: 2, timeout: 1 | 4 | 4321 | 765 | 1 |"
    rows = lines(written, "| remote/large: ")
    assert [row.split("example/v1 ")[1] for row in rows] == [f"{told} 0.01235 |", f"{told} – |"]


def test_the_table_has_means_with_their_intervals(written, data):
    cell = data.table[2]["cells"]["train/utility"]
    expected = f"| {cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}] |"
    (row,) = lines(written, "| EAGLE, uniform | 24 | 12 | 2 |")
    assert expected in row
    (row,) = lines(written, "| EAGLE, uniform | anchor | training encoder |")
    assert row.endswith("| higher, intervals separated |") and "| +" in row


def test_the_page_opens_with_its_verdict(written, data, tmp_path):
    text = written.replace("\\", "")
    assert text.startswith(
        "# A run &lt;of> ours\n\n## In short\n\n- EAGLE, uniform turns a text into one that its user"
    )
    assert "- reference policy, uniform is below EAGLE, uniform (-" in text
    html = report.write_report(tmp_path, data)[0].read_text(encoding="utf-8")
    first, links, second = (html.index(words) for words in ('id="in-short"', "<nav", 'id="what-this-page-is-about"'))
    assert first < html.index("values more") < links < second


def test_report_is_made_again_from_json(data, written, tmp_path):
    again = report.EagleReport(**json.loads(json.dumps(dataclasses.asdict(data))))
    assert write(tmp_path, again) == written


def test_it_says_what_intervals_resample(written, data, tmp_path):
    assert "pairs are resampled, seeds are averaged inside a pair, as if" in written
    crossed = write(tmp_path, dataclasses.replace(data, is_crossed=True))
    assert "anchors, users and, of several, training seeds are resampled at once (Owen 2007)" in crossed
    assert "pairs are resampled" not in crossed


def test_papers_numbers_stand_beside_ours(written):
    assert "different scales" in written
    assert lines(written, "| EAGLE, g\\_optimal | 0.74 ± 0.03 | 0.76 | 0.74 | 0.47 | – |")


def test_raters_answers_stand_beside_the_papers(written, data, tmp_path):
    assert "Here a model &lt;b>rates&lt;/b>." in written and "Ours: user utility" in written
    # Of 24 episodes those of one pair got no form.
    own = "| 1.000 [1.000, 1.000] (n = 22) | 0.000 [0.000, 0.000] (n = 22) | 0.250 [0.250, 0.250] (n = 22) |"
    (paper,) = lines(written, "| EAGLE, uniform | 0.65 ± 0.03 |")
    assert paper.endswith(own)
    (rated,) = lines(written, "- Consistency: ")
    assert rated.endswith("In all rows that have it: 0.750 (n = 22).")
    # 11 of 12 pairs with 2 seeds, and two malformed answers; 72 steps, 24 of them malformed.
    assert "| EAGLE, uniform | 72 | 24 | 24 | 2 |" in written
    # Without a rater there is no trace of these columns.
    table = json.loads(json.dumps(data.table))
    for row in table:
        row["cells"] |= {name: None for name in row["cells"] if name.startswith("rater/")}
    text = write(tmp_path, dataclasses.replace(data, table=table))
    assert "ated distance" not in text and "Rater forms" not in text


def test_the_decoders_sweep_is_told_where_there_is_one(written, data, tmp_path):
    rows = lines(written, "| pull\\_back | 0.25 | 0.100 | 1.875 |")
    assert [row.endswith("| yes |") for row in rows] == [True, False]
    assert "Which point the ELM decoder is asked for" in written
    assert "is asked for" not in write(tmp_path, dataclasses.replace(data, decoder_sweep=[]))


def test_it_says_from_where_on_training_pays(written, data, tmp_path):
    assert "training pays" not in written
    cells = [{"mean": mean, "low": mean - 0.1, "high": mean + 0.1} for mean in (1.0, 0.5)]
    line = {"agent": "EAGLE, uniform", "baseline": "best of 10", "episodes": 4, "best_of": 10, "calls": 50}
    line |= {"pairs": 1234.5}
    line |= {"utility": {"train": cells[0]}, "differences": {"train": cells[1]}}
    text = write(tmp_path, dataclasses.replace(data, break_even=[line]))
    said = "- EAGLE, uniform: at 50 calls a pair, training pays from 1,234 served pairs on, by the training encoder."
    assert said in text
    assert "| EAGLE, uniform | 1,234 | 4 of 10 | best of 10 | 1.000 [0.900, 1.100] | +0.500 [+0.400, +0.600] |" in text


def test_episodes_are_told_with_what_each_step_changed(written):
    story = written[written.index("### 1. EAGLE, uniform, seed 0: Heat &lt;1995> (f7) for user u3") :]
    assert "- Step 1, action: make it grand.\n  - Text: *Plot:* a ~~grim~~ **grand** noir" in story
    assert "- Step 2, action: (malformed)\n  - Not accepted (action:length): the text" in story
    assert story.count("  - U = ") == 4 and "(training encoder); U = " in story


def test_the_best_the_worst_and_what_lies_between_are_told():
    uniform, g_optimal = (EvalRow(system=EAGLE, kind=kind) for kind in ("uniform", "g_optimal"))
    rows = [
        (EvalRow(system=ANCHOR, environment=None), 9.0),
        (EvalRow(system=REFERENCE, kind="g_optimal"), 7.0),
        (dataclasses.replace(g_optimal, environment=TRANSFER), 6.0),
        *((uniform, gain) for gain in (0.2, 0.4)),
        *((g_optimal, gain) for gain in (0.3, -1.0, 2.0, 0.5, 1.1)),
    ]
    records = [
        dataclasses.asdict(row) | {"scores": {"train": [{"utility": 1.0}, {"utility": 1.0 + gain}]}}
        for row, gain in rows
    ]

    def told(kind, count):
        episodes = report._told_episodes(records, kind, count)
        return [round(record["scores"]["train"][-1]["utility"] - 1.0, 6) for record in episodes]

    assert told("g_optimal", 3) == [2.0, 0.5, -1.0]
    assert told("g_optimal", 5) == [2.0, 1.1, 0.5, 0.3, -1.0]
    assert told("uniform", 2) == [0.4, 0.2]
    records += [
        dataclasses.asdict(EvalRow(system=system)) | {"scores": {"train": [{"utility": 1.0}, {"utility": 1.0 + gain}]}}
        for system, gain in ((PLANNER, 1.3), (PLANNER, 1.7), (for_others(PLANNER), 5.0))
    ]
    assert told("uniform", 2) == [1.7, 1.3]


def test_nan_in_the_table_is_refused(data, tmp_path):
    table = json.loads(json.dumps(data.table))
    table[1]["cells"]["train/gain"]["high"] = float("nan")
    with pytest.raises(ValueError, match="reference policy, uniform.*train/gain"):
        report.write_report(tmp_path, dataclasses.replace(data, table=table))
    assert not list(tmp_path.iterdir())


def test_changed_words_are_marked():
    after = _ANCHOR.replace("grim noir", "warm noir").replace("the score", "the drums")
    assert changed_words(_ANCHOR, after) == [
        ("label", "Plot"),
        ("same", "a"),
        ("gone", "grim"),
        ("new", "warm"),
        ("same", "noir film."),
        ("label", "Reasons to like"),
        ("same", "the"),
        ("gone", "score."),
        ("new", "drums."),
    ]


def test_learning_curve_keeps_the_steps_where_a_metric_was_written():
    rows = [{"step": 1, "kl": 0.1}, {"step": 2, "kl": 0.2, "val": 3.0}]
    curve = figures.learning_curve("EAGLE", 0, rows, ["val", "kl"])
    assert curve["metrics"]["val"] == {"step": [2], "value": [3.0]}
    with pytest.raises(ValueError, match="'loss'.*never written"):
        figures.learning_curve("EAGLE", 0, rows, ["loss"])


def test_picture_shows_the_two_directions_of_largest_variance():
    rng = np.random.default_rng(1)
    catalogue = rng.normal(size=(200, 3)) * (5.0, 0.1, 2.0)
    picture = figures.embedding_picture(catalogue, {"A": catalogue[:2]})
    variances = np.sort(np.linalg.eigvalsh(np.cov(catalogue.T)))[::-1]
    covariance = np.cov(np.transpose(picture["catalogue"]))
    np.testing.assert_allclose(covariance, np.diag(variances[:2]), atol=1e-9)
    np.testing.assert_allclose(picture["explained_variance"], variances[:2] / variances.sum())
    np.testing.assert_allclose(picture["trajectories"][0]["points"], picture["catalogue"][:2])


def test_it_begins_with_whether_more_than_the_fields_steers():
    def line(gain, plot, system="EAGLE"):
        cells = {
            "held_out/gain": {"mean": 9, "low": 9, "high": 9},
            "independent/gain": {"mean": gain, "low": gain - 1, "high": gain + 1},
            "independent_plot/gain": {"mean": plot, "low": plot - 1, "high": plot + 1},
        }
        return {"row": f"{system}, uniform", "system": system, "cells": cells}

    both, fields, nothing = steering_sentences([line(2, 2), line(2, 0), line(0, 2), line(2, 2, "anchor")])
    assert "independent encoder" in both and both.startswith("EAGLE, uniform gains")
    assert fields.startswith("Only genres and year steer")
    assert "not shown to gain anything" in nothing
    told = steering_sentences([line(2, 2), line(2, 2, HEAD), line(2, 2, PLANNER)])
    assert [sentence.split(",")[0] for sentence in told] == [PLANNER, EAGLE, HEAD]
    assert list(steering_sentences([line(2, 2) | {"cells": {"held_out/gain": {"mean": 1, "low": 1, "high": 1}}}])) == []
