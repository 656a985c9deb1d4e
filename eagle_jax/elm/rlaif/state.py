"""RLAIF's settings and the state that its training carries from one iteration to the next.

Tennenholtz et al. 2024 (ELM), appendix H. Value V_n(s_n) and critic Q_n(s_n, .) are two-layer
perceptrons on what the pretrained ELM makes of s_n (`rlaif_update`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.elm.model.adapter import init_adapter
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.learning.optimizers import make_optimizer
from eagle_jax.learning.value import RunningStatistics, no_statistics

# What each method fits beside the policy: a baseline or V, and Q.
HEADS = {"reinforce": ("value",), "soft_actor_critic": ("value", "critic"), "value_distillation": ("critic",)}


@settings
class RlaifSettings:
    """Reinforcement learning of an ELM's texts."""

    method: Literal["reinforce", "soft_actor_critic", "value_distillation"] = setting("Equation 1, 2 to 4, or 5 to 8.")
    num_iterations: int = setting("Updates of the policy, warm-up included.", at_least=0)
    texts_per_iteration: int = setting("Texts drawn for each.", at_least=1)
    kl_coefficient: float = setting(
        "alpha, the price of a nat of KL to the pretrained ELM.", above=0, unit="reward per nat"
    )
    policy_learning_rate: float = setting("AdamW's, of the policy.", above=0)
    max_gradient_norm: float = setting("Longer gradients are scaled down to it.", above=0)
    head_width: int = setting("Hidden units of the value and critic networks.", at_least=1)
    head_learning_rate: float = setting("Of these networks.", above=0)
    head_updates: int = setting("Their gradient steps in an iteration.", at_least=1)
    target_rate: float = setting(
        "Share of the networks that their targets take over after each of these steps.", above=0, at_most=1
    )
    warmup_iterations: int = setting("The first ones, in which the networks learn and the policy stays.", at_least=0)
    sampling: SamplingSettings = setting("Its temperature is the policy's and the pretrained ELM's everywhere.")
    validate_every: int = setting("The last one always does.", at_least=1, unit="iterations")
    checkpoint_every: int = setting("The last one always does.", at_least=1, unit="iterations")

    def __post_init__(self):
        draw = self.sampling
        draw.check_of_policy()
        if draw.temperature == 0 or draw.top_k != 0 or draw.top_p != 1.0:
            # The losses' expectations are over all tokens.
            raise UserError(f"sampling must be of the whole distribution: temperature above 0, no top_k/p, got {draw}")


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


def init_rlaif(config: DecoderConfig, pretrained: Params, settings: RlaifSettings, key: jax.Array) -> RlaifState:
    """The state before the first iteration acts as the pretrained ELM, of which `pretrained` is the
    trainable part; values are the mean reward. The key is consumed."""
    outputs = {"value": 1, "critic": config.vocab_size}
    names = HEADS[settings.method]
    keys = jax.random.split(key, len(names))
    heads = {
        name: init_adapter(keys[number], config.hidden_size + 1, settings.head_width, outputs[name], 0.0)
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
