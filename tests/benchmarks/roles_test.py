"""What is counted of rewritings, and agreement of the rule with a reader."""

import random

import pytest
from sklearn.metrics import cohen_kappa_score

from benchmarks import roles
from eagle_jax.data.prompts import render_blocks
from eagle_jax.language_model.generation import SamplingSettings, ScriptedGenerator


def test_kappa_is_that_of_scikit_learn():
    draw = random.Random(0)
    for count in (5, 50, 200):
        ours = [draw.random() < 0.7 for _ in range(count)]
        theirs = [one if draw.random() < 0.8 else not one for one in ours]
        assert roles.kappa(ours, theirs) == pytest.approx(cohen_kappa_score(ours, theirs))
    assert roles.kappa([True, True], [True, True]) == 1.0


def test_shares_are_counted_by_hand():
    """Two films under two actions: one text at once, one at the second try, one without a robot, one never."""
    plots = ["A dog runs away from a farm.", "Two boys fish."]
    texts = [render_blocks({"PLOT": plot, "REASONS_TO_LIKE": "", "REASONS_TO_DISLIKE": ""}) for plot in plots]
    material = roles.Material(["Dog", "Boys"], texts, [], [("place", "Set it in Japan."), ("people", "Add a robot.")])
    answers = {
        ("dog", "Japan"): ["In Japan, the dog meets a monk in the hills."],
        ("boys", "Japan"): ["In Japan, no.", "In Japan, the boys catch a whale near Tokyo."],
        ("dog", "robot"): ["Then a neighbour takes the dog home to his wife."],
        ("boys", "robot"): ["Then a robot"] * 2,
    }

    def write(prompt, rng):
        asked = prompt.text.rpartition("Plot: ")[2]
        return answers[next(w for w in ("dog", "boys") if w in asked), "Japan" if "Japan" in asked else "robot"].pop(0)

    sampling = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=40)
    rows, counted = roles.measure(
        "edit", ScriptedGenerator(write), material, sampling, max_tries=2, checks=False, seed=0
    )
    assert [row["changed"] for row in rows] == [True, False, True, False]
    assert [row["tries"] for row in rows] == [1, 1, 2, 2]
    assert counted["calls"] == 6 and counted["refused"] == {"too_short": 1, "no_sentence": 2}
    for row, about in zip(rows, (True, False, True, None), strict=True):
        row["about"] = about
    found = roles.summed("edit", rows, counted)
    assert (found["first"], found["accepted"], found["changed"]) == (2 / 4, 3 / 4, 2 / 4)
    assert found["about"] == 2 / 3 and found["calls"] == 6 / 4
