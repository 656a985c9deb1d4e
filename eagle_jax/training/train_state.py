"""EAGLE's settings and the state that its training carries from one iteration to the next."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.transformer import Params
from eagle_jax.training.value import RunningStatistics, init_value, no_statistics


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
    """All that training needs to go on; what is random derives from the seed and `step`."""

    step: jax.Array  # iterations done, []
    params: Params
    optimizer_state: optax.OptState
    value_params: list[dict]
    value_optimizer_state: optax.OptState
    feature_statistics: RunningStatistics  # of the value network's features, [F]
    return_statistics: RunningStatistics  # of the episodes' returns, []


def policy_optimizer(settings: EagleSettings) -> optax.GradientTransformation:
    """Adam on the gradient clipped by its global norm."""
    return optax.chain(
        optax.clip_by_global_norm(settings.max_gradient_norm),
        optax.adam(settings.policy_learning_rate),
    )


def value_optimizer(settings: EagleSettings) -> optax.GradientTransformation:
    """Adam; the targets are standardised, so that one learning rate suits any utility."""
    return optax.adam(settings.value_learning_rate)


def init_agent(
    reference_params: Params, num_features: int, settings: EagleSettings, key: jax.Array
) -> AgentState:
    """The agent before the first iteration acts as the reference policy. The key is consumed."""
    # A copy: the first update donates its state, and the reference is needed to the end.
    params = jax.tree.map(jnp.copy, reference_params)
    value_params = init_value(key, num_features + 1, settings.value_hidden)
    return AgentState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer_state=policy_optimizer(settings).init(params),
        value_params=value_params,
        value_optimizer_state=value_optimizer(settings).init(value_params),
        feature_statistics=no_statistics((num_features,)),
        return_statistics=no_statistics(()),
    )
