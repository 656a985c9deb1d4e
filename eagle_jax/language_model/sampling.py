"""Autoregressive sampling: one prefill, then a while loop over a preallocated cache.

Axes: B batch, T prompt tokens, N new tokens, V vocabulary, S stop tokens.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from eagle_jax.language_model.attention import KeyValue
from eagle_jax.language_model.decoder_config import DecoderConfig
from eagle_jax.language_model.transformer import (
    Decoder,
    Params,
    bind,
    causal_mask,
    forward,
    token_positions,
)

_BISECTIONS = 30  # halvings of [0, max p]: the nucleus threshold to one part in 1e9


class SampleOutput(NamedTuple):
    """tokens, log_probs, mask [B, N]; stopped [B]: a stop token was drawn (it is in the mask)."""

    tokens: jax.Array
    log_probs: jax.Array
    mask: jax.Array
    stopped: jax.Array


class _Loop(NamedTuple):
    step: jax.Array  # tokens drawn so far, []
    tokens: jax.Array  # [N, B]
    log_probs: jax.Array  # [N, B]
    lengths: jax.Array  # [B]
    done: jax.Array  # [B] stopped, or a row of padding
    caches: tuple[KeyValue, ...]


def scaled_log_softmax(logits: jax.Array, temperature: jax.Array) -> jax.Array:
    """log softmax(logits / temperature); temperature 0 means greedy, reported at temperature 1."""
    return jax.nn.log_softmax(logits / jnp.where(temperature > 0, temperature, 1.0), axis=-1)


def nucleus(log_probs: jax.Array, top_p: jax.Array) -> jax.Array:
    """Log-probs [B, V] with -inf outside the fewest likeliest tokens of mass >= top_p.

    Holtzman et al. 2020, section 3.1. The threshold is found by bisection, without sorting: equal
    probabilities at the threshold are all kept.
    """
    probs = jnp.exp(log_probs)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        enough = jnp.sum(jnp.where(probs >= middle, probs, 0.0), -1, keepdims=True) >= top_p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    high = jnp.max(probs, axis=-1, keepdims=True)
    low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(high), high))
    return jnp.where(probs >= low, log_probs, -jnp.inf)


def _draw(logits, keys, step, temperature, top_p):
    """One token per row from its own noise: argmax(log p + Gumbel(fold_in(key, step)))."""
    log_probs = scaled_log_softmax(logits, temperature)

    def perturbed():
        noise = jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, step), (vocab,)))
        kept = jax.lax.cond(top_p < 1, nucleus, lambda values, _: values, log_probs, top_p)
        return kept + noise(keys)

    vocab = logits.shape[-1]
    scores = jax.lax.cond(temperature > 0, perturbed, lambda: log_probs)
    tokens = jnp.argmax(scores, axis=-1).astype(jnp.int32)
    return tokens, _select(log_probs, tokens)


def _select(values: jax.Array, tokens: jax.Array) -> jax.Array:
    """values [..., V] at tokens [...]. A masked sum: its gradient is no scatter, slow on CPU."""
    vocab = jax.lax.broadcasted_iota(tokens.dtype, values.shape, values.ndim - 1)
    return jnp.sum(jnp.where(vocab == tokens[..., None], values, 0.0), axis=-1)


def _prefill(decoder: Decoder, tokens, mask, num_new: int):
    """Logits [B, V] after the last prompt token and caches with room for num_new more tokens."""
    last = tokens.shape[1] - 1
    hidden = decoder.embed(tokens)
    states = decoder(hidden, token_positions(mask), causal_mask(mask), first=last)
    room = ((0, 0), (0, 0), (0, 0), (0, num_new))
    swapped = ((0, 0), (0, 0), (0, num_new), (0, 0))
    caches = tuple(
        KeyValue(jnp.pad(kv.keys, room), jnp.pad(kv.values, swapped)) for kv in states.caches
    )
    return decoder.logits(states.last[:, 0]), caches


@functools.partial(jax.jit, static_argnames=("config", "max_new_tokens"))
def sample(
    config: DecoderConfig,
    params: Params,
    prompt_tokens: jax.Array,
    prompt_mask: jax.Array,
    keys: jax.Array,
    *,
    temperature: jax.Array,
    top_p: jax.Array,
    stop_token_ids: jax.Array,
    max_new_tokens: int,
) -> SampleOutput:
    """Continues left-padded prompts [B, T] until a stop token [S] or max_new_tokens.

    log_probs are log softmax(logits / temperature) of the drawn tokens before nucleus truncation
    (at temperature 1 where temperature is 0, greedy). Row i depends on keys[i] and its own prompt
    only; keys are consumed. A row without any real prompt token is padding: it draws nothing and
    holds nobody up.
    """
    chex.assert_rank([prompt_tokens, prompt_mask, keys, stop_token_ids], [2, 2, 1, 1])
    chex.assert_equal_shape([prompt_tokens, prompt_mask])
    decoder = bind(config, params)
    prompt_mask = prompt_mask.astype(bool)
    batch, prompt_length = prompt_tokens.shape
    lengths = jnp.sum(prompt_mask, axis=-1, dtype=jnp.int32)

    def record(loop: _Loop, logits: jax.Array) -> _Loop:
        tokens, log_probs = _draw(logits, keys, loop.step, temperature, top_p)
        hit = jnp.any(tokens[:, None] == stop_token_ids[None], axis=-1)
        return loop._replace(
            step=loop.step + 1,
            tokens=loop.tokens.at[loop.step].set(jnp.where(loop.done, 0, tokens)),
            log_probs=loop.log_probs.at[loop.step].set(jnp.where(loop.done, 0.0, log_probs)),
            lengths=loop.lengths + ~loop.done,
            done=loop.done | hit,
        )

    def advance(loop: _Loop) -> _Loop:
        newest = loop.step - 1  # drawn, not yet seen by the decoder
        seen = jnp.broadcast_to(jnp.arange(max_new_tokens)[None] <= newest, (batch, max_new_tokens))
        allowed = jnp.concatenate([prompt_mask, seen], axis=1)[:, None]
        states = decoder(
            decoder.embed(loop.tokens[newest][:, None]),
            (lengths + newest)[:, None],
            allowed,
            loop.caches,
            prompt_length + newest,
        )
        return record(loop._replace(caches=states.caches), decoder.logits(states.last[:, 0]))

    logits, caches = _prefill(decoder, prompt_tokens, prompt_mask, max_new_tokens)
    start = _Loop(
        step=jnp.int32(0),
        tokens=jnp.zeros((max_new_tokens, batch), jnp.int32),
        log_probs=jnp.zeros((max_new_tokens, batch), jnp.float32),
        lengths=jnp.zeros((batch,), jnp.int32),
        done=lengths == 0,
        caches=caches,
    )
    end = jax.lax.while_loop(
        lambda loop: (loop.step < max_new_tokens) & ~jnp.all(loop.done),
        advance,
        record(start, logits),
    )
    mask = jnp.arange(max_new_tokens)[None] < end.lengths[:, None]
    return SampleOutput(end.tokens.T, end.log_probs.T, mask, end.done & (lengths > 0))


@functools.partial(jax.jit, static_argnames="config")
def token_log_probs(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    mask: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    """Teacher forcing: log p(tokens[:, 1:] | what stands before) [B, T - 1], 0 at padding.

    The same scaled distribution as `sample` reports, so the two agree on sampled text.
    """
    logits = forward(config, params, tokens, mask).logits[:, :-1]
    chosen = _select(scaled_log_softmax(logits, temperature), tokens[:, 1:])
    return jnp.where(mask[:, 1:] & mask[:, :-1], chosen, 0.0)
