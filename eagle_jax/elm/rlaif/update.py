"""One iteration's update of RLAIF as a pure function (Tennenholtz et al. 2024, ELM, appendix H).

Value and critic read the last hidden states of the pretrained ELM, which is run for its log-probs
anyway and whose states do not move while they are fitted, and how likely the text so far was to it.
The states alone tell next to nothing of the consistency of the text, its likelihood a quarter of
the variance (on MiniLens). They predict deviations from the mean reward in units of its deviation,
so that one learning rate suits any reward.

Axis letters: `B` texts, `T` tokens that are predicted, `D` model width, `V` vocabulary.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from eagle_jax.elm.model.adapter import apply_adapter
from eagle_jax.elm.model.embedding_lm import read_embedded
from eagle_jax.elm.model.prompts import EmbeddedBatch
from eagle_jax.elm.rlaif import losses
from eagle_jax.elm.rlaif.state import RlaifSettings, RlaifState, head_optimizer, policy_optimizer
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.log_probs import pick_tokens, scaled_log_softmax
from eagle_jax.language_model.sharding import constrain_tree
from eagle_jax.learning.optimizers import apply_gradients
from eagle_jax.learning.trainable import join
from eagle_jax.learning.value import deviation, update_statistics


class _Texts(NamedTuple):
    """What is the same while networks and policy are fitted: features [B, T, D + 1] of the states,
    log-probs of the pretrained ELM and their excess over the expected one [B, T, V], the tokens
    drawn and mask [B, T], rewards."""

    features: jax.Array
    log_reference: jax.Array
    excess: jax.Array
    tokens: jax.Array
    mask: jax.Array
    rewards: jax.Array


@functools.partial(jax.jit, static_argnames=("config", "settings"), donate_argnames="state")
def update(
    config: DecoderConfig,
    settings: RlaifSettings,
    frozen: Params,
    pretrained: Params,
    state: RlaifState,
    batch: EmbeddedBatch,
    rewards: jax.Array,
) -> tuple[RlaifState, dict[str, jax.Array]]:
    """`head_updates` steps of the networks and one of the policy on its own texts; metrics [] from
    before them. loss_weights of the batch are 1 at the texts' tokens; rewards [B].

    The state is donated.
    """
    chex.assert_shape(rewards, (batch.tokens.shape[0],))
    temperature = settings.sampling.temperature
    states, log_reference = jax.lax.stop_gradient(_read(config, join(pretrained, frozen), batch, temperature))
    tokens = batch.tokens[:, 1:]
    mask = batch.loss_weights[:, 1:] > 0
    features, excess = state_features(states, log_reference, tokens, mask)
    texts = _Texts(features, log_reference, excess, tokens, mask, rewards)
    # With this iteration's rewards in it the untrained baseline is already their mean.
    statistics = update_statistics(state.reward_statistics, rewards)

    def policy_loss(trainable):
        _, log_policy = _read(config, join(trainable, frozen), batch, temperature)
        # In the same pass over the texts; the networks are fitted to the policy before its step.
        fixed = jax.lax.stop_gradient(log_policy)
        fitted, head_losses = _fit_heads(settings, state, statistics, fixed, texts)
        # A baseline that has seen a text's reward would bias the gradient.
        heads = state.heads if settings.method == "reinforce" else fitted[0]
        values = _values(heads, statistics, texts)
        loss = _policy_loss(settings, log_policy, values, texts)
        metrics = _text_metrics(fixed, texts) | {"policy/loss": loss}
        return loss, (fitted, metrics | head_losses)

    gradients, (fitted, metrics) = jax.grad(policy_loss, has_aux=True)(state.trainable)
    heads, target_heads, head_optimizer_state = fitted
    gradients = constrain_tree(gradients)
    metrics |= {"policy/gradient_norm": optax.tree.norm(gradients)}
    new_state = apply_gradients(policy_optimizer(settings), gradients, state)._replace(
        step=state.step + 1,
        heads=heads,
        head_optimizer_state=head_optimizer_state,
        target_heads=target_heads,
        reward_statistics=statistics,
    )
    return new_state, metrics


def _read(config, params, batch, temperature):
    """Last hidden states [B, T, D] and log-probs [B, T, V] of the token that follows."""
    read = read_embedded(config, params, batch)
    log_probs = scaled_log_softmax(read.unembed(read.states)[:, :-1], temperature)
    return read.states[:, :-1].astype(jnp.float32), log_probs


def state_features(
    states: jax.Array, log_reference: jax.Array, tokens: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What the networks read of s_n: the hidden state, and sum_{m < n} e_m(a_m) of the tokens so
    far, [B, T, D + 1]; e_n(a) = log p_pre(a | s_n) - E_pre[log p_pre(. | s_n)], [B, T, V].

    Under p_pre the sum has mean 0 wherever a text stands.
    """
    expected = jnp.sum(jnp.exp(log_reference) * log_reference, axis=-1, keepdims=True)
    excess = log_reference - expected
    of_drawn = jnp.where(mask, pick_tokens(excess, tokens), 0.0)
    so_far = jnp.cumsum(of_drawn, axis=1) - of_drawn
    return jnp.concatenate([states, so_far[..., None]], axis=-1), excess


