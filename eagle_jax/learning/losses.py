"""Losses of EAGLE's two trainings: next-token prediction, and REINFORCE with baseline, GAE and KL.

Pure functions. A mask is 1 (True) where a token belongs to the action. Means are over the batch,
sums over the tokens of an action, so that `kl_coefficient` weighs the divergence of whole actions:
    loss = reinforce_loss(...) + kl_coefficient * mean(sum_over_action(KL of the tokens))

Axis letters: B batch (of actions; an episode of H steps contributes H), H horizon, T tokens.
"""

import chex
import jax
import jax.numpy as jnp

from eagle_jax.language_model.log_probs import LastStates, linear_loss


def generalized_advantage(
    rewards: jax.Array, values: jax.Array, discount: float, gae_lambda: float
) -> tuple[jax.Array, jax.Array]:
    """A_t = sum_l (discount lambda)^l delta_{t+l}, delta_t = r_t + discount V_{t+1} - V_t.

    Schulman et al. (2016), equation 16. lambda = 1 gives return minus value, lambda = 0 the
    one-step temporal difference.

    Args:
      rewards: [B, H], reward of step t.
      values: [B, H + 1], value of the state before step t; the last column is the value of
        the state after the last step: 0 where the episode ends there.

    Returns:
      advantages [B, H] and returns [B, H] (advantages + values, the value network's target), both
      without gradient.
    """
    chex.assert_rank([rewards, values], 2)
    chex.assert_shape(values, (rewards.shape[0], rewards.shape[1] + 1))
    values = jax.lax.stop_gradient(values)
    deltas = rewards + discount * values[:, 1:] - values[:, :-1]

    def step(advantage, delta):
        advantage = delta + discount * gae_lambda * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(step, jnp.zeros_like(deltas[:, 0]), deltas.T, reverse=True)
    advantages = jax.lax.stop_gradient(advantages.T)
    return advantages, advantages + values[:, :-1]


def sum_over_action(of_tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Of log p it is log pi(action | state): [B, T], [B, T] -> [B]."""
    chex.assert_equal_shape([of_tokens, mask])
    # where, not a product: what lies outside the mask may be -inf.
    return jnp.sum(jnp.where(mask, of_tokens, 0.0), axis=1)


def reinforce_loss(log_probs: jax.Array, advantages: jax.Array) -> jax.Array:
    """-mean(advantage * log pi(action | state)); its gradient is minus the policy gradient.

    Williams (1992). No gradient through the advantages. [B], [B] -> [].
    """
    chex.assert_rank([log_probs, advantages], 1)
    chex.assert_equal_shape([log_probs, advantages])
    return -jnp.mean(jax.lax.stop_gradient(advantages) * log_probs)


def value_loss(values: jax.Array, returns: jax.Array) -> jax.Array:
    """mean (V - return)^2 / 2, no gradient through the returns. Same shapes -> []."""
    chex.assert_equal_shape([values, returns])
    return 0.5 * jnp.mean(jnp.square(values - jax.lax.stop_gradient(returns)))


def next_token_loss(read: LastStates, tokens: jax.Array, loss_weights: jax.Array) -> jax.Array:
    """Weighted mean negative log-likelihood, nats, of tokens given what precedes them.

    Args:
      read: of the tokens; its state at t predicts tokens[:, t + 1].
      tokens: [B, T] int.
      loss_weights: [B, T], how much each token counts as a target (a mask, or weights;
        loss_weights[:, 0] is not used). The mean is over the whole batch; 0 when all are 0.
    """
    chex.assert_equal_shape([tokens, loss_weights])
    # Padded, not sliced: states[:, :-1] would be a copy, and its gradient another one.
    after = ((0, 0), (0, 1))  # nothing follows the last token
    weights = jnp.pad(loss_weights[:, 1:], after)
    total = jnp.sum(weights)

    def loss_fn(scores):
        log_probs = scores.log_probs
        return -jnp.sum(weights.astype(log_probs.dtype) * log_probs) / jnp.where(total > 0, total, 1.0)

    return linear_loss(loss_fn, read, jnp.pad(tokens[:, 1:], after))[0]
