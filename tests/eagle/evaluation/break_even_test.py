"""Best of n of N episodes against all subsets, and break-evens worked by hand."""

import dataclasses
import itertools

import numpy as np
import pytest

from eagle_jax.eagle.evaluation.break_even import break_even, expected_best, pays_sentences
from eagle_jax.eagle.evaluation.systems import BEST_OF_N, EAGLE, GREEDY_SEARCH, PLANNER, EvalRow
from eagle_jax.eagle.evaluation.table import Resampling
from eagle_jax.reports.statistics import BootstrapSettings
from tests.eagle.evaluation.records import make_record

RESAMPLING = Resampling(BootstrapSettings(num_resamples=200, confidence=0.95, seed=0))
BASELINE, AGENT = (EvalRow(system=BEST_OF_N, kind="uniform", budget="4 x 2 steps", policy=of) for of in (None, EAGLE))
EDITS = EvalRow(system=BEST_OF_N, kind="uniform", budget="2 x 1 steps")


@pytest.mark.parametrize("rewards", [[0.3, -1.0, 2.0, 0.7, 0.1, 0.2], [1.0, 1.0, 0.0], [5.0]])
def test_best_of_n_is_the_mean_over_all_subsets(rewards):
    values = np.random.default_rng(0).normal(size=len(rewards))
    for count, found in enumerate(expected_best(rewards, values), start=1):
        chosen = [
            values[max(subset, key=lambda place: (rewards[place], -place))]
            for subset in itertools.combinations(range(len(rewards)), count)
        ]
        assert found == pytest.approx(np.mean(chosen))


def records_of(rewards, shift=(0.0,) * 6):
    """A record of four episodes of two steps for each pair, whose rewards are shifted from pair to pair; the held-out
    encoder gives them turned round."""
    tries = [tuple({"reward": r + more, "train": r + more, "held_out": -r - more} for r in rewards) for more in shift]
    return [
        make_record([0.0, 0.0], [None], entity_index=pair, tries=of_pair, num_steps=2 * len(of_pair))
        for pair, of_pair in enumerate(tries)
    ]


def lines_of(rewards, shift=(0.0,) * 6):
    records = {
        BASELINE.title: records_of([1.0, 2.0, 3.0, 4.0]),
        AGENT.title: records_of(rewards, shift),
        EDITS.title: records_of([9.0, 9.0]),
    }
    search = EvalRow(system=GREEDY_SEARCH, kind="uniform", budget="2 actions", policy=EAGLE)
    return break_even(records, [EDITS, BASELINE, AGENT, search], {EAGLE: {"uniform": 120.0}}, RESAMPLING)


def test_lines_have_cost_as_many_calls_as_best_of_n_and_say_what_they_are_worth():
    lines = lines_of([2.0, 3.0, 4.0, 5.0])
    # 8 calls a pair; 120 calls are made up for by 6, 4 or 2 calls less. Best of 1, 2, 3 of 2 to 5: 7/2, 13/3, 19/4.
    assert [(line["agent"], line["calls"], line["best_of"], line["episodes"], line["pairs"]) for line in lines] == [
        ("EAGLE, uniform", 8, 4, 1, 20.0),
        ("EAGLE, uniform", 8, 4, 2, 30.0),
        ("EAGLE, uniform", 8, 4, 3, 60.0),
    ]
    for encoder, sign in (("train", 1), ("held_out", -1)):
        means = [line["utility"][encoder]["mean"] for line in lines]
        assert means == pytest.approx([sign * 7 / 2, sign * 13 / 3, sign * 19 / 4])
        differences = [line["differences"][encoder]["mean"] for line in lines]
        assert differences == pytest.approx([mean - sign * 4 for mean in means])
    assert list(pays_sentences(lines, {"train": "encoder", "held_out": "other one"})) == [
        "EAGLE, uniform: at 8 calls a pair, training pays from 30 served pairs on, by the encoder.",
        "EAGLE, uniform: at 8 calls a pair, training is not shown to pay for up to 60 served pairs, by the other one.",
    ]


def test_what_cannot_be_told_from_best_of_n_is_not_shown_to_pay():
    (said,) = pays_sentences(lines_of([2.0, 3.0, 4.0, 5.0], [-2.0, 2.0] * 3), {"train": "encoder"})
    assert said.endswith("training is not shown to pay for up to 60 served pairs, by the encoder.")
    (said,) = pays_sentences(lines_of([8.0, 9.0, 9.0, 9.0]), {"train": "encoder"})
    assert said.endswith("training pays from 20 served pairs on, by the encoder.")


def test_a_planner_has_one_episode_and_takes_fewer_calls_than_each_best_of_n():
    planner, rows = EvalRow(system=PLANNER), [BASELINE, EDITS, EvalRow(system=PLANNER)]
    records = {
        BASELINE.title: records_of([1.0, 2.0, 3.0, 4.0]),
        EDITS.title: [dataclasses.replace(of, num_steps=2) for of in records_of([9.0, 9.0])],
        planner.title: [
            make_record([0.0, 1.0, 7.0], [None, None], entity_index=pair, num_steps=2) for pair in range(6)
        ],
    }
    (line,) = break_even(records, rows, {PLANNER: {None: 120.0}}, RESAMPLING)  # best of two edits takes as many calls
    # 8 calls a pair, 2 of its own: 120 calls are made up for by 20 pairs.
    assert (line["agent"], line["baseline"], line["episodes"], line["best_of"]) == (PLANNER, BASELINE.title, 1, 4)
    assert line["pairs"] == 20 and line["utility"]["train"]["mean"] == 7 and line["differences"]["train"]["mean"] == 3
    (said,) = pays_sentences([line], {"train": "encoder"})
    assert said == "planner: at 8 calls a pair, training pays from 20 served pairs on, by the encoder."


def test_without_best_of_n_of_an_agent_there_is_nothing_to_say():
    records = {row.title: records_of([1.0, 2.0]) for row in (BASELINE, EDITS)}
    assert break_even(records, [EDITS, BASELINE], {EAGLE: {"uniform": 9.0}}, RESAMPLING) == []
    assert list(pays_sentences([], {"train": "encoder"})) == []
