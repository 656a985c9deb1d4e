"""DPO on EAGLE's own samples in the toy world: learns in both units, counts, resumes bit-equal."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.metrics import NonFiniteError, read_metrics
from eagle_jax.eagle.dpo.training import PreferenceTask, train_preference_agent
from eagle_jax.eagle.dpo.update import PreferenceAgentSettings
from eagle_jax.learning.loop import Records
from tests.same_run import Interrupted, assert_same_run

GOAL = "wordc"
# As many actions as the REINFORCE agent's 24 iterations of 32 episodes: 6 rounds of 32 x 4.
ACTION = PreferenceAgentSettings(
    unit="action",
    strategy="random",
    metric="euclidean",
    num_samples=4,
    starts_per_round=32,
    beta=0.5,
    num_epochs=2,
    batch_size=24,
    learning_rate=3e-3,
    max_gradient_norm=1.0,
    validate_every=3,
    checkpoint_every=2,
)


@pytest.fixture(scope="module")
def train(toy, make_settings):
    """Trains in a folder; settings with equal shapes are compiled once."""

    def run(folder, reward_fn=None, environment=None, agent=None, **changes):
        def embed(states):
            return np.stack([toy.share_of(word, states) for word in toy.words], axis=1)

        task = PreferenceTask(
            environment=environment or toy.make_environment(),
            reward_fn=reward_fn or (lambda states: toy.share_of(GOAL, states)),
            draw_starts=toy.draw_starts,
            validation_starts=toy.draw_starts(np.random.default_rng(99), 16),
            embed_fn=embed,
        )
        return train_preference_agent(
            toy.model,
            "full",
            task,
            dataclasses.replace(ACTION, **changes),
            make_settings(**(agent or {})),
            seed=0,
            records=Records(Checkpoints(folder / "checkpoints", digest="d", max_to_keep=2), folder, "toy"),
        )

    return run


@pytest.fixture(scope="module")
def environment(toy):
    return toy.make_environment()


@pytest.fixture(scope="module")
def whole(toy, train, environment, tmp_path_factory):
    """A run of six rounds, never interrupted, and the reference's parameters before it."""
    before = jax.device_get(toy.model.params)
    result = train(tmp_path_factory.mktemp("whole"), environment=environment)
    chex.assert_trees_all_equal(jax.device_get(toy.model.params), before)  # the reference stays
    return result


def _validation(result):
    rows = [row for row in result.history if "validation/reward" in row]
    return {row["step"]: row["validation/reward"] for row in rows}


def test_reward_rises_and_the_best_is_kept(whole):
    curve = _validation(whole)
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


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(train, whole, toy, tmp_path):
    scored = 0

    def interrupting(states):
        nonlocal scored
        scored += 1
        # Validations at 0 and 3 ask twice, rounds three times: stopped in the fifth.
        if scored > 2 * 2 + 4 * 3 + 1:
            raise Interrupted
        return toy.share_of(GOAL, states)

    with pytest.raises(Interrupted):
        train(tmp_path, reward_fn=interrupting)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(5))  # saved was 4, best was 0 or 3
    assert_same_run(train(tmp_path), whole)
    assert_same_run(train(tmp_path), whole)  # nothing left to do


def test_whole_episodes_are_chosen_between(train, tmp_path):
    result = train(tmp_path, unit="final_text", strategy="easy", beta=0.1, num_epochs=4)
    curve = _validation(result)
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
    chex.assert_trees_all_equal(jax.device_get(result.params), jax.device_get(toy.model.params))


def test_a_utility_that_is_not_finite_stops_the_run(train, toy, tmp_path):
    scored = 0

    def failing(states):
        nonlocal scored
        scored += 1
        reward = toy.share_of(GOAL, states)
        if scored == 2 + 3 + 3:  # validation at 0, the first round, what the second one chose from
            reward[3] = np.nan
        return reward

    with pytest.raises(NonFiniteError, match="step 2: utility"):
        train(tmp_path, reward_fn=failing)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1]