def _values(heads, statistics, texts):
    """In units of the reward: "value" [B, T], "critic" [B, T, V].

    V: a perceptron of the features; Q adds what it learned that a nat of e_n(a) is worth.
    """
    values = {name: apply_adapter(head, texts.features) for name, head in heads.items()}
    if "value" in values:
        values["value"] = values["value"][..., 0]
    if "critic" in values:
        values["critic"] += heads["critic"]["per_nat"] * texts.excess
    center, scale = statistics.mean, deviation(statistics)
    return {name: center + scale * value for name, value in values.items()}


def _policy_loss(settings, log_policy, values, texts):
    alpha, mask, log_reference = settings.kl_coefficient, texts.mask, texts.log_reference
    if settings.method == "reinforce":
        divergence = losses.token_divergence(log_policy, log_reference, mask)
        returns = losses.returns_to_go(texts.rewards, divergence, mask, alpha)
        return losses.regularized_reinforce_loss(
            pick_tokens(log_policy, texts.tokens), divergence, returns, values["value"], mask, alpha
        )
    if settings.method == "soft_actor_critic":
        return losses.actor_loss(log_policy, log_reference, values["critic"], mask, alpha)
    optimal = losses.optimal_log_policy(log_reference, values["critic"], alpha)
    return losses.distillation_loss(log_policy, optimal, mask)


def _head_losses(settings, values, target, log_policy, texts):
    """Of each network; `target` are the values of the target networks."""
    alpha, mask, log_reference = settings.kl_coefficient, texts.mask, texts.log_reference
    if settings.method == "reinforce":
        divergence = losses.token_divergence(log_policy, log_reference, mask)
        returns = losses.returns_to_go(texts.rewards, divergence, mask, alpha)
        return {"value": losses.bellman_residual(values["value"], returns, mask)}
    if settings.method == "soft_actor_critic":
        next_values = target["value"]
        soft = losses.soft_values(log_policy, log_reference, target["critic"], alpha)
        of_value = {"value": losses.bellman_residual(values["value"], soft, mask)}
    else:
        next_values = losses.optimal_values(log_reference, target["critic"], alpha)
        of_value = {}
    targets = losses.bellman_targets(next_values, texts.rewards, mask)
    residual = losses.bellman_residual(pick_tokens(values["critic"], texts.tokens), targets, mask)
    return of_value | {"critic": residual}


def _fit_heads(settings, state, statistics, log_policy, texts):
    """`head_updates` steps -> (networks, their targets, optimiser state), losses before them."""
    optimizer = head_optimizer(settings)

    def objective(heads, targets):
        values, target = (_values(of, statistics, texts) for of in (heads, targets))
        parts = _head_losses(settings, values, target, log_policy, texts)
        return sum(parts.values()), parts

    def step(carry, _):
        heads, targets, optimizer_state = carry
        gradients, parts = jax.grad(objective, has_aux=True)(heads, targets)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state)
        heads = optax.apply_updates(heads, updates)
        targets = optax.incremental_update(heads, targets, settings.target_rate)
        return (heads, targets, optimizer_state), parts

    carry = (state.heads, state.target_heads, state.head_optimizer_state)
    carry, parts = jax.lax.scan(step, carry, length=settings.head_updates)
    return carry, {f"{name}/loss": of_steps[0] for name, of_steps in parts.items()}


def _text_metrics(log_policy, texts):
    """Means over texts: KL to the pretrained ELM and tokens; entropy of a token."""
    num_tokens = jnp.sum(texts.mask, dtype=jnp.float32)
    entropy = -jnp.sum(jnp.exp(log_policy) * log_policy, axis=-1)
    divergence = losses.token_divergence(log_policy, texts.log_reference, texts.mask)
    return {
        "policy/kl": jnp.mean(jnp.sum(divergence, axis=1)),
        "policy/entropy": jnp.sum(jnp.where(texts.mask, entropy, 0.0)) / num_tokens,
        "policy/tokens": num_tokens / texts.mask.shape[0],
    }
