"""One gradient step of DPO on pairs of actions: against worked arithmetic, and what it must do."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.eagle.dpo.update import PairBatch, PreferenceAgentState, pair_optimizer, update_on_pairs
from eagle_jax.learning.policy_batch import action_log_probs
from tests.toy_world import dpo_settings, eagle_settings

TEMPERATURE = 0.7  # at which `played` was sampled
SETTINGS = dpo_settings(num_samples=2, starts_per_round=1, num_epochs=1, batch_size=3, learning_rate=1e-3)


@pytest.fixture(scope="module")
def reference(toy, played):
    _, _, actions = played
    return np.asarray(action_log_probs(toy.config, toy.params, actions, TEMPERATURE))


def step(toy, rows, reference_log_probs, weights, actions):
    """One update on pairs of samples, rows [B, 2, L] of the actions."""
    batch = PairBatch(
        jax.tree.map(lambda leaf: leaf[np.ravel(rows)], actions), np.float32(reference_log_probs), np.float32(weights)
    )
    params = jax.tree.map(jnp.copy, toy.params)
    state = PreferenceAgentState(params, pair_optimizer(SETTINGS).init(params))
    return update_on_pairs(toy.config, SETTINGS, {}, state, batch, TEMPERATURE)


def test_a_step_from_the_reference_raises_the_chosen_and_lowers_the_rejected(toy, played, reference):
    _, _, actions = played
    rows = np.array([[[0], [3]], [[4], [1]], [[2], [5]]])
    state, metrics = step(toy, rows, reference[rows[..., 0]], np.ones(3), actions)
    # Policy and reference are the same: every reward is 0 and every loss log 2.
    assert metrics["loss"] == pytest.approx(np.log(2), rel=1e-5)
    assert metrics["rewards/margin"] == pytest.approx(0, abs=1e-5)
    assert metrics["policy/gradient_norm"] > 0
    after = np.asarray(action_log_probs(toy.config, state.trainable, actions, TEMPERATURE))
    change = (after - reference)[rows[..., 0]]
    assert (change[:, 0] - change[:, 1]).mean() > 0.01
    assert change[:, 0].mean() > 0 > change[:, 1].mean()


def test_log_probs_of_a_sample_are_sums_over_its_actions(toy, played, reference):
    _, _, actions = played
    rows = np.array([[[0, 1], [2, 3]], [[4, 5], [0, 1]]])
    own = reference[rows].sum(axis=2)  # of the policy, which is the reference
    shifted = own - np.array([[1.0, 3.0], [-2.0, 0.5]])
    _, metrics = step(toy, rows, shifted, np.ones(2), actions)
    # Rewards beta (log pi - log pi_ref): 0.5, 1.5 and -1, 0.25; margins -1 and -1.25.
    margins = np.array([-1.0, -1.25])
    assert metrics["rewards/chosen"] == pytest.approx(-0.25, abs=1e-4)
    assert metrics["rewards/rejected"] == pytest.approx(0.875, abs=1e-4)
    assert metrics["rewards/accuracy"] == 0
    assert metrics["loss"] == pytest.approx(np.log1p(np.exp(-margins)).mean(), rel=1e-4)


def test_padding_changes_nothing(toy, played, reference):
    _, _, actions = played
    rows = np.array([[[0], [3]], [[4], [1]], [[0], [3]]])
    whole, metrics = step(toy, rows[:2], reference[rows[:2, :, 0]] + [[0, 1]], np.ones(2), actions)
    padded, same = step(toy, rows, reference[rows[..., 0]] + [[0, 1]], [1, 1, 0], actions)
    chex.assert_trees_all_close(whole.trainable, padded.trainable, atol=1e-5)
    for name, value in metrics.items():
        assert same[name] == pytest.approx(float(value), rel=1e-4, abs=1e-6), name


def test_rounds_follow_from_the_budget_of_the_other_agent():
    agent = eagle_settings()  # 24 x 32 = 768 episodes
    four = dataclasses.replace(SETTINGS, num_samples=4, starts_per_round=32)
    assert four.num_rounds(agent) == 6
    assert SETTINGS.num_rounds(agent) == 384
    with pytest.raises(ValueError, match="32 x 5 = 160 does not divide .* = 24 x 32 = 768"):
        dataclasses.replace(four, num_samples=5).num_rounds(agent)
