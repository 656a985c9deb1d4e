"""EAGLE on the toy world: it learns, stays where it is held, resumes bit-equal, stops at NaN."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.metrics import NonFiniteError, read_metrics
from eagle_jax.eagle.agent.reinforce import EagleTask, train_eagle
from eagle_jax.language_model.decoder.config import LoRA
from eagle_jax.language_model.decoder.lora import add_lora
from eagle_jax.learning.loop import Records
from tests.same_run import Interrupted, assert_same_run, without_times

GOAL = "wordc"
LOW_RANK = LoRA(rank=2, alpha=4.0, targets="attention|feed_forward")


@pytest.fixture(scope="module")
def train(toy, make_settings):
    """Trains in a folder; `reward_fn` takes states. Equal settings are compiled once."""

    def run(folder, reward_fn=None, seed=0, mode="full", **changes):
        model = toy.model
        if mode == "lora":
            config, params = add_lora(model.config, model.params, LOW_RANK, jax.random.key(1))
            model = dataclasses.replace(model, config=config, params=params)

        def features(states):
            shares = [toy.share_of(word, states) for word in (GOAL, *toy.words[:2])]
            return np.stack(shares, axis=1)

        task = EagleTask(
            environment=toy.make_environment(),
            reward_fn=reward_fn or (lambda states: toy.share_of(GOAL, states)),
            value_features_fn=features,
            draw_starts=toy.draw_starts,
            validation_starts=toy.draw_starts(np.random.default_rng(99), 16),
        )
        return train_eagle(
            model,
            mode,
            task,
            make_settings(**changes),
            seed=seed,
            records=Records(Checkpoints(folder / "checkpoints", digest="d", max_to_keep=2), folder, "toy"),
        )

    return run


def _curve(result):
    """Validation rewards by iteration."""
    rows = [row for row in result.history if "validation/reward" in row]
    return {row["step"]: row["validation/reward"] for row in rows}


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """A run of 24 iterations, never interrupted."""
    return train(tmp_path_factory.mktemp("whole"))


def test_reward_rises_and_the_best_is_kept(whole):
    curve = _curve(whole)
    assert list(curve) == [0, 8, 16, 24]
    # Three words out of four are new: chance is 1/8, a perfect policy reaches 3/4 or more.
    assert curve[0] < 0.3 and curve[24] > 0.5
    assert whole.best_step == max(curve, key=curve.get)
    row = whole.history[-1]
    assert row["environment_calls"] == round(96 * (1 - row["malformed_actions"]))
    assert row["policy/entropy"] < whole.history[1]["policy/entropy"]
    assert {"gain", "reward_std", "value/explained_variance", "value/loss"} <= row.keys()
    assert {"time/rollout", "time/update", "policy/gradient_norm"} <= row.keys()


def test_the_first_iteration_is_at_the_reference(whole):
    assert whole.history[1]["policy/kl"] == pytest.approx(0.0, abs=1e-5)
    assert whole.history[-1]["policy/kl"] > 0.3


def test_a_large_coefficient_keeps_the_policy_at_the_reference(train, whole, tmp_path):
    held = train(tmp_path, kl_coefficient=100.0)
    assert held.history[-1]["policy/kl"] < 0.05
    assert held.history[-1]["validation/reward"] < whole.history[-1]["validation/reward"]


@pytest.fixture
def interrupting(toy):
    """The reward, until it is asked for iteration 11's."""
    scored = 0

    def reward_fn(states):
        nonlocal scored
        scored += 1
        # Two calls for each scoring: validations at 0 and 8, iterations 1 to 11.
        if scored > 2 * (2 + 10):
            raise Interrupted
        return toy.share_of(GOAL, states)

    return reward_fn


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(train, whole, interrupting, tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path, reward_fn=interrupting)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(11))  # saved was 6, best was 0 or 8
    assert_same_run(train(tmp_path), whole)
    assert_same_run(train(tmp_path), whole)  # nothing left to do


def test_low_rank_updates_learn_and_resume(train, toy, interrupting, tmp_path):
    changes = {"mode": "lora", "policy_learning_rate": 1e-2}
    low_rank = train(tmp_path / "whole", **changes)
    curve = _curve(low_rank)
    assert curve[24] > curve[0] + 0.1  # slower than with all parameters
    assert low_rank.history[1]["policy/kl"] == pytest.approx(0.0, abs=1e-5)
    base = flatten_dict(toy.model.params, sep="/")
    for params in (low_rank.params, low_rank.best_params):
        trained = flatten_dict(params, sep="/")
        assert all(trained[path] is leaf for path, leaf in base.items())
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", reward_fn=interrupting, **changes)
    assert_same_run(train(tmp_path / "cut", **changes), low_rank)


def test_another_seed_is_another_run(train, whole, tmp_path):
    other = train(tmp_path, seed=1)
    assert without_times(other.history[1:2]) != without_times(whole.history[1:2])


def test_a_reward_that_is_not_finite_stops_the_run(train, whole, toy, tmp_path):
    scored = 0

    def failing(states):
        nonlocal scored
        scored += 1
        reward = toy.share_of(GOAL, states)
        if scored == 2 * (1 + 6) + 1:  # validation at 0, six iterations, the last texts of 7
            reward[3] = np.nan
        return reward

    with pytest.raises(NonFiniteError, match="step 7: reward"):
        train(tmp_path, reward_fn=failing)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(7))
    assert_same_run(train(tmp_path), whole)  # what was saved is good
