"""The toy's report: what is counted as converged, and verdicts that follow the curves."""

import math
import re

import pytest

from eagle_jax.studies.elm_toy.report import ToyData, summarize_toy, toy_verdict, write_toy_report


def run(training, condition, seed, nats, accuracy=1.0):
    curve = [{"step": 10 * i, "nats": value, "accuracy": accuracy} for i, value in enumerate(nats)]
    return {"training": training, "condition": condition, "seed": seed, "curve": curve}


LEARNS, LATER, RELAPSES = (5.0, 0.09, 0.01, 0.0), (5.0, 0.3, 0.09, 0.0), (5.0, 0.01, 3.0, 0.05)
STUCK = (5.0, 0.7, 0.7, math.log(2))


def test_a_run_has_converged_when_it_stays_below_the_bar():
    runs = [run("one stage", "rate 0.1", seed, nats) for seed, nats in enumerate((LEARNS, LATER))]
    runs += [run("one stage", "rate 0.1", 2, RELAPSES), run("one stage", "rate 0.1", 3, STUCK, 0.5)]
    (row,) = summarize_toy(runs)
    assert row["steps"] == [10, 20, 30, None]
    assert row["nats"] == [0.0, 0.0, 0.05, math.log(2)]
    assert row["num_constant"] == 1


@pytest.mark.parametrize(
    ("one", "two", "sentences"),
    [
        (STUCK, LEARNS, ["0 of 1 .* 1 end", "1 of 1 .* after 10 to 10", "^rate 0.1: more .* two", "As in the paper"]),
        (LEARNS, STUCK, ["1 of 1", "0 of 1", "^rate 0.1: fewer runs", "not seen here: 1 runs .* one stage, 0 with"]),
        (LEARNS, LATER, ["1 of 1", "1 of 1", "not seen here: 1 runs .* one stage, 1 with"]),
        (STUCK, STUCK, ["0 of 1", "0 of 1", "No run converges"]),
    ],
)
def test_the_verdict_says_what_happened(one, two, sentences):
    runs = [
        run(name, "rate 0.1", 0, nats, 0.5 if nats is STUCK else 1.0)
        for name, nats in (("one stage", one), ("two stages", two))
    ]
    found = list(toy_verdict(summarize_toy(runs)))
    assert len(found) == len(sentences)
    for said, expected in zip(found, sentences, strict=True):
        assert re.search(expected, said), said


def test_the_report_is_two_pages_and_a_figure(tmp_path):
    data = ToyData(
        title="A <toy>",
        model="tiny",
        texts=("one", "two"),
        num_steps=30,
        adapter_steps=10,
        runs=[run("one stage", "rate 0.1", 0, STUCK, 0.5), run("two stages", "rate 0.1", 0, LATER)],
        settings={"seed": 0},
        provenance={"python": "3"},
    )
    page = write_toy_report(tmp_path, data).read_text()
    assert "A &lt;toy&gt;" in page and "<svg" in page and "20" in page and "As in the paper" in page
    text = (tmp_path / "report.md").read_text()
    assert "| rate 0.1 | two stages | 0 | 1 | 20 | 0 of 1 |" in text
    assert (tmp_path / "report_curves.png").stat().st_size > 1000
