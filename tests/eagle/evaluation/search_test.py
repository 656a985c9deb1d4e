"""Greedy search on the world of `episodes_test`, worked by hand."""

import itertools

import numpy as np

from eagle_jax.eagle.evaluation.episodes import Judging
from eagle_jax.eagle.evaluation.search import search_greedily, searched_records
from tests.eagle.evaluation.episodes_test import SCORERS, STARTS, Summing, generation, make_environment, random_policy


class Rounding(Summing):
    """Every scoring of a text is a little above the one before."""

    def __init__(self):
        rounding = itertools.count(1)
        super().__init__(lambda terms: terms._replace(utility=terms.utility + 1e-9 * next(rounding)))


def search(policy_fn, width, horizon, starts=STARTS, batch_size=4, seed=0, scorers=SCORERS):
    options = {"width": width, "horizon": horizon, "batch_size": batch_size}
    searched = search_greedily(Judging(scorers), starts, seed, policy_fn, make_environment(), **options)
    assert [len(of_step.steps) for of_step in searched.played] == [width * len(starts)] * horizon
    return searched_records(Judging(scorers), starts, seed, searched)


def cycling(*actions):
    """One after the other, the first again for each batch."""

    def policy_fn(states, seed):
        found = [actions[row % len(actions)] for row in range(len(states))]
        return [generation(action, "length" if action == "x" else "stop") for action in found]

    return policy_fn


def test_it_goes_on_from_the_best_of_each_states_actions():
    for record in search(cycling("-2", "4", "x"), 3, 2, batch_size=6):
        assert [step.action for step in record.steps] == ["4", "4"]
        utilities = [score["utility"] for score in record.scores["train"]]
        assert np.diff(utilities).tolist() == [4.0, 4.0] and len(record.scores["held_out"]) == 3
        # Six actions, two of which could not be applied.
        assert (record.num_steps, record.environment_calls) == (6, 4)
        assert record.malformed == {"action:length": 2}


def test_it_stays_where_nothing_is_better():
    for record in search(cycling("-2", "0"), 2, 3):
        assert record.steps == () and (record.num_steps, record.environment_calls) == (6, 6)


def test_a_text_that_stays_the_same_is_no_step_however_it_is_rounded():
    for record in search(cycling("x"), 2, 3, scorers={"train": Rounding()}):
        assert record.steps == () and record.malformed == {"action:length": 6}


def test_every_step_gains_and_the_same_seed_finds_the_same():
    found, again, other = (search(random_policy, 5, 4, seed=seed) for seed in (1, 1, 2))
    assert found == again and found != other
    for record in found:
        assert (np.diff([score["utility"] for score in record.scores["train"]]) > 0).all()
    wide = search(random_policy, 20, 4, seed=1)
    assert np.mean([r.scores["train"][-1]["utility"] for r in wide]) > np.mean(
        [r.scores["train"][-1]["utility"] for r in found]
    )
