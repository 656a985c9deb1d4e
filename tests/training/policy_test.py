"""The policy's arrays and its gradient, against the sampler and against plain autodiff."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.environment.rollout import rollout
from eagle_jax.language_model.generation import Generation, SamplingSettings
from eagle_jax.language_model.local import LocalGenerator
from eagle_jax.language_model.sampling import token_log_probs
from eagle_jax.training.policy import (
    action_logits,
    encode_policy_batch,
    make_policy_fn,
    state_prompts,
)

SAMPLING = SamplingSettings(temperature=0.7, top_p=1.0, max_new_tokens=4)


@pytest.fixture(scope="module")
def played(toy):
    """One step of six episodes: prompts, generations and their batch."""
    environment = toy.make_environment()
    policy_fn = make_policy_fn(
        LocalGenerator(toy.model, 8, 32), toy.book, toy.entity_format, SAMPLING
    )
    starts = toy.draw_starts(np.random.default_rng(1), 6)
    step = rollout(policy_fn, environment, environment.reset(starts), 1, seed=3).steps[0]
    prompts = state_prompts(toy.book, toy.entity_format, step.states)
    batch = encode_policy_batch(toy.model.tokenizer, prompts, step.generations, 4, 32)
    return prompts, step.generations, batch


def test_prompts_end_where_actions_begin(toy, played):
    prompts, generations, batch = played
    encode = toy.model.tokenizer.encode
    assert batch.tokens.shape == batch.mask.shape == (6, 32 + 4)
    assert batch.action_mask.shape == (6, 4)
    for row, (prompt, generation) in enumerate(zip(prompts, generations, strict=True)):
        length = len(encode(prompt.text))
        assert not batch.mask[row, : 32 - length].any()
        assert batch.mask[row, 32 - length : 32].all()
        np.testing.assert_array_equal(batch.tokens[row, 32 - length : 32], encode(prompt.text))
        written = len(generation.token_ids)
        np.testing.assert_array_equal(batch.tokens[row, 32:][:written], generation.token_ids)
        np.testing.assert_array_equal(batch.action_mask[row], np.arange(4) < written)
        np.testing.assert_array_equal(batch.mask[row, 32:], batch.action_mask[row])
        if generation.stop_reason == "stop":
            assert generation.token_ids[-1] == toy.model.tokenizer.token_id("#END_ACTION")


def test_teacher_forced_log_probs_equal_the_sampled_ones(toy, played):
    _, generations, batch = played
    logits = action_logits(toy.model.config, toy.model.params, batch)
    log_probs = jax.nn.log_softmax(logits / SAMPLING.temperature)
    for row, generation in enumerate(generations):
        for position, (token, expected) in enumerate(
            zip(generation.token_ids, generation.log_probs, strict=True)
        ):
            np.testing.assert_allclose(log_probs[row, position, token], expected, atol=1e-4)


def test_no_gradient_reaches_what_comes_after_the_action(toy, played):
    """Tokens of padding, left and right, move no action's logits."""
    _, _, batch = played
    other = batch._replace(tokens=np.where(batch.mask, batch.tokens, 5).astype(np.int32))
    config, params = toy.model.config, toy.model.params
    logits, changed = action_logits(config, params, batch), action_logits(config, params, other)
    np.testing.assert_array_equal(
        np.asarray(logits)[batch.action_mask], np.asarray(changed)[batch.action_mask]
    )


def test_remote_and_overlong_generations_are_refused(toy, played):
    prompts, _, _ = played
    for token_ids, message in ((None, "token ids"), ((1,) * 5, "5 tokens, room is for 4")):
        generation = Generation(text="", token_ids=token_ids, log_probs=None, stop_reason="stop")
        with pytest.raises(ValueError, match=message):
            encode_policy_batch(toy.model.tokenizer, prompts[:1], [generation], 4, 32)


def _plain_loss(toy, params, batch, advantages, temperature):
    """-mean(A log pi), by scoring whole sequences: another path through the model."""
    scores = token_log_probs(toy.model.config, params, batch.tokens, batch.mask, temperature)
    of_action = np.zeros(scores.shape, bool)
    of_action[:, -batch.action_mask.shape[1] :] = batch.action_mask
    return -jnp.mean(advantages * jnp.sum(jnp.where(of_action, scores, 0.0), axis=1))


@pytest.mark.parametrize("minibatch_size", [6, 4])  # 4: the last minibatch is half padding
def test_policy_gradient_is_that_of_the_plain_loss(toy, played, minibatch_size, make_settings):
    from eagle_jax.training.policy_gradient import policy_gradient

    _, generations, batch = played
    config, params = toy.model.config, toy.model.params
    advantages = jnp.array([1.0, -2.0, 0.5, 3.0, -1.0, 0.0])
    settings = make_settings(
        minibatch_size=minibatch_size, kl_coefficient=0.5, policy=SAMPLING
    )
    gradient_fn = jax.jit(functools.partial(policy_gradient, config, settings))
    gradients, metrics = gradient_fn(params, params, batch, advantages)
    expected = jax.grad(functools.partial(_plain_loss, toy))(
        params, batch, advantages, SAMPLING.temperature
    )
    # At the reference the divergence is 0, and so is its gradient.
    np.testing.assert_allclose(metrics["policy/kl"], 0.0, atol=1e-6)
    chex.assert_trees_all_close(gradients, expected, atol=2e-5, rtol=1e-3)
    lengths = [len(generation.token_ids) for generation in generations]
    np.testing.assert_allclose(metrics["policy/action_tokens"], np.mean(lengths), rtol=1e-6)
    assert 0.0 < metrics["policy/entropy"] < np.log(config.vocab_size)
