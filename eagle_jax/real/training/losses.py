"""Losses of preference optimisation, of log-probs of whole responses under policy and reference.

Pure functions. With y_w the chosen and y_l the rejected response to x,

    reward(x, y) = beta (log pi(y | x) - log pi_ref(y | x)),
    margin m = reward(x, y_w) - reward(x, y_l).

Axis letters: `B` pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class PairValues(NamedTuple):
    """A number for either side of each pair, [B] each: log-probs, rewards, numbers of tokens."""

    chosen: jax.Array
    rejected: jax.Array


def implicit_rewards(log_probs: jax.Array, reference_log_probs: jax.Array, beta: float):
    """beta (log pi - log pi_ref) (Rafailov et al. 2023, equation 5, without its constant). [B]."""
    return beta * (log_probs - reference_log_probs)


def reward_margins(policy: PairValues, reference: PairValues, beta: float) -> jax.Array:
    """m = reward(chosen) - reward(rejected). [B]."""
    chosen, rejected = map(lambda p, r: implicit_rewards(p, r, beta), policy, reference)
    return chosen - rejected


def dpo_loss(margins: jax.Array, label_smoothing: jax.Array | float) -> jax.Array:
    """-(1 - s) log sigmoid(m) - s log sigmoid(-m), [B] -> [B].

    s = 0 is DPO (Rafailov et al. 2023, equation 7), with gradient -sigmoid(-m) in m. A constant
    s > 0 is conservative DPO (Mitchell 2023, "A note on DPO with noisy preferences"): least, and
    then the entropy of s, where sigmoid(m) = 1 - s. s is a number or [B].
    """
    chex.assert_rank(margins, 1)
    agree, differ = jax.nn.log_sigmoid(margins), jax.nn.log_sigmoid(-margins)
    return -(1.0 - label_smoothing) * agree - label_smoothing * differ


def ipo_loss(policy: PairValues, reference: PairValues, num_tokens: PairValues, beta: float) -> jax.Array:
    """(h - 1 / (2 beta))^2, h the difference of the log-ratios' means per token. [B].

    Azar et al. (2024), equation 17, where beta is called tau and h is of sums. Of means it does not
    grow with the responses' length: so do TRL and, as TRL's authors had it from the paper's, the
    paper's experiments.
    """
    chex.assert_equal_shape([*policy, *reference, *num_tokens])
    chosen, rejected = map(lambda p, r, count: (p - r) / jnp.maximum(count, 1), policy, reference, num_tokens)
    return jnp.square(chosen - rejected - 1.0 / (2.0 * beta))


def error_posterior(margins: jax.Array, error_rate: jax.Array | float) -> jax.Array:
    """E-step: the probability that each label is wrong given its margin, without gradient. [B].

    sigmoid(log(eps / (1 - eps)) - m); see `em_loss`.
    """
    prior = jnp.log(error_rate) - jnp.log1p(-jnp.asarray(error_rate))
    return jax.lax.stop_gradient(jax.nn.sigmoid(prior - margins))


def em_loss(margins: jax.Array, error_rate: jax.Array | float) -> jax.Array:
    """DPO on labels of which a share eps was flipped, by expectation maximisation. [B] -> [B].

    Model: y_w is truly better with probability sigmoid(m) (Bradley-Terry), and the label was
    flipped, z = 1, with probability eps whatever the pair. What is seen has the likelihood

        p(label) = (1 - eps) sigmoid(m) + eps sigmoid(-m).

    E-step: q = p(z = 1 | label) = eps sigmoid(-m) / p(label) = sigmoid(log(eps / (1 - eps)) - m),
    as sigmoid(-m) / sigmoid(m) = exp(-m). M-step: the expected complete log-likelihood,

        mean[(1 - q) (log sigmoid(m) + log(1 - eps)) + q (log sigmoid(-m) + log eps)],

    is greatest in eps at eps = mean(q), and in the policy where the returned loss,
    -(1 - q) log sigmoid(m) - q log sigmoid(-m), has its least mean: label smoothing by each pair's
    own q. Neither step raises -mean log p(label) (Dempster et al. 1977, theorem 1); with q held,
    the loss has its gradient. eps = 0 is DPO.
    """
    return dpo_loss(margins, error_posterior(margins, error_rate))


def reward_metrics(policy: PairValues, reference: PairValues, beta: float, weights: jax.Array) -> dict[str, jax.Array]:
    """Means [] over pairs with weights [B] (0: padding), multiplied by beta, named as in TRL.

    Accuracy is the share of pairs whose chosen response has the higher reward; a tie counts 0.
    """
    rewards = PairValues(*map(lambda p, r: implicit_rewards(p, r, beta), policy, reference))
    margins = rewards.chosen - rewards.rejected
    of_pairs = {
        "rewards/chosen": rewards.chosen,
        "rewards/rejected": rewards.rejected,
        "rewards/margin": margins,
        "rewards/accuracy": (margins > 0).astype(jnp.float32),
        "logps/chosen": policy.chosen,
        "logps/rejected": policy.rejected,
    }
    return {name: jnp.sum(weights * values) / jnp.sum(weights) for name, values in of_pairs.items()}
