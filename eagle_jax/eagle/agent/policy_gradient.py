"""One iteration's update of the agent, as a pure function (Tennenholtz et al. 2024, section 4).

    minimise  -mean(A log pi(action | state)) + kl_coefficient mean(KL(pi || pi_ref)),
    A by generalized advantage estimation on V, V by regression on the returns A + V.

Policy and reference policy are the same `frozen` parameters (one argument, one set of buffers, not
donated) joined with their own trainable ones; V is a network of its own on features of states.

Axis letters: `E` episodes, `H` horizon, `B` = E H actions (episode by episode), `N` action tokens,
`F` features of a state, `V` vocabulary.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from eagle_jax.eagle.agent.state import AgentState, EagleSettings, agent_optimizer
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.log_probs import linear_loss
from eagle_jax.language_model.sharding import constrain_tree
from eagle_jax.learning import losses
from eagle_jax.learning.optimizers import apply_gradients
from eagle_jax.learning.policy_batch import PolicyBatch, read_policy_batch
from eagle_jax.learning.trainable import join
from eagle_jax.learning.value import fit, observe, predict, standardize


class Experience(NamedTuple):
    """Episodes as arrays: the actions [B, ...], features [E, H, F] and rewards at the end [E]."""

    batch: PolicyBatch
    features: np.ndarray
    rewards: np.ndarray


@functools.partial(jax.jit, static_argnames=("config", "settings"), donate_argnames="state")
def update_agent(
    config: DecoderConfig,
    settings: EagleSettings,
    frozen: Params,
    reference: Params,
    state: AgentState,
    experience: Experience,
) -> tuple[AgentState, dict[str, jax.Array]]:
    """One gradient step of the policy, `value_updates` of the value network; metrics [].

    The state is donated.
    """
    features, rewards = experience.features, experience.rewards
    num_episodes, horizon, _ = features.shape
    chex.assert_shape(rewards, (num_episodes,))
    chex.assert_axis_dimension(experience.batch.tokens, 0, num_episodes * horizon)
    value = observe(state.value, features, rewards)
    values = predict(value, features)
    advantages, returns = losses.generalized_advantage(
        jnp.zeros_like(values).at[:, -1].set(rewards),
        jnp.pad(values, ((0, 0), (0, 1))),
        settings.discount,
        settings.gae_lambda,
    )
    weights = advantages.reshape(-1)
    if settings.normalize_advantages:
        size = jnp.maximum(jnp.max(jnp.abs(rewards)), jnp.max(jnp.abs(values)))
        weights = standardize(weights, size)
    gradients, metrics = policy_gradient(
        config, settings, frozen, state.trainable, reference, experience.batch, weights
    )
    state = apply_gradients(agent_optimizer(settings), gradients, state)
    value, value_loss = fit(value, settings, features, returns)
    future = settings.discount ** jnp.arange(horizon - 1, -1, -1)
    realised = rewards[:, None] * future[None]
    metrics |= {
        "policy/gradient_norm": optax.tree.norm(gradients),
        "value/loss": value_loss,
        "value/explained_variance": 1.0 - jnp.var(realised - values) / jnp.maximum(jnp.var(realised), 1e-12),
    }
    return state._replace(step=state.step + 1, value=value), metrics


def policy_gradient(
    config: DecoderConfig,
    settings: EagleSettings,
    frozen: Params,
    trainable: Params,
    reference: Params,
    batch: PolicyBatch,
    advantages: jax.Array,
) -> tuple[Params, dict[str, jax.Array]]:
    """Gradient of the policy's loss on a batch [B, ...] with advantages [B], and metrics [].

    With respect to `trainable`; accumulated over minibatches of `minibatch_size`.
    """
    reference_params = join(reference, frozen)
    num_actions = advantages.shape[0]
    size = min(settings.minibatch_size, num_actions)
    missing = -num_actions % size

    def in_minibatches(rows: jax.Array) -> jax.Array:
        # Rows of padding have no action tokens and no advantage: they add nothing.
        padded = jnp.pad(rows, ((0, missing), *((0, 0) for _ in rows.shape[1:])))
        return padded.reshape(-1, size, *rows.shape[1:])

    def loss_fn(trainable, batch, advantages):
        def of_scores(scores):
            parts = _loss_parts(scores, batch.action_mask, advantages)
            parts = {name: part * size / num_actions for name, part in parts.items()}
            return parts["policy/loss"] + settings.kl_coefficient * parts["policy/kl"], parts

        read, tokens = read_policy_batch(config, join(trainable, frozen), batch)
        reference, _ = read_policy_batch(config, jax.lax.stop_gradient(reference_params), batch)
        temperature = settings.policy.temperature
        loss, scores = linear_loss(lambda scores: of_scores(scores)[0], read, tokens, temperature, reference)
        return loss, of_scores(scores)[1]

    def add(total, minibatch):
        gradients, parts = jax.grad(loss_fn, has_aux=True)(trainable, *minibatch)
        gradients = constrain_tree(gradients)
        return jax.tree.map(jnp.add, total, (gradients, parts)), None

    names = ("policy/loss", "policy/kl", "policy/entropy", "policy/action_tokens")
    start = (jax.tree.map(jnp.zeros_like, trainable), {name: jnp.zeros(()) for name in names})
    minibatches = jax.tree.map(in_minibatches, (batch, advantages))
    (gradients, metrics), _ = jax.lax.scan(add, start, minibatches)
    metrics["policy/entropy"] /= metrics["policy/action_tokens"]
    return gradients, metrics


def _loss_parts(scores, mask, advantages):
    """Means over the batch: the two losses; entropy and number of tokens of an action."""
    log_probs, entropy, divergence = (losses.sum_over_action(of_tokens, mask) for of_tokens in scores)
    return {
        "policy/loss": losses.reinforce_loss(log_probs, advantages),
        "policy/kl": jnp.mean(divergence),
        "policy/entropy": jnp.mean(entropy),
        "policy/action_tokens": jnp.mean(jnp.sum(mask, axis=1, dtype=jnp.float32)),
    }
