"""Autoregressive sampling: a prefill, then a while loop over a preallocated cache.

Axes: U prompt beginnings, P their tokens, B batch, T prompt tokens, N new tokens, S cache slots,
V vocabulary, D model width. A cache holds the beginning, the prompt, then the new tokens; gaps in
it are masked.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from eagle_jax.language_model.decoder.attention import KeyValue
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params, SoftEmbeddings, bind, causal_mask, token_positions
from eagle_jax.language_model.sampling.token_drawing import Drawing, draw


class SampleOutput(NamedTuple):
    """tokens, log_probs, mask [B, N]; stopped [B]: a stop token was drawn (it is in the mask)."""

    tokens: jax.Array
    log_probs: jax.Array
    mask: jax.Array
    stopped: jax.Array


class Prefix(NamedTuple):
    """What rows have read before their prompts: U beginnings, each read once, and the one of each row.

    A single one stays single: all rows attend to the same keys and values. Of several each row takes a copy.
    """

    caches: tuple[KeyValue, ...]  # of P slots
    mask: jax.Array  # [U, P]
    rows: jax.Array  # [B]

    @property
    def shared(self) -> tuple[KeyValue, ...] | None:
        return self.caches if len(self.mask) == 1 else None


class SamplingState(NamedTuple):
    """A batch in the middle of sampling; `done` [B] may be set to end rows early."""

    step: jax.Array  # tokens drawn so far, []
    tokens: jax.Array  # [N, B]
    log_probs: jax.Array  # [N, B]
    lengths: jax.Array  # [B]
    done: jax.Array  # [B] stopped, or a row of padding
    prompt_mask: jax.Array  # [B, S]
    caches: tuple[KeyValue, ...]  # without what is shared
    seen: jax.Array | None  # [B, V] tokens that prompt or text have; None: nobody asks


@functools.partial(jax.jit, static_argnames="config")
def prefill_shared(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    mask: jax.Array,
    soft: SoftEmbeddings | None,
    rows: jax.Array,
) -> Prefix:
    """Reads each beginning once: tokens [U, P], of which rows [B] are those of the batch."""
    return Prefix(bind(config, params).read(tokens, mask, soft).caches, mask.astype(bool), rows)


class PromptRead(NamedTuple):
    """What drawing needs of the prompts."""

    logits: jax.Array  # [B, V] behind the prompts
    is_padding: jax.Array  # [B]
    prompt_mask: jax.Array  # [B, S]
    caches: tuple[KeyValue, ...]  # without what is shared


@functools.partial(jax.jit, static_argnames=("config", "room"))
def read_prompts(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    mask: jax.Array,
    soft: SoftEmbeddings | None,
    prefix: Prefix | None,
    *,
    room: int,
) -> PromptRead:
    """Left-padded prompts [B, T] behind `prefix` if there is one; caches with so much room behind them."""
    decoder = bind(config, params)
    prompt_mask = mask = mask.astype(bool)
    length = tokens.shape[1]
    positions, allowed = token_positions(mask), causal_mask(mask)
    cache, slot, shared = None, None, None
    if prefix is not None:
        before = prefix.mask[prefix.rows]
        positions += jnp.sum(before, axis=-1, keepdims=True, dtype=jnp.int32)
        seen = jnp.broadcast_to(before[:, None], (len(mask), length, before.shape[1]))
        allowed = jnp.concatenate([seen, allowed], axis=-1)
        prompt_mask = jnp.concatenate([before, mask], axis=-1)
        shared = prefix.shared
        if shared is None:
            slot = before.shape[1]
            cache = _with_room(jax.tree.map(lambda leaf: leaf[prefix.rows], prefix.caches), length)
    states = decoder(decoder.embed(tokens, soft), positions, allowed, cache, slot, length - 1, shared)
    logits = decoder.logits(states.last[:, 0])
    prompt_mask = jnp.pad(prompt_mask, ((0, 0), (0, room)))
    return PromptRead(logits, ~jnp.any(mask, axis=-1), prompt_mask, _with_room(states.caches, room))


def start_sampling(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    mask: jax.Array,
    soft: SoftEmbeddings | None,
    keys: jax.Array,
    drawing: Drawing,
    prefix: Prefix | None,
    seen: jax.Array | None,
    *,
    max_new_tokens: int,
    room: int | None = None,
) -> SamplingState:
    """Reads left-padded prompts [B, T], behind `prefix` if there is one, and draws one token.

    A row without any real prompt token is padding: it draws nothing and holds nobody up. seen [B, V]: the tokens of
    the prompts, where there is a repetition penalty. room: slots behind the prompts, of which the last are for the new
    tokens; None: as many as these.
    """
    room = max_new_tokens if room is None else room
    read = read_prompts(config, params, tokens, mask, soft, prefix, room=room)
    # On its own, drawing is compiled once for all lengths of prompts.
    state = _first_tokens(read.logits, read.is_padding, keys, drawing, seen, num_new=max_new_tokens)
    return state._replace(prompt_mask=read.prompt_mask, caches=read.caches)


@functools.partial(jax.jit, static_argnames="num_new")
def _first_tokens(logits, is_padding, keys, drawing, seen, num_new: int) -> SamplingState:
    batch = len(logits)
    state = SamplingState(
        step=jnp.int32(0),
        tokens=jnp.zeros((num_new, batch), jnp.int32),
        log_probs=jnp.zeros((num_new, batch), jnp.float32),
        lengths=jnp.zeros((batch,), jnp.int32),
        done=is_padding,
        prompt_mask=None,
        caches=(),
        seen=seen,
    )
    return _record(state, logits, keys, drawing)


@functools.partial(jax.jit, static_argnames="config", donate_argnames="state")
def continue_sampling(
    config: DecoderConfig,
    params: Params,
    state: SamplingState,
    keys: jax.Array,
    drawing: Drawing,
    num_tokens: jax.Array,
    shared: tuple[KeyValue, ...] | None = None,
) -> SamplingState:
    """Draws until all rows are done or have num_tokens (at most N) new tokens.

    What is drawn does not depend on where the calls are split. shared: of the `Prefix` that the prompts were read
    behind.
    """
    decoder = bind(config, params)
    num_slots, max_new_tokens = state.prompt_mask.shape[1], state.tokens.shape[0]
    num_before = num_slots - max_new_tokens
    num_shared = 0 if shared is None else shared[0].keys.shape[-1]
    slots = jnp.arange(num_slots)[None]
    prompt_lengths = jnp.sum(state.prompt_mask, axis=-1, dtype=jnp.int32)

    def advance(state: SamplingState) -> SamplingState:
        newest = state.step - 1  # drawn, not yet seen by the decoder
        is_drawn = (slots >= num_before) & (slots <= num_before + newest)
        states = decoder(
            decoder.embed(state.tokens[newest][:, None]),
            (prompt_lengths + newest)[:, None],
            (state.prompt_mask | is_drawn)[:, None],
            state.caches,
            num_before - num_shared + newest,
            shared=shared,
        )
        state = state._replace(caches=states.caches)
        return _record(state, decoder.logits(states.last[:, 0]), keys, drawing)

    return jax.lax.while_loop(lambda state: (state.step < num_tokens) & ~jnp.all(state.done), advance, state)


def sampled(state: SamplingState) -> SampleOutput:
    """What has been drawn so far."""
    mask = jnp.arange(state.tokens.shape[0])[None] < state.lengths[:, None]
    stopped = state.done & (state.lengths > 0)
    return SampleOutput(state.tokens.T, state.log_probs.T, mask, stopped)


def sample(
    config: DecoderConfig,
    params: Params,
    prompt_tokens: jax.Array,
    prompt_mask: jax.Array,
    keys: jax.Array,
    drawing: Drawing,
    *,
    max_new_tokens: int,
    soft: SoftEmbeddings | None = None,
    seen: jax.Array | None = None,
    prefix: Prefix | None = None,
) -> SampleOutput:
    """Continues left-padded prompts [B, T], behind `prefix` if there is one, until a stop token or max_new_tokens.

    soft [B, T, D]: vectors that stand for prompt tokens. log_probs are log softmax(logits /
    temperature) of the drawn tokens before penalty and truncation (at temperature 1 where it is 0,
    greedy). seen: as in `start_sampling`. Row i depends on keys[i] and its own prompt only; keys are consumed.
    """
    chex.assert_rank([prompt_tokens, prompt_mask, keys], [2, 2, 1])
    chex.assert_equal_shape([prompt_tokens, prompt_mask])
    start = start_sampling(
        config, params, prompt_tokens, prompt_mask, soft, keys, drawing, prefix, seen, max_new_tokens=max_new_tokens
    )
    shared = prefix and prefix.shared
    return sampled(continue_sampling(config, params, start, keys, drawing, max_new_tokens, shared))


def _with_room(caches: tuple[KeyValue, ...], room: int) -> tuple[KeyValue, ...]:
    keys, values = ((0, 0), (0, 0), (0, 0), (0, room)), ((0, 0), (0, 0), (0, room), (0, 0))
    return tuple(KeyValue(jnp.pad(kv.keys, keys), jnp.pad(kv.values, values)) for kv in caches)


def _record(state: SamplingState, logits: jax.Array, keys: jax.Array, drawing: Drawing) -> SamplingState:
    """The state with one more token for each row that is not done."""
    tokens, log_probs = draw(logits, keys, state.step, drawing, state.seen)
    is_stop = jnp.any(tokens[:, None] == drawing.stop_token_ids[None], axis=-1)
    return state._replace(
        step=state.step + 1,
        tokens=state.tokens.at[state.step].set(jnp.where(state.done, 0, tokens)),
        log_probs=state.log_probs.at[state.step].set(jnp.where(state.done, 0.0, log_probs)),
        lengths=state.lengths + ~state.done,
        done=state.done | is_stop,
        seen=None if state.seen is None else state.seen.at[jnp.arange(len(tokens)), tokens].set(True),
    )
