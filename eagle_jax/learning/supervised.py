"""Next-token prediction: pretraining, and the reference policy (EAGLE, section 4.4).

Axis letters: `B` batch, `T` tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eagle_jax.base.settings import setting, settings
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.log_probs import LastStates, read_text
from eagle_jax.language_model.sharding import constrain_tree, on_mesh_of
from eagle_jax.learning.loop import Hook, Records, train
from eagle_jax.learning.losses import next_token_loss
from eagle_jax.learning.optimizers import apply_gradients, make_optimizer, training_start, warmup_cosine
from eagle_jax.learning.trainable import TrainingMode, join, split


@settings
class NextTokenSettings:
    """AdamW, linear warm-up, cosine decay to a tenth."""

    num_steps: int = setting("Optimiser steps.", at_least=0)
    learning_rate: float = setting("At the end of the warm-up.", above=0)
    warmup_steps: int = setting("In which the learning rate rises from 0.", at_least=0)
    weight_decay: float = setting("AdamW's, of matrices.", at_least=0)
    max_gradient_norm: float = setting("Longer gradients are scaled down to it.", above=0)
    checkpoint_every: int = setting("The last step always has one.", at_least=1, unit="steps")
    log_every: int = setting("The last step always has a row.", at_least=1, unit="steps")


class Batch(NamedTuple):
    """Right-padded tokens, what is real, and how much each token counts as a target, all [B, T]."""

    tokens: np.ndarray
    mask: np.ndarray
    loss_weights: np.ndarray


class NextTokenState(NamedTuple):
    """All that training needs to go on, apart from what is frozen."""

    trainable: Params
    optimizer_state: optax.OptState
    step: jax.Array


def encode_pairs(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], prompt_loss_weight: float, length_multiple: int
) -> Batch:
    """Prompts and completions as one batch; a completion's tokens count 1, a prompt's
    `prompt_loss_weight`."""
    rows = [(tokenizer.encode_prompt(p), _encode_continuation(tokenizer, c)) for p, c in pairs]
    tokens, mask = tokenizer.right_pad([a + b for a, b in rows], length_multiple)
    weights = np.where(mask, np.float32(1.0), np.float32(0.0))
    for row, (prompt, _) in enumerate(rows):
        weights[row, : len(prompt)] *= prompt_loss_weight
    return Batch(tokens, mask, weights)


def _encode_continuation(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text that goes on after another: without the beginning token of a text."""
    ids = tokenizer.encode(text)
    return ids[1:] if ids and ids[0] == tokenizer.bos_id else ids


def next_token_optimizer(settings: NextTokenSettings) -> optax.GradientTransformation:
    """Clipped AdamW with a warm-up."""
    return make_optimizer(
        warmup_cosine(settings.learning_rate, settings.warmup_steps, settings.num_steps),
        max_gradient_norm=settings.max_gradient_norm,
        weight_decay=settings.weight_decay,
        second_moment_decay=0.98,
    )


def init_training(trainable: Params, settings: NextTokenSettings) -> NextTokenState:
    """The state before the first step, with a copy of `trainable`."""
    with on_mesh_of(trainable):
        return NextTokenState(*training_start(next_token_optimizer(settings), trainable), jnp.zeros((), jnp.int32))


# (config, params, batch) -> last states; a batch has at least tokens, mask and loss_weights.
ReadFn = Callable[[DecoderConfig, Params, Any], LastStates]


def read_batch(config: DecoderConfig, params: Params, batch: Batch) -> LastStates:
    """By a decoder that reads nothing but tokens."""
    return read_text(config, params, batch.tokens, batch.mask)


@functools.partial(jax.jit, static_argnames=("config", "settings", "read_fn"), donate_argnames="state")
def next_token_step(
    config: DecoderConfig,
    settings: NextTokenSettings,
    frozen: Params,
    state: NextTokenState,
    batches: tuple[Batch, ...],
    read_fn: ReadFn = read_batch,
) -> tuple[NextTokenState, dict[str, jax.Array]]:
    """One optimiser step on the union of `batches`, which may differ in shape: texts of different
    length are mixed in a step without padding all to the longest. The state is donated."""
    weights = [jnp.sum(batch.loss_weights[:, 1:]) for batch in batches]

    def loss_fn(trainable):
        params = join(trainable, frozen)
        losses = [
            weight * next_token_loss(read_fn(config, params, batch), batch.tokens, batch.loss_weights)
            for weight, batch in zip(weights, batches, strict=True)
        ]
        return sum(losses) / sum(weights)

    loss, gradients = constrain_tree(jax.value_and_grad(loss_fn)(state.trainable))
    state = apply_gradients(next_token_optimizer(settings), gradients, state)
    metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
    return state._replace(step=state.step + 1), metrics


def train_next_token(
    config: DecoderConfig,
    params: Params,
    mode: TrainingMode,
    draw_batches: Callable[[int], tuple[Batch, ...]],
    settings: NextTokenSettings,
    records: Records,
    read_fn: ReadFn = read_batch,
    measure: Callable[[Params], Mapping[str, Any]] | None = None,
) -> Params:
    """Trains from the last checkpoint, or from `params`; `draw_batches(step)`, step from 0 on,
    depends on step only.

    What `mode` freezes are the same arrays in the parameters that come back. What `measure` finds
    in all parameters is logged beside the loss. Raises `NonFiniteError` with the first step where
    the loss or its gradient is not finite.
    """
    trainable, frozen = split(params, mode)

    def iterate(step: int, state: NextTokenState) -> tuple[NextTokenState, dict[str, jax.Array]]:
        with on_mesh_of(params):
            return next_token_step(config, settings, frozen, state, draw_batches(step - 1), read_fn)

    def measured(step: int, state: NextTokenState) -> Mapping[str, Any]:
        with on_mesh_of(params):
            return measure(join(state.trainable, frozen))

    state = train(
        init_training(trainable, settings),
        iterate,
        [Hook(settings.log_every, measured)] if measure else [],
        records,
        num_steps=settings.num_steps,
        log_every=settings.log_every,
        checkpoint_every=settings.checkpoint_every,
        unit="step",
    )
    return join(state.trainable, frozen)
