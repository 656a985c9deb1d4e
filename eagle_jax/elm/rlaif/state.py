"""RLAIF's settings and the state that its training carries from one iteration to the next.

Tennenholtz et al. 2024 (ELM), appendix H. Value V_n(s_n) and critic Q_n(s_n, .) are two-layer
perceptrons on what the pretrained ELM makes of s_n (`rlaif_update`).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eagle_jax.base.errors import UserError
from eagle_jax.elm.model.adapter import AdapterSettings, init_adapter
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.learning.optimizers import make_optimizer
from eagle_jax.learning.value import RunningStatistics, no_statistics

# What each method fits beside the policy: a baseline or V, and Q.
HEADS = {
    "reinforce": ("value",),
    "soft_actor_critic": ("value", "critic"),
    "value_distillation": ("critic",),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RlaifSettings:
    """Reinforcement learning of an ELM's texts.

    method: `reinforce` (equation 1), `soft_actor_critic` (2 to 4) or `value_distillation` (5 to 8).
    kl_coefficient: alpha, the price of a nat of KL to the pretrained ELM in units of the reward.
    head_width, head_learning_rate: of the value and critic networks; head_updates: their gradient
        steps in an iteration. target_rate: share of the networks that their targets take over
        after each of these steps (1: targets are the networks themselves).
    warmup_iterations: in the first ones the networks learn and the policy stays.
    sampling: its temperature is the policy's and the pretrained ELM's everywhere.
    validate_every, checkpoint_every: iterations; the last one always does both.
    """

    method: Literal["reinforce", "soft_actor_critic", "value_distillation"]
    num_iterations: int
    texts_per_iteration: int
    kl_coefficient: float
    policy_learning_rate: float
    max_gradient_norm: float
    head_width: int
    head_learning_rate: float
    head_updates: int
    target_rate: float
    warmup_iterations: int
    sampling: SamplingSettings
    validate_every: int
    checkpoint_every: int

    def __post_init__(self):
        def require(name: str, is_right: bool, wanted: str) -> None:
            if not is_right:
                raise UserError(f"{name} must be {wanted}, got {getattr(self, name)!r}")

        require("method", self.method in HEADS, f"one of {', '.join(HEADS)}")
        for name in ("texts_per_iteration", "head_width", "head_updates", "validate_every",
                     "checkpoint_every"):  # fmt: skip
            require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("num_iterations", "warmup_iterations"):
            require(name, getattr(self, name) >= 0, "at least 0")
        for name in ("kl_coefficient", "policy_learning_rate", "max_gradient_norm",
                     "head_learning_rate"):  # fmt: skip
            value = getattr(self, name)
            require(name, math.isfinite(value) and value > 0, "a finite number above 0")
        require("target_rate", 0 < self.target_rate <= 1, "above 0 and at most 1")
        draw = self.sampling
        is_whole = draw.temperature > 0 and draw.top_k == 0 and draw.top_p == 1.0
        # The losses' expectations are over all tokens.
        require("sampling", is_whole, "of the whole distribution: temperature above 0, no top_k/p")


class RlaifState(NamedTuple):
    """All that training needs to go on, apart from what is frozen; what is random derives from the
    seed and `step`."""

    step: jax.Array  # iterations done, []
    trainable: Params
    optimizer_state: optax.OptState
    heads: Params  # "value", "critic": those of the method
    head_optimizer_state: optax.OptState
    target_heads: Params
    reward_statistics: RunningStatistics


def policy_optimizer(settings: RlaifSettings) -> optax.GradientTransformation:
    """Adam on the clipped gradient, with a learning rate of 0 during the warm-up."""
    rate = optax.join_schedules(
        [optax.constant_schedule(0.0), optax.constant_schedule(settings.policy_learning_rate)],
        [settings.warmup_iterations],
    )
    return make_optimizer(rate, max_gradient_norm=settings.max_gradient_norm)


def head_optimizer(settings: RlaifSettings) -> optax.GradientTransformation:
    """Adam."""
    return make_optimizer(settings.head_learning_rate)


def init_rlaif(
    config: DecoderConfig, pretrained: Params, settings: RlaifSettings, key: jax.Array
) -> RlaifState:
    """The state before the first iteration acts as the pretrained ELM, of which `pretrained` is the
    trainable part; values are the mean reward. The key is consumed."""
    shape = AdapterSettings(input_width=config.hidden_size + 1, hidden_width=settings.head_width)
    outputs = {"value": 1, "critic": config.vocab_size}
    names = HEADS[settings.method]
    keys = jax.random.split(key, len(names))
    heads = {
        name: init_adapter(keys[number], shape, outputs[name], output_scale=0.0)
        for number, name in enumerate(names)
    }
    if "critic" in heads:
        heads["critic"]["per_nat"] = jnp.zeros(())
    # Copies: the first update donates its state, and the pretrained ELM is needed to the end.
    trainable, targets = jax.tree.map(jnp.copy, (pretrained, heads))
    return RlaifState(
        step=jnp.zeros((), jnp.int32),
        trainable=trainable,
        optimizer_state=policy_optimizer(settings).init(trainable),
        heads=heads,
        head_optimizer_state=head_optimizer(settings).init(heads),
        target_heads=targets,
        reward_statistics=no_statistics(()),
    )
