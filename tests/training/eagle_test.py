"""EAGLE on the toy world: it learns, stays where it is held, resumes bit-equal, stops at NaN."""

from __future__ import annotations

import chex
import jax
import numpy as np
import pytest

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.metrics import NonFiniteError, read_metrics
from eagle_jax.training.eagle import EagleTask, train_eagle

GOAL = "wordc"


class Interrupted(Exception):
    pass


@pytest.fixture
def train(toy, make_settings, tmp_path):
    """Trains in a folder of its own under tmp_path; `reward_fn` takes states."""

    def run(name="run", reward_fn=None, seed=0, **changes):
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
            toy.model,
            toy.model.params,
            task,
            make_settings(**changes),
            seed=seed,
            checkpoints=Checkpoints(tmp_path / name / "ckpt", digest="d", max_to_keep=2),
            metrics_folder=tmp_path / name,
            description="toy",
        )

    return run


def validation(result):
    rows = [row for row in result.history if "validation/reward" in row]
    return {row["step"]: row["validation/reward"] for row in rows}


def test_reward_rises_and_the_best_is_kept(train):
    result = train(num_iterations=30, validate_every=10, checkpoint_every=30)
    curve = validation(result)
    assert list(curve) == [0, 10, 20, 30]
    # Three words out of four are new: chance is 1/8, a perfect policy reaches 3/4 or more.
    assert curve[0] < 0.25 and curve[30] > 0.6
    assert result.best_step == max(curve, key=curve.get)
    row = result.history[-1]
    assert row["policy/kl"] > 0.1 and 0 <= row["malformed_actions"] < 0.2
    assert row["environment_calls"] == round(48 * (1 - row["malformed_actions"]))
    assert {"gain", "reward_std", "value/explained_variance", "policy/entropy"} <= row.keys()
    assert {"time/rollout", "time/update", "policy/gradient_norm"} <= row.keys()


@pytest.mark.parametrize("estimator", ["exact", "token"])
def test_a_large_coefficient_keeps_the_policy_at_the_reference(train, estimator):
    changes = {"num_iterations": 12, "kl_estimator": estimator, "validate_every": 12}
    held = train("held", kl_coefficient=100.0, **changes).history[-1]
    free = train("free", kl_coefficient=0.0, **changes).history[-1]
    assert held["policy/kl"] < 0.05 < 0.3 < free["policy/kl"]


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(train, toy, tmp_path):
    whole = train("whole")
    calls = 0

    def interrupting(states):
        nonlocal calls
        calls += 1
        if calls > 2 * (1 + 5 + 2) - 1:  # 2 calls a scoring: in iteration 5 of 6, saved were 2, 4
            raise Interrupted
        return toy.share_of(GOAL, states)

    with pytest.raises(Interrupted):
        train("cut", reward_fn=interrupting)
    assert [row["step"] for row in read_metrics(tmp_path / "cut/metrics.jsonl")] == [0, 1, 2, 3, 4]
    resumed = train("cut")
    chex.assert_trees_all_equal(jax.device_get(resumed.params), jax.device_get(whole.params))
    chex.assert_trees_all_equal(
        jax.device_get(resumed.best_params), jax.device_get(whole.best_params)
    )
    assert resumed.best_step == whole.best_step

    def without_times(history):
        return [{k: v for k, v in row.items() if "time/" not in k} for row in history]

    assert without_times(resumed.history) == without_times(whole.history)
    again = train("cut")  # nothing left to do
    assert again.history == resumed.history
    chex.assert_trees_all_equal(jax.device_get(again.params), jax.device_get(whole.params))
    other = train("other", seed=1)
    leaves = zip(jax.tree.leaves(other.params), jax.tree.leaves(whole.params), strict=True)
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in leaves)


def test_a_reward_that_is_not_finite_stops_the_run(train, toy, tmp_path):
    calls = 0

    def failing(states):
        nonlocal calls
        calls += 1
        reward = toy.share_of(GOAL, states)
        if calls == 9:  # validation 2, iterations 1 and 2 with validation 6: the ninth is in 3
            reward[3] = np.nan
        return reward

    with pytest.raises(NonFiniteError, match="step 3: reward"):
        train(reward_fn=failing)
    assert [row["step"] for row in read_metrics(tmp_path / "run/metrics.jsonl")] == [0, 1, 2]
    assert train().history[-1]["step"] == 6  # what was saved is good


def test_settings_are_checked(make_settings):
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        make_settings(horizon=0)
