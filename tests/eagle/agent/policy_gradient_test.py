"""The update against plain autodiff on whole sequences, and what it does with advantages."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eagle_jax.eagle.agent.policy_gradient import Experience, clipped_weights, policy_gradient, update_agent
from eagle_jax.eagle.agent.state import init_agent
from eagle_jax.language_model.generation import SamplingSettings
from tests.language_model.forced import token_log_probs
from tests.toy_world import eagle_settings

SAMPLING = SamplingSettings(temperature=0.7, top_k=0, top_p=1.0, max_new_tokens=4)


def _plain_log_probs(toy, params, batch):
    """log pi of the actions, by scoring whole sequences: another path through the model."""
    scores = token_log_probs(toy.config, params, batch.tokens, batch.mask, SAMPLING.temperature)
    of_action = np.zeros(scores.shape, bool)
    of_action[:, -batch.action_mask.shape[1] :] = batch.action_mask
    return jnp.sum(jnp.where(of_action, scores, 0.0), axis=1)


def _plain_gradient(toy, params, batch, advantages):
    """Of -mean(A log pi)."""
    return jax.grad(lambda params: -jnp.mean(advantages * _plain_log_probs(toy, params, batch)))(params)


# Rewards 1, 2, 6 of three episodes have mean 3. V begins as this mean: with discount 1 and lambda 1, A = R - mean R at
# each of the two steps.
ADVANTAGES = np.array([-2.0, -2.0, -1.0, -1.0, 3.0, 3.0])


def _first_update(toy, batch, **changes):
    """Settings, experience, and what an update makes of them."""
    plain = {"horizon": 2, "gae_lambda": 1.0, "kl_coefficient": 0.0, "normalize_advantages": False}
    settings = eagle_settings(policy=SAMPLING, **plain, **changes)
    features = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)
    experience = Experience(batch, features, np.array([1.0, 2.0, 6.0], np.float32))
    state = init_agent(toy.params, 5, settings, jax.random.key(0))
    return settings, experience, *update_agent(toy.config, settings, {}, toy.params, state, experience)


@pytest.mark.parametrize("minibatch_size", [6, 4])  # 4: the last minibatch is half padding
def test_gradient_is_that_of_the_plain_loss(toy, played, minibatch_size):
    _, generations, batch = played
    params = toy.params
    advantages = jnp.array([1.0, -2.0, 0.5, 3.0, -1.0, 0.0])
    settings = eagle_settings(minibatch_size=minibatch_size, kl_coefficient=0.5, policy=SAMPLING)
    gradient_fn = jax.jit(functools.partial(policy_gradient, toy.config, settings))
    gradients, metrics = gradient_fn({}, params, params, batch, advantages)
    # At the reference the divergence is 0, and so is its gradient.
    np.testing.assert_allclose(metrics["policy/kl"], 0.0, atol=1e-6)
    expected = _plain_gradient(toy, params, batch, advantages)
    chex.assert_trees_all_close(gradients, expected, atol=2e-5, rtol=1e-3)
    lengths = [len(generation.token_ids) for generation in generations]
    np.testing.assert_allclose(metrics["policy/action_tokens"], np.mean(lengths), rtol=1e-6)
    assert 0.0 < metrics["policy/entropy"] < np.log(toy.config.vocab_size)


def test_first_update_follows_the_rewards_less_their_mean(toy, played):
    batch, params = played[2], toy.params
    _, experience, state, metrics = _first_update(toy, batch, max_gradient_norm=0.01)

    gradients = _plain_gradient(toy, params, batch, ADVANTAGES)
    np.testing.assert_allclose(metrics["policy/gradient_norm"], optax.tree.norm(gradients), rtol=1e-3)
    # Adam's first step has the size of the learning rate and the sign of the gradient.
    moved = jax.tree.map(lambda new, old: (new - old) / 3e-3, state.trainable, params)
    norm = optax.tree.norm(gradients)
    clear = jax.tree.map(lambda g: jnp.abs(g) > 0.01 * norm, gradients)
    wanted = jax.tree.map(lambda g, keep: jnp.where(keep, -jnp.sign(g), 0.0), gradients, clear)
    moved = jax.tree.map(lambda m, keep: jnp.where(keep, m, 0.0), moved, clear)
    chex.assert_trees_all_close(moved, wanted, atol=1e-2)
    # The baseline predicts nothing yet; its loss is half the variance of standardised returns.
    np.testing.assert_allclose(metrics["value/explained_variance"], 0.0, atol=1e-5)
    np.testing.assert_allclose(metrics["value/loss"], 0.5, rtol=1e-5)
    assert int(state.step) == 1
    np.testing.assert_allclose(state.value.returns.mean, 3.0)
    np.testing.assert_allclose(state.value.features.mean, experience.features.mean((0, 1)), atol=1e-6)


def test_an_action_counts_until_its_ratio_has_gone_where_the_advantage_asks():
    """By hand, c = 0.2: ratios 1.1, 1.3, 0.7, 1.3, 0.7 of advantages 2, 2, 2, -1, -1."""
    log_ratio = jnp.log(jnp.array([1.1, 1.3, 0.7, 1.3, 0.7]))
    weights, is_clipped = clipped_weights(jnp.array([2.0, 2.0, 2.0, -1.0, -1.0]), log_ratio, 0.2)
    np.testing.assert_allclose(weights, [2.2, 0.0, 1.4, -1.3, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(is_clipped, [False, True, False, False, True])


def test_several_updates_follow_the_clipped_surrogate(toy, played):
    """Against autodiff of min(rho A, clip(rho) A) on whole sequences, an Adam of optax' own between the steps."""
    batch, params = played[2], toy.params
    several = {"policy_updates": 3, "policy_learning_rate": 3e-4, "clip_range": 0.1, "minibatch_size": 4}
    settings, _, state, metrics = _first_update(toy, batch, **several)

    def surrogate(params, acted):
        ratio = jnp.exp(_plain_log_probs(toy, params, batch) - acted)
        return -jnp.mean(jnp.minimum(ratio * ADVANTAGES, jnp.clip(ratio, 0.9, 1.1) * ADVANTAGES))

    optimizer = optax.chain(
        optax.clip_by_global_norm(settings.max_gradient_norm), optax.adam(settings.policy_learning_rate)
    )
    acted, moving, shares = _plain_log_probs(toy, params, batch), optimizer.init(params), []
    for _ in range(3):
        ratio = jnp.exp(_plain_log_probs(toy, params, batch) - acted)
        shares.append(np.mean(np.where(ADVANTAGES > 0, ratio > 1.1, ratio < 0.9)))
        updates, moving = optimizer.update(jax.grad(surrogate)(params, acted), moving)
        params = optax.apply_updates(params, updates)
    assert 0 < shares[-1] < 1, shares  # the clip is met, and not everywhere
    np.testing.assert_allclose(metrics["policy/clipped"], np.mean(shares), atol=1e-6)
    chex.assert_trees_all_close(state.trainable, params, atol=2e-5)


