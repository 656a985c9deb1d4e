"""One iteration's update of the agent, as a pure function (Tennenholtz et al. 2024, section 4).

    minimise  -mean(A log pi(action | state)) + kl_coefficient mean(KL(pi || pi_ref)),
    A by generalized advantage estimation on V, V by regression on the returns A + V.

With `policy_updates` above 1 the same actions are used again: the first term becomes the clipped surrogate
-mean(min(rho A, clip(rho, 1 - c, 1 + c) A)), rho = pi(action | state) / pi_0(action | state) of the policy pi_0 that
acted (Schulman et al. 2017, equation 7), whole actions as in RLOO (Ahmadian et al. 2024).

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
from eagle_jax.learning.policy_batch import PolicyBatch, action_log_probs, read_policy_batch
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
    """`policy_updates` gradient steps of the policy, `value_updates` of the value network; metrics [].

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
    state, metrics = _improved(config, settings, frozen, reference, state, experience.batch, weights)
    value, value_loss = fit(value, settings, features, returns)
    future = settings.discount ** jnp.arange(horizon - 1, -1, -1)
    realised = rewards[:, None] * future[None]
    metrics |= {
        "value/loss": value_loss,
        "value/explained_variance": 1.0 - jnp.var(realised - values) / jnp.maximum(jnp.var(realised), 1e-12),
    }
    return state._replace(step=state.step + 1, value=value), metrics


def _improved(config, settings, frozen, reference, state, batch, advantages) -> tuple[AgentState, dict[str, jax.Array]]:
    """The state after the policy's gradient steps, and metrics: means over these."""

    def step(state, weights):
        gradients, metrics = policy_gradient(config, settings, frozen, state.trainable, reference, batch, weights)
        metrics |= {"policy/gradient_norm": optax.tree.norm(gradients)}
        return apply_gradients(agent_optimizer(settings), gradients, state), metrics

    def clipped_step(carry, number):
        state, acted = carry
        now = _action_log_probs(config, settings, join(state.trainable, frozen), batch)
        acted = jnp.where(number == 0, now, acted)
        weights, is_clipped = clipped_weights(advantages, now - acted, settings.clip_range)
        state, metrics = step(state, weights)
        return (state, acted), metrics | {"policy/clipped": jnp.mean(is_clipped)}

    if settings.policy_updates == 1:
        return step(state, advantages)
    start = state, jnp.zeros_like(advantages)
    (state, _), metrics = jax.lax.scan(clipped_step, start, jnp.arange(settings.policy_updates))
    return state, jax.tree.map(jnp.mean, metrics)


def clipped_weights(advantages: jax.Array, log_ratio: jax.Array, clip_range: float) -> tuple[jax.Array, jax.Array]:
    """Weights w [B] for which -mean(w log pi) has the gradient of -mean(min(rho A, clip(rho) A)), and where it is 0
    because rho has left [1 - clip_range, 1 + clip_range] in the direction of A [B]."""
    ratio = jnp.exp(log_ratio)
    is_clipped = jnp.where(advantages > 0, ratio > 1 + clip_range, ratio < 1 - clip_range)
    return jnp.where(is_clipped, 0.0, ratio * advantages), is_clipped


def _action_log_probs(config, settings, params, batch) -> jax.Array:
    """log pi(action | state) [B], a minibatch at a time."""
    count = len(batch.tokens)
    minibatches = jax.tree.map(functools.partial(_in_minibatches, min(settings.minibatch_size, count)), batch)
    of_each = functools.partial(action_log_probs, config, params, temperature=settings.policy.temperature)
    return jax.lax.map(of_each, minibatches).reshape(-1)[:count]


def _in_minibatches(size: int, rows: jax.Array) -> jax.Array:
    # Rows of padding have no action tokens and no advantage: they add nothing.
    padded = jnp.pad(rows, ((0, -len(rows) % size), *((0, 0) for _ in rows.shape[1:])))
    return padded.reshape(-1, size, *rows.shape[1:])


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
    minibatches = jax.tree.map(functools.partial(_in_minibatches, size), (batch, advantages))
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
