"""One step of preference optimisation (DPO, IPO, EM) as a pure function, its settings and state.

Axis letters: `B` responses, or pairs of a step with an axis [2] for (chosen, rejected), `P` prompt
tokens, `N` response tokens, `V` vocabulary, `R` all pairs.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eagle_jax.base.settings import setting, settings
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.sharding import constrain_tree, on_mesh_of
from eagle_jax.learning.optimizers import OptimizerName, apply_gradients, make_optimizer, warmup_cosine
from eagle_jax.learning.policy_batch import PolicyBatch, action_log_probs
from eagle_jax.learning.trainable import join
from eagle_jax.real.training.losses import (
    PairValues,
    dpo_loss,
    em_loss,
    error_posterior,
    ipo_loss,
    reward_margins,
    reward_metrics,
)

_SECOND_MOMENT_DECAY = {"adamw": 0.999, "rmsprop": 0.99}  # PyTorch's, and so TRL's and REAL's


@settings
class PreferenceSettings:
    """Preference optimisation with linear warm-up and a cosine down to a tenth."""

    loss: Literal["dpo", "ipo", "em"] = setting(
        "dpo (conservative with label_smoothing), ipo, or em, which estimates wrong labels' share."
    )
    beta: float = setting("Of the implicit reward.", above=0)
    label_smoothing: float = setting("Of dpo: share of wrong labels.", at_least=0, below=0.5)
    initial_error_rate: float = setting("Of em: where its share begins.", at_least=0, below=0.5)
    batch_size: int = setting("Pairs of an optimiser step.", at_least=1)
    accumulation: int = setting("Parts that a step is computed in; changes memory, not the result.", at_least=1)
    num_epochs: int = setting("Passes over the pairs.", at_least=1)
    optimizer: OptimizerName = setting("The paper: rmsprop.")
    learning_rate: float = setting("At the end of the warm-up.", above=0)
    warmup_steps: int = setting("In which the learning rate rises from 0.", at_least=0)
    weight_decay: float = setting("Of matrices.", at_least=0)
    max_gradient_norm: float = setting("Longer gradients are scaled down to it.", above=0)
    max_prompt_tokens: int = setting("Longer prompts lose their beginning.", at_least=1, unit="tokens")
    max_tokens: int = setting("Of prompt and response; longer responses lose their end.", at_least=1, unit="tokens")
    log_every: int = setting("The last one always has a row.", at_least=1, unit="steps")
    checkpoint_every: int = setting("The last one always has one.", at_least=1, unit="steps")
    probe_every: int = setting("The last one always has one.", at_least=1, unit="steps")

    def __post_init__(self):
        if self.loss != "dpo" and self.label_smoothing:
            raise ValueError(
                f"label_smoothing must be 0 where loss is {self.loss!r} and not 'dpo', got {self.label_smoothing}"
            )
        if self.batch_size % self.accumulation:
            raise ValueError(f"accumulation must be a divisor of batch_size {self.batch_size}, got {self.accumulation}")
        if self.max_tokens <= self.max_prompt_tokens:
            raise ValueError(
                f"max_tokens must be above max_prompt_tokens {self.max_prompt_tokens}, got {self.max_tokens}"
            )


class PreferenceBatch(NamedTuple):
    """The pairs of a step; rows of padding are no pairs and count nothing.

    responses: leaves [B, 2, ...]. reference_log_probs: [B, 2]. pairs: [B], which of all R pairs a
    row is; R for padding. is_pair: [B].
    """

    responses: PolicyBatch
    reference_log_probs: np.ndarray
    pairs: np.ndarray
    is_pair: np.ndarray


class PreferenceState(NamedTuple):
    """All that training needs to go on, apart from what is frozen."""

    trainable: Params
    optimizer_state: optax.OptState
    step: jax.Array
    label_errors: jax.Array | None  # of EM, [R]: last known probability that a label is wrong


def pair_losses(
    settings: PreferenceSettings,
    policy: PairValues,
    reference: PairValues,
    num_tokens: PairValues,
    error_rate: jax.Array | float,
) -> jax.Array:
    """The loss of each pair, [B], from log-probs and numbers of response tokens [B].

    error_rate is the share of wrong labels that EM takes for granted; other losses ignore it.
    """
    if settings.loss == "ipo":
        return ipo_loss(policy, reference, num_tokens, settings.beta)
    margins = reward_margins(policy, reference, settings.beta)
    if settings.loss == "em":
        return em_loss(margins, error_rate)
    return dpo_loss(margins, settings.label_smoothing)


def preference_schedule(settings: PreferenceSettings, num_steps: int) -> optax.Schedule:
    """The learning rate of step 0, 1, ..., num_steps - 1."""
    return warmup_cosine(settings.learning_rate, settings.warmup_steps, num_steps)


def preference_optimizer(settings: PreferenceSettings, num_steps: int) -> optax.GradientTransformation:
    """The optimiser that the settings name, on clipped gradients."""
    return make_optimizer(
        preference_schedule(settings, num_steps),
        max_gradient_norm=settings.max_gradient_norm,
        weight_decay=settings.weight_decay,
        second_moment_decay=_SECOND_MOMENT_DECAY[settings.optimizer],
        name=settings.optimizer,
    )


def init_preference(trainable: Params, settings: PreferenceSettings, num_pairs: int, num_steps: int) -> PreferenceState:
    """The state before the first step, with a copy of `trainable`: steps donate their state."""
    with on_mesh_of(trainable):
        is_em = settings.loss == "em"
        return PreferenceState(
            trainable=jax.tree.map(jnp.copy, trainable),
            optimizer_state=preference_optimizer(settings, num_steps).init(trainable),
            step=jnp.zeros((), jnp.int32),
            label_errors=jnp.full(num_pairs, settings.initial_error_rate) if is_em else None,
        )


@functools.partial(jax.jit, static_argnames=("config", "settings", "num_steps"), donate_argnames="state")
def train_step(
    config: DecoderConfig,
    settings: PreferenceSettings,
    num_steps: int,
    frozen: Params,
    state: PreferenceState,
    batch: PreferenceBatch,
) -> tuple[PreferenceState, dict[str, jax.Array]]:
    """One optimiser step, and metrics [] from before it. The state is donated.

    EM's E-step is incremental (Neal & Hinton 1998): the posteriors of this step's pairs are
    computed anew, the error rate is the mean over the last ones of all pairs.
    """
    is_em = state.label_errors is not None
    error_rate = jnp.mean(state.label_errors) if is_em else 0.0
    num_pairs = jnp.sum(batch.is_pair)

    def loss_fn(trainable, part):
        policy = _log_probs_of_pairs(config, join(trainable, frozen), part.responses)
        num_tokens = _sides(jnp.sum(part.responses.action_mask, axis=-1))
        reference = _sides(part.reference_log_probs)
        losses = pair_losses(settings, policy, reference, num_tokens, error_rate)
        return jnp.sum(jnp.where(part.is_pair, losses, 0.0)) / num_pairs, policy

    def add(total, part):
        (loss, policy), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.trainable, part)
        return jax.tree.map(jnp.add, total, (loss, constrain_tree(gradients))), policy

    parts = jax.tree.map(lambda a: a.reshape(settings.accumulation, -1, *a.shape[1:]), batch)
    start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.trainable))
    (loss, gradients), policy = jax.lax.scan(add, start, parts)
    policy = jax.tree.map(jnp.ravel, policy)
    reference = _sides(batch.reference_log_probs)

    metrics = {
        "loss": loss,
        **reward_metrics(policy, reference, settings.beta, batch.is_pair.astype(jnp.float32)),
        "gradient_norm": optax.tree.norm(gradients),
        "learning_rate": preference_schedule(settings, num_steps)(state.step),
    }
    label_errors = None
    if is_em:
        errors = error_posterior(reward_margins(policy, reference, settings.beta), error_rate)
        label_errors = state.label_errors.at[batch.pairs].set(errors, mode="drop")
        metrics["em/error_rate"] = error_rate
    new_state = apply_gradients(preference_optimizer(settings, num_steps), gradients, state)
    return new_state._replace(step=state.step + 1, label_errors=label_errors), metrics


def _log_probs_of_pairs(config, params, responses) -> PairValues:
    rows = jax.tree.map(lambda a: a.reshape(-1, a.shape[-1]), responses)
    return _sides(action_log_probs(config, params, rows, 1.0).reshape(-1, 2))


def _sides(values: jax.Array) -> PairValues:
    """[B, 2] -> [B] of the chosen and [B] of the rejected."""
    return PairValues(values[:, 0], values[:, 1])
