"""EAGLE on the toy world: it learns, stays where it is held, resumes bit-equal, stops at NaN."""

import dataclasses

import jax
import pytest
from flax.traverse_util import flatten_dict

from eagle_jax.base.metrics import NonFiniteError, read_metrics
from eagle_jax.eagle.agent.reinforce import train_eagle
from eagle_jax.language_model.decoder.config import LoRA
from eagle_jax.language_model.decoder.lora import add_lora
from tests.same_run import Interrupted, assert_same_run, validation_rewards, without_times
from tests.toy_world import GOAL, WORDS, agent_task, eagle_settings, interrupt, records_in, share_of, spoilt_at, to_nan

LOW_RANK = LoRA(rank=2, alpha=4.0, targets="attention|feed_forward")


def rest_of(states):
    return 1 - share_of(GOAL, states)


@pytest.fixture(scope="module")
def train(toy):
    """Trains in a folder; `reward_fn` takes states. Equal settings are compiled once."""

    def run(folder, reward_fn=None, seed=0, mode="full", **changes):
        model = toy
        if mode == "lora":
            config, params = add_lora(toy.config, toy.params, LOW_RANK, jax.random.key(1))
            model = dataclasses.replace(toy, config=config, params=params)
        task = dataclasses.replace(agent_task((GOAL, *WORDS[:2]), reward_fn), judges={"rest": rest_of})
        return train_eagle(model, mode, task, eagle_settings(**changes), seed=seed, records=records_in(folder))

    return run


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """A run of 24 iterations, never interrupted."""
    return train(tmp_path_factory.mktemp("whole"))


def test_reward_rises_and_the_best_is_kept(whole):
    curve = validation_rewards(whole)
    assert list(curve) == [0, 8, 16, 24]
    # Three words out of four are new: chance is 1/8, a perfect policy reaches 3/4 or more.
    assert curve[0] < 0.3 and curve[24] > 0.5
    assert whole.best_step == max(curve, key=curve.get)
    judged = {row["step"]: row["validation/rest"] for row in whole.history if "validation/rest" in row}
    assert judged == pytest.approx({step: 1 - reward for step, reward in curve.items()})
    row = whole.history[-1]
    assert row["environment_calls"] == round(96 * (1 - row["malformed_actions"]))
    assert row["policy/entropy"] < whole.history[1]["policy/entropy"]
    assert {"gain", "reward_std", "value/explained_variance", "value/loss"} <= row.keys()
    assert {"time/rollout", "time/update", "policy/gradient_norm"} <= row.keys()
    # The first iteration is at the reference.
    assert whole.history[1]["policy/kl"] == pytest.approx(0.0, abs=1e-5) and row["policy/kl"] > 0.3


def test_a_large_coefficient_keeps_the_policy_at_the_reference(train, whole, tmp_path):
    held = train(tmp_path, kl_coefficient=100.0)
    assert held.history[-1]["policy/kl"] < 0.05
    assert held.history[-1]["validation/reward"] < whole.history[-1]["validation/reward"]


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(train, whole, tmp_path):
    with pytest.raises(Interrupted):  # two calls for each scoring: validations at 0 and 8, iterations 1 to 11
        train(tmp_path, reward_fn=spoilt_at(2 * (2 + 10) + 1, interrupt))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(11))  # saved was 6, best was 0 or 8
    assert_same_run(train(tmp_path), whole)
    assert_same_run(train(tmp_path), whole)  # nothing left to do


def test_low_rank_updates_learn(train, toy, tmp_path):
    low_rank = train(tmp_path, mode="lora", policy_learning_rate=1e-2)
    curve = validation_rewards(low_rank)
    assert curve[24] > curve[0] + 0.1  # slower than with all parameters
    assert low_rank.history[1]["policy/kl"] == pytest.approx(0.0, abs=1e-5)
    base = flatten_dict(toy.params, sep="/")
    for params in (low_rank.params, low_rank.best_params):
        trained = flatten_dict(params, sep="/")
        assert all(trained[path] is leaf for path, leaf in base.items())


def test_another_seed_is_another_run(train, whole, tmp_path):
    other = train(tmp_path, seed=1)
    assert without_times(other.history[1:2]) != without_times(whole.history[1:2])


def test_a_reward_that_is_not_finite_stops_the_run(train, whole, tmp_path):
    with pytest.raises(NonFiniteError, match="step 7: reward"):
        # Validation at 0, six iterations, the last texts of 7.
        train(tmp_path, reward_fn=spoilt_at(2 * (1 + 6) + 1, to_nan))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(7))
    assert_same_run(train(tmp_path), whole)  # what was saved is good
