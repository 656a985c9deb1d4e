"""EAGLE's settings and the state that its training carries from one iteration to the next."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from eagle_jax.base.settings import setting, settings
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.learning.optimizers import make_optimizer, training_start
from eagle_jax.learning.value import ValueSettings, ValueState, init_value


@settings
class EagleSettings(ValueSettings):
    """REINFORCE with a learned baseline, GAE and KL to the reference policy."""

    num_iterations: int = setting("Updates of the policy.", at_least=0)
    episodes_per_iteration: int = setting("Episodes played for each.", at_least=1)
    horizon: int = setting("Actions of an episode.", at_least=1)
    discount: float = setting("Of later rewards.", at_least=0, at_most=1)
    gae_lambda: float = setting("0: one step and the value; 1: returns.", at_least=0, at_most=1)
    kl_coefficient: float = setting("Price of a nat of KL.", at_least=0, unit="reward per nat")
    policy_learning_rate: float = setting("Adam's; 0: the policy stays.", at_least=0)
    policy_updates: int = setting("Gradient steps on an iteration's actions.", default=1, at_least=1)
    clip_range: float = setting(
        "An action counts no longer where its probability has changed by this share as its advantage asks; with "
        "policy_updates above 1.",
        default=0.2,
        above=0,
    )
    max_gradient_norm: float = setting("Longer gradients are scaled down to it.", above=0)
    normalize_advantages: bool = setting("To mean 0 and variance 1 over the iteration's actions.")
    minibatch_size: int = setting(
        "Actions whose gradient is computed at a time; changes memory, not the result.", at_least=1
    )
    policy: SamplingSettings = setting(
        "Of actions; its temperature is the policy's everywhere (log-probabilities, KL)."
    )
    validate_every: int = setting("The last one always does.", at_least=1, unit="iterations")
    checkpoint_every: int = setting("The last one always does.", at_least=1, unit="iterations")

    def __post_init__(self):
        if not self.policy.temperature > 0:
            raise ValueError(
                f"policy.temperature must be above 0, got {self.policy.temperature}: a greedy policy has no gradient"
            )
        self.policy.check_of_policy()


class AgentState(NamedTuple):
    """All that training needs to go on, apart from what is frozen; what is random derives from the
    seed and `step`."""

    step: jax.Array  # iterations done, []
    trainable: Params  # of the policy
    optimizer_state: optax.OptState
    value: ValueState


def agent_optimizer(settings: EagleSettings) -> optax.GradientTransformation:
    """Adam on the gradient clipped by its global norm."""
    return make_optimizer(settings.policy_learning_rate, max_gradient_norm=settings.max_gradient_norm)


def init_agent(reference: Params, num_features: int, settings: EagleSettings, key: jax.Array) -> AgentState:
    """The agent before the first iteration acts as the reference policy, of which `reference` is
    the trainable part. The key is consumed."""
    acting = training_start(agent_optimizer(settings), reference)
    return AgentState(jnp.zeros((), jnp.int32), *acting, init_value(key, num_features, settings))
