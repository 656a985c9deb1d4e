"""EAGLE's settings and the state that its training carries from one iteration to the next."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.learning.optimizers import make_optimizer
from eagle_jax.learning.value import ValueSettings, ValueState, init_value


@dataclasses.dataclass(frozen=True, kw_only=True)
class EagleSettings(ValueSettings):
    """REINFORCE with a learned baseline, GAE and KL to the reference policy.

    policy: sampling of actions; its temperature is the policy's everywhere (log-probs, KL).
    minibatch_size: actions whose gradient is computed at a time; changes memory, not the result.
    validate_every, checkpoint_every: iterations; the last one always does both.
    """

    num_iterations: int
    episodes_per_iteration: int
    horizon: int
    discount: float
    gae_lambda: float
    kl_coefficient: float
    policy_learning_rate: float
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
    value: ValueState


def policy_optimizer(settings: EagleSettings) -> optax.GradientTransformation:
    """Adam on the gradient clipped by its global norm."""
    return make_optimizer(
        settings.policy_learning_rate, max_gradient_norm=settings.max_gradient_norm
    )


def init_agent(
    reference: Params, num_features: int, settings: EagleSettings, key: jax.Array
) -> AgentState:
    """The agent before the first iteration acts as the reference policy, of which `reference` is
    the trainable part. The key is consumed."""
    # A copy: the first update donates its state, and the reference is needed to the end.
    trainable = jax.tree.map(jnp.copy, reference)
    return AgentState(
        step=jnp.zeros((), jnp.int32),
        trainable=trainable,
        optimizer_state=policy_optimizer(settings).init(trainable),
        value=init_value(key, num_features, settings),
    )
