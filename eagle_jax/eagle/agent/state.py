"""EAGLE's settings and the state that its training carries from one iteration to the next."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.learning.optimizers import make_optimizer
from eagle_jax.learning.value import RunningStatistics, init_value, no_statistics


@dataclasses.dataclass(frozen=True, kw_only=True)
class EagleSettings:
    """REINFORCE with a learned baseline, GAE and KL to the reference policy.

    policy: sampling of actions; its temperature is the policy's everywhere (log-probs, KL).
    kl_estimator: `exact` over the vocabulary at every action token, or from the sampled `token`s
        (`losses.token_kl`; sampled by the policy, its gradient is that of KL(reference || policy)).
    minibatch_size: actions whose gradient is computed at a time; changes memory, not the result.
    value_updates: gradient steps of the value network in an iteration.
    validate_every, checkpoint_every: iterations; the last one always does both.
    """

    num_iterations: int
    episodes_per_iteration: int
    horizon: int
    discount: float
    gae_lambda: float
    kl_coefficient: float
    kl_estimator: Literal["exact", "token"]
    policy_learning_rate: float
    value_learning_rate: float
    value_hidden: tuple[int, ...]
    value_updates: int
    max_gradient_norm: float
    normalize_advantages: bool
    minibatch_size: int
    policy: SamplingSettings
    validate_every: int
    checkpoint_every: int

    def __post_init__(self):
        for name in ("episodes_per_iteration", "horizon", "minibatch_size", "value_updates",
                     "validate_every", "checkpoint_every"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.policy.temperature > 0:
            raise ValueError(
                f"policy.temperature must be above 0, got {self.policy.temperature}: a greedy "
                "policy has no gradient"
            )


class AgentState(NamedTuple):
    """All that training needs to go on, apart from what is frozen; what is random derives from the
    seed and `step`."""

    step: jax.Array  # iterations done, []
    trainable: Params  # of the policy
    optimizer_state: optax.OptState
    value_params: list[dict]
    value_optimizer_state: optax.OptState
    feature_statistics: RunningStatistics  # of the value network's features, [F]
    return_statistics: RunningStatistics  # of the episodes' returns, []


def policy_optimizer(settings: EagleSettings) -> optax.GradientTransformation:
    """Adam on the gradient clipped by its global norm."""
    return make_optimizer(
        settings.policy_learning_rate,
        max_gradient_norm=settings.max_gradient_norm,
        weight_decay=0.0,
        second_moment_decay=0.999,
    )


def value_optimizer(settings: EagleSettings) -> optax.GradientTransformation:
    """Adam; the targets are standardised, so that one learning rate suits any utility."""
    return make_optimizer(
        settings.value_learning_rate,
        max_gradient_norm=None,
        weight_decay=0.0,
        second_moment_decay=0.999,
    )


def init_agent(
    reference: Params, num_features: int, settings: EagleSettings, key: jax.Array
) -> AgentState:
    """The agent before the first iteration acts as the reference policy, of which `reference` is
    the trainable part. The key is consumed."""
    # A copy: the first update donates its state, and the reference is needed to the end.
    trainable = jax.tree.map(jnp.copy, reference)
    value_params = init_value(key, num_features + 1, settings.value_hidden)
    return AgentState(
        step=jnp.zeros((), jnp.int32),
        trainable=trainable,
        optimizer_state=policy_optimizer(settings).init(trainable),
        value_params=value_params,
        value_optimizer_state=value_optimizer(settings).init(value_params),
        feature_statistics=no_statistics((num_features,)),
        return_statistics=no_statistics(()),
    )