@pytest.mark.parametrize("reward", [0.7312345, -7.3e5, 1e-6, 0.0])
def test_equal_rewards_are_no_signal(toy, played, reward):
    """TRL's advantages, (r - mean) / (std + 1e-4) in float64, are 0: nothing is to be learned."""
    settings = eagle_settings(horizon=2, gae_lambda=0.6, kl_coefficient=0.0, policy=SAMPLING)
    batch = jax.tree.map(lambda rows: np.concatenate([rows] * 5 + [rows[:2]]), played[2])
    features = np.random.default_rng(0).normal(size=(16, 2, 5)).astype(np.float32)
    experience = Experience(batch, features, np.full(16, reward, np.float32))
    params = toy.params
    state = init_agent(params, 5, settings, jax.random.key(0))
    for _ in range(3):  # the mean of all returns so far is as constant
        state, metrics = update_agent(toy.config, settings, {}, params, state, experience)
        assert metrics["policy/gradient_norm"] < 1e-6
        assert metrics["value/loss"] < 1e-6


def test_value_network_learns_to_predict_the_reward(toy, played):
    settings = eagle_settings(horizon=2, value_updates=50, policy_learning_rate=0.0, policy=SAMPLING)
    features = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)
    rewards = np.array([100.0, 200.0, 600.0], np.float32)  # the scale must not matter
    state = init_agent(toy.params, 5, settings, jax.random.key(0))
    # Of the state that an update returns, too, it is the same program.
    traced_once = jax.jit(chex.assert_max_traces(update_agent.__wrapped__, n=1), static_argnames=("config", "settings"))
    for _ in range(4):
        state, metrics = traced_once(
            toy.config, settings, {}, toy.params, state, Experience(played[2], features, rewards)
        )
    assert metrics["value/explained_variance"] > 0.9


def test_a_policy_that_draws_from_another_distribution_is_refused():
    with pytest.raises(ValueError, match="min_p must be 0 and repetition_penalty 1, got 0.1 and 1.0"):
        eagle_settings(policy=dataclasses.replace(SAMPLING, min_p=0.1))
