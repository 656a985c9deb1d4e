"""Losses of EAGLE's two trainings: next-token prediction, and REINFORCE with baseline, GAE and KL.

Pure functions. A mask is 1 (True) where a token belongs to the action. Means are over the batch,
sums over the tokens of an action, so that `kl_coefficient` weighs the divergence of whole actions:
    loss = reinforce_loss(...) + kl_coefficient * mean(exact_kl(...))

Axis letters: B batch (of actions; an episode of H steps contributes H), H horizon, T tokens,
V vocabulary.
"""

import chex
import jax
import jax.numpy as jnp


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


def action_log_probs(token_log_probs: jax.Array, mask: jax.Array) -> jax.Array:
    """log pi(action | state) = sum over the action's tokens of log p: [B, T], [B, T] -> [B]."""
    chex.assert_equal_shape([token_log_probs, mask])
    # where, not a product: what lies outside the mask may be -inf.
    return jnp.sum(jnp.where(mask, token_log_probs, 0.0), axis=1)


def reinforce_loss(log_probs: jax.Array, advantages: jax.Array) -> jax.Array:
    """-mean(advantage * log pi(action | state)); its gradient is minus the policy gradient.

    Williams (1992). No gradient through the advantages. [B], [B] -> [].
    """
    chex.assert_rank([log_probs, advantages], 1)
    chex.assert_equal_shape([log_probs, advantages])
    return -jnp.mean(jax.lax.stop_gradient(advantages) * log_probs)


def exact_kl(
    policy_logits: jax.Array, reference_logits: jax.Array, mask: jax.Array, temperature: float
) -> jax.Array:
    """KL(policy || reference) of each action, exact over the vocabulary, summed over its tokens.

    sum_t sum_v p_t(v) (log p_t(v) - log p_ref,t(v)), p = softmax(logits / temperature). The prefix
    is the sampled one: its expectation over the policy's actions is the divergence of the
    whole actions. The temperature is that of sampling, else this regularises another policy than
    the one that acts. No gradient through the reference. Logits must be finite.

    Args:
      policy_logits, reference_logits: [B, T, V], of the token at t (already shifted).
      mask: [B, T].

    Returns:
      [B], nats.
    """
    chex.assert_rank([policy_logits, reference_logits], 3)
    chex.assert_equal_shape([policy_logits, reference_logits])
    chex.assert_shape(mask, policy_logits.shape[:2])
    log_policy = jax.nn.log_softmax(policy_logits / temperature)
    log_reference = jax.nn.log_softmax(jax.lax.stop_gradient(reference_logits) / temperature)
    divergence = jnp.sum(jnp.exp(log_policy) * (log_policy - log_reference), axis=-1)
    return jnp.sum(jnp.where(mask, divergence, 0.0), axis=1)


def value_loss(values: jax.Array, returns: jax.Array) -> jax.Array:
    """mean (V - return)^2 / 2, no gradient through the returns. Same shapes -> []."""
    chex.assert_equal_shape([values, returns])
    return 0.5 * jnp.mean(jnp.square(values - jax.lax.stop_gradient(returns)))


def next_token_loss(logits: jax.Array, tokens: jax.Array, loss_weights: jax.Array) -> jax.Array:
    """Weighted mean negative log-likelihood, nats, of tokens given what precedes them.

    Args:
      logits: [B, T, V]; logits[:, t] predict tokens[:, t + 1].
      tokens: [B, T] int.
      loss_weights: [B, T], how much each token counts as a target (a mask, or weights;
        loss_weights[:, 0] is not used). The mean is over the whole batch; 0 when all are 0.
    """
    chex.assert_rank(logits, 3)
    chex.assert_shape([tokens, loss_weights], logits.shape[:2])
    # Padded, not sliced: logits[:, :-1] would be a copy, and its gradient another one.
    after = ((0, 0), (0, 1))  # nothing follows the last token
    targets = jnp.pad(tokens[:, 1:], after)
    weights = jnp.pad(loss_weights[:, 1:], after).astype(logits.dtype)
    # A masked sum, not a gather: its gradient is no scatter.
    vocab = jax.lax.broadcasted_iota(targets.dtype, logits.shape, 2)
    chosen = jnp.sum(jnp.where(vocab == targets[..., None], logits, 0.0), axis=-1)
    total = jnp.sum(weights * (jax.nn.logsumexp(logits, axis=-1) - chosen))
    return total / jnp.where(jnp.sum(weights) > 0, jnp.sum(weights), 1.0)
