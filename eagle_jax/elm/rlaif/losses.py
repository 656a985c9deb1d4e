"""Losses of RLAIF: REINFORCE, soft actor-critic and the closed form, with KL to the pretrained ELM.

Tennenholtz et al. 2024 (ELM), appendix H. A text is an episode: the state s_n is the prompt and the
tokens so far, the action a_n the next token, the reward r comes with the last one. pi is the policy
(log_policy), p_pre the pretrained ELM (log_reference), both at the temperature of sampling; alpha
(beta in equation 1) is `kl_coefficient`. Means are over texts, sums over their tokens.

Where the appendix cannot be taken literally:
- Equation 4 is an objective; what is minimised is its negative. It takes a_n from the data, where
  Q has no gradient to theta: as in soft actor-critic the expectation is over pi, here exactly, over
  the vocabulary. So is that of equation 3, which holds for a_n from the data if pi wrote them.
- pi(s_n | a_n) is pi(a_n | s_n); the r(s; c) of equation 6 is the reward of the finished text, of
  which a is the last token, whether it ended or was cut at the horizon.
- The gradient of equation 1 has a part through later states' KL: see `returns_to_go`.

Axis letters: `B` texts, `T` tokens, `V` vocabulary. A mask [B, T] is True where a token was
written by the policy; these are contiguous.
"""

import chex
import jax
import jax.numpy as jnp

from eagle_jax.language_model.log_probs import kl_divergence
from eagle_jax.learning.losses import reinforce_loss


def token_divergence(log_policy: jax.Array, log_reference: jax.Array, mask: jax.Array) -> jax.Array:
    """KL(pi(. | s_n) || p_pre(. | s_n)) of each token: [B, T, V], [B, T, V], [B, T] -> [B, T].

    0 outside of the mask; no gradient through the reference.
    """
    return jnp.where(mask, kl_divergence(log_policy, log_reference), 0.0)


def returns_to_go(rewards: jax.Array, divergence: jax.Array, mask: jax.Array, kl_coefficient: float) -> jax.Array:
    """G_n = r - alpha sum_{m > n} KL_m, a sample of Q_n(s_n, a_n). [B], [B, T] -> [B, T].

    a_n decides which states follow, so that their KL is part of its return. No gradient.
    """
    chex.assert_equal_shape([divergence, mask])
    chex.assert_shape(rewards, mask.shape[:1])
    later = jax.lax.cumsum(divergence, axis=1, reverse=True) - divergence
    return jax.lax.stop_gradient(rewards[:, None] - kl_coefficient * later)


def regularized_reinforce_loss(
    token_log_probs: jax.Array,
    divergence: jax.Array,
    returns: jax.Array,
    baselines: jax.Array,
    mask: jax.Array,
    kl_coefficient: float,
) -> jax.Array:
    """mean sum_n -(G_n - b(s_n)) log pi(a_n | s_n) + alpha KL_n.

    Its gradient's expectation over texts of pi is minus that of equation 1, E[r - alpha log(P_theta
    / P_pre)], whatever the baselines b, which may depend on s_n only. No gradient through returns
    and baselines. All [B, T] -> [].
    """
    chex.assert_equal_shape([token_log_probs, divergence, returns, baselines, mask])
    log_probs = jnp.where(mask, token_log_probs, 0.0)  # where: padding may be -inf
    advantages = jnp.where(mask, returns - baselines, 0.0)
    # A mean over B T tokens, of which the sum over T is wanted.
    of_tokens = reinforce_loss(log_probs.reshape(-1), advantages.reshape(-1)) * mask.shape[1]
    return of_tokens + kl_coefficient * jnp.mean(jnp.sum(divergence, axis=1))


def bellman_targets(next_values: jax.Array, rewards: jax.Array, mask: jax.Array) -> jax.Array:
    """What Q_n(s_n, a_n) regresses on: V_{n+1}(s_{n+1}), r at the last token (equations 2 and 6).

    next_values [B, T] are V_n(s_n) themselves: the shift is made here. No gradient. -> [B, T].
    """
    chex.assert_equal_shape([next_values, mask])
    chex.assert_shape(rewards, mask.shape[:1])
    after = ((0, 0), (0, 1))
    is_followed = jnp.pad(mask[:, 1:], after)
    shifted = jnp.pad(next_values[:, 1:], after)
    return jax.lax.stop_gradient(jnp.where(is_followed, shifted, rewards[:, None]))


def bellman_residual(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
    """mean sum_n (target_n - prediction_n)^2: equations 2 and 3. No gradient through the targets.

    Equation 2: Q_n(s_n, a_n) on `bellman_targets`. Equation 3: V_n(s_n) on `soft_values` of the
    target critic. [B, T] -> [].
    """
    chex.assert_equal_shape([predictions, targets, mask])
    errors = jnp.square(jax.lax.stop_gradient(targets) - predictions)
    return jnp.mean(jnp.sum(jnp.where(mask, errors, 0.0), axis=1))


def soft_values(
    log_policy: jax.Array, log_reference: jax.Array, critic_values: jax.Array, kl_coefficient: float
) -> jax.Array:
    """E_{a ~ pi}[Q_n(s_n, a) - alpha log(pi(a | s_n) / p_pre(a | s_n))]: [B, T, V] -> [B, T]."""
    chex.assert_equal_shape([log_policy, log_reference, critic_values])
    regularized = critic_values - kl_coefficient * (log_policy - log_reference)
    return jnp.sum(jnp.exp(log_policy) * regularized, axis=-1)


def actor_loss(
    log_policy: jax.Array, log_reference: jax.Array, critic_values: jax.Array, mask: jax.Array, kl_coefficient: float
) -> jax.Array:
    """-mean sum_n E_{a ~ pi}[Q_n(s_n, a) - alpha log(pi / p_pre)] (equation 4): [B, T, V] -> [].

    alpha times `distillation_loss` towards `optimal_log_policy` of this Q, up to what does not
    depend on pi. No gradient through the critic and the reference.
    """
    constants = jax.lax.stop_gradient((log_reference, critic_values))
    values = soft_values(log_policy, *constants, kl_coefficient)
    return -jnp.mean(jnp.sum(jnp.where(mask, values, 0.0), axis=1))


def optimal_values(log_reference: jax.Array, critic_values: jax.Array, kl_coefficient: float) -> jax.Array:
    """V*_n = alpha log E_{a ~ p_pre}[exp(Q_n(s_n, a) / alpha)] (equation 5): [B, T, V] -> [B, T].

    The largest `soft_values` that any policy has with this Q.
    """
    chex.assert_equal_shape([log_reference, critic_values])
    exponents = log_reference + critic_values / kl_coefficient
    return kl_coefficient * jax.nn.logsumexp(exponents, axis=-1)


def optimal_log_policy(log_reference: jax.Array, critic_values: jax.Array, kl_coefficient: float) -> jax.Array:
    """log mu*_n, mu* proportional to p_pre exp(Q / alpha) (equation 7). [B, T, V] -> [B, T, V]."""
    chex.assert_equal_shape([log_reference, critic_values])
    return jax.nn.log_softmax(log_reference + critic_values / kl_coefficient)


def distillation_loss(log_policy: jax.Array, log_optimal: jax.Array, mask: jax.Array) -> jax.Array:
    """mean sum_n KL(pi(. | s_n) || mu*_n(. | s_n)); equation 8 is its gradient. [B, T, V] -> [].

    No gradient through mu*.
    """
    return jnp.mean(jnp.sum(token_divergence(log_policy, log_optimal, mask), axis=1))
