"""DPO on EAGLE's own samples in the toy world: learns in both units, counts, resumes bit-equal."""

import chex
import jax
import numpy as np
import pytest

from eagle_jax.base.metrics import NonFiniteError, read_metrics
from eagle_jax.eagle.dpo.training import train_preference_agent
from tests.same_run import Interrupted, assert_same_run, validation_rewards
from tests.toy_world import (
    WORDS,
    agent_task,
    dpo_settings,
    eagle_settings,
    interrupt,
    make_environment,
    records_in,
    spoilt_at,
    to_nan,
)


@pytest.fixture(scope="module")
def train(toy):
    """Trains in a folder; settings with equal shapes are compiled once."""

    def run(folder, reward_fn=None, environment=None, agent=None, **changes):
        task = agent_task(WORDS, reward_fn, environment)
        settings, agent = dpo_settings(**changes), eagle_settings(**(agent or {}))
        return train_preference_agent(toy, "full", task, settings, agent, seed=0, records=records_in(folder))

    return run


@pytest.fixture(scope="module")
def environment():
    return make_environment()


@pytest.fixture(scope="module")
def whole(toy, train, environment, tmp_path_factory):
    """A run of six rounds, never interrupted, and the reference's parameters before it."""
    before = jax.device_get(toy.params)
    result = train(tmp_path_factory.mktemp("whole"), environment=environment)
    chex.assert_trees_all_equal(jax.device_get(toy.params), before)  # the reference stays
    return result


def test_reward_rises_and_the_best_is_kept(whole):
    curve = validation_rewards(whole)
    assert list(curve) == [0, 3, 6]
    assert curve[0] < 0.3 and curve[6] > 0.5  # as REINFORCE with the same number of calls
    assert whole.best_step == max(curve, key=curve.get)
    first, last = whole.history[1], whole.history[-1]
    assert last["policy/kl"] > 0.3 > abs(first["policy/kl"])
    assert last["rewards/accuracy"] > 0.6 and last["rewards/margin"] > 0
    assert last["rewards/margin"] == pytest.approx(last["rewards/chosen"] - last["rewards/rejected"], rel=1e-4)
    assert last["loss"] < np.log(2) and last["gain"] > first["gain"]
    assert {"policy/gradient_norm", "pairs/similarity", "time/update"} <= last.keys()


def test_calls_are_those_of_the_budget(whole, environment):
    # 24 iterations x 32 episodes x 3 steps, and three validations of 16 episodes.
    spent = malformed = 0
    for row in whole.history:
        spent += row.get("environment_calls", 0) + row.get("validation/environment_calls", 0)
        malformed += row.get("malformed_actions", 0) * 32 * 4 * 3
        malformed += row.get("validation/malformed_actions", 0) * 16 * 3
    assert environment.num_calls == spent
    assert spent + round(malformed) == 24 * 32 * 3 + 3 * 16 * 3
    for row in whole.history[1:]:  # every state of every episode is a choice
        assert row["pairs"] + row["pairs/ties"] + row["pairs/without_choice"] == 32 * 3


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(train, whole, tmp_path):
    with pytest.raises(Interrupted):  # validations at 0 and 3 ask twice, rounds three times: in the fifth
        train(tmp_path, reward_fn=spoilt_at(2 * 2 + 4 * 3 + 2, interrupt))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(5))  # saved was 4, best was 0 or 3
    assert_same_run(train(tmp_path), whole)
    assert_same_run(train(tmp_path), whole)  # nothing left to do


def test_whole_episodes_are_chosen_between(train, tmp_path):
    result = train(tmp_path, unit="final_text", strategy="easy", beta=0.1, num_epochs=4)
    curve = validation_rewards(result)
    assert curve[6] > curve[0] + 0.1
    for row in result.history[1:]:
        assert row["pairs"] + row["pairs/ties"] + row["pairs/without_choice"] == 32
        assert row["environment_calls"] == round(32 * 4 * 3 * (1 - row["malformed_actions"]))


def test_a_utility_that_is_constant_gives_ties_and_no_step(train, toy, tmp_path):
    agent = {"num_iterations": 4}
    result = train(tmp_path, reward_fn=lambda states: np.ones(len(states)), agent=agent)
    (row,) = result.history[1:]
    assert row["pairs"] == 0 and row["pairs/ties"] > 32
    assert "loss" not in row
    chex.assert_trees_all_equal(jax.device_get(result.params), jax.device_get(toy.params))


def test_a_utility_that_is_not_finite_stops_the_run(train, tmp_path):
    with pytest.raises(NonFiniteError, match="step 2: utility"):
        # Validation at 0, the first round, what the second one chose from.
        train(tmp_path, reward_fn=spoilt_at(2 + 3 + 3, to_nan))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1]
