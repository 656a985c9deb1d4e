"""Grouped-query attention with rotary positions, for whole sequences and for one token on a cache.

Axes: B batch, T queries, S keys, D model width, H query heads, G key/value heads (H / G queries
share one), d head width, r <= d rotated coordinates.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from eagle_jax.language_model.decoder.config import DecoderConfig, Rope
from eagle_jax.language_model.decoder.linear import Linear
from eagle_jax.language_model.decoder.norms import NORMS
from eagle_jax.language_model.sharding import constrain, shard_size
from eagle_jax.language_model.token_blocks import in_blocks, joined

_MANY = 2**24  # scores of a block, 64 MiB of them
_MASKED = -1e30  # finite: a row that may look at nothing gets a uniform average, not NaN


class KeyValue(NamedTuple):
    """Keys [B, G, d, S] and values [B, G, S, d]: fastest for one query."""

    keys: jax.Array
    values: jax.Array


class Rotation(NamedTuple):
    """Cosine and sine of the rotary angles, each [B, T, 1, r / 2] of r rotated coordinates."""

    cos: jax.Array
    sin: jax.Array


def rotary_frequencies(rope: Rope | None, rotary_dim: int) -> jax.Array:
    """theta^(-2i / r) (Su et al. 2021, RoFormer, section 3.2), scaled as `Rope` says: [r / 2]. None: nothing turns."""
    if rope is None:
        return jnp.zeros(rotary_dim // 2)
    exponents = jnp.arange(0, rotary_dim, 2, dtype=jnp.float32) / rotary_dim
    frequencies = rope.theta**-exponents
    if rope.rope_type == "default":
        return frequencies
    if rope.rope_type == "linear":
        return frequencies / rope.factor
    # llama3: how often a frequency turns in the original context decides, 0: all scaled, 1: kept.
    turns = rope.original_max_position_embeddings * frequencies / (2 * np.pi)
    kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    kept = jnp.clip(kept, 0.0, 1.0)
    return (1 - kept) * frequencies / rope.factor + kept * frequencies


def rotary_angles(positions: jax.Array, rotary_dim: int, rope: Rope | None) -> Rotation:
    """Cosine and sine of p * frequency at positions p [B, T]."""
    frequencies = rotary_frequencies(rope, rotary_dim)
    angles = positions.astype(jnp.float32)[:, :, None, None] * frequencies[None, None, None]
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(heads: jax.Array, rotation: Rotation) -> jax.Array:
    """Rotates the first r coordinates of heads [B, T, H, d]; pairs are (i, i + r / 2), as in
    Hugging Face's checkpoints."""
    cos, sin = (part.astype(heads.dtype) for part in rotation)
    half = cos.shape[-1]
    first, second, rest = jnp.split(heads, (half, 2 * half), axis=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate([*turned, rest] if rest.size else turned, axis=-1)


def window_mask(allowed: jax.Array, window: int) -> jax.Array:
    """What is left of allowed [B, T, S] when a token sees itself and the window - 1 before it.

    Tokens are counted, not slots: in each row of `allowed` the last True one is the token itself,
    so padding on either side and gaps in a cache do not count.
    """
    behind = jnp.cumsum(allowed[:, :, ::-1], axis=-1, dtype=jnp.int32)[:, :, ::-1]
    return allowed & (behind <= window)


def attend(
    query: jax.Array,
    stored: KeyValue,
    allowed: jax.Array,
    scale: float | None = None,
    softcap: float | None = None,
    shared: KeyValue | None = None,
) -> jax.Array:
    """softmax(cap(scale q k')) v of query [B, T, H, d] where allowed [B, T, S]; [B, T, H * d].

    scale: 1 / sqrt(d) where None; cap(s) = softcap tanh(s / softcap) (Gemma 2). The softmax is
    float32. shared: P keys and values of batch 1 that all rows see before their own, allowed [B, T, P + S]. The
    queries that share a key head are stacked along T, so that both products are plain
    matrix products over (B, G): two to four times as fast on CPU as the five-axis einsum. Where
    there are many scores, they are made for a block of queries at a time, and once more for the
    gradient: memory is linear in T.
    """
    batch, length, heads, _ = query.shape
    size = max(1, _MANY // (shard_size((batch, heads), "BH") * allowed.shape[-1]))
    part = functools.partial(_attend, scale=scale, softcap=softcap, shared=shared)
    if size >= length:
        return part(query, stored, allowed)
    run = jax.checkpoint(lambda block: part(block[0], stored, block[1]))
    return joined(jax.lax.map(run, in_blocks((query, allowed), size)), length)


def _attend(query, stored, allowed, scale, softcap, shared):
    batch, length, heads, head_dim = query.shape
    groups = stored.keys.shape[1]
    split = (batch, groups, heads // groups, length)
    stacked = (batch, groups, heads // groups * length)
    scale = head_dim**-0.5 if scale is None else scale
    query = query.reshape(batch, length, *split[1:3], head_dim) * scale
    query = query.transpose(0, 2, 3, 1, 4).reshape(*stacked, head_dim)
    scores = jnp.einsum("bgqd,bgds->bgqs", query, stored.keys, preferred_element_type=jnp.float32)
    if shared is not None:
        scores = jnp.concatenate([_by_all_rows(query, shared.keys), scores], axis=-1)
    scores = scores.reshape(*split, -1)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    weights = jax.nn.softmax(jnp.where(allowed[:, None, None], scores, _MASKED), axis=-1)
    weights = weights.reshape(*stacked, -1).astype(stored.values.dtype)
    num_shared = 0 if shared is None else shared.keys.shape[-1]
    mixed = jnp.einsum("bgqs,bgsd->bgqd", weights[..., num_shared:], stored.values)
    if shared is not None:
        mixed += _by_all_rows(weights[..., :num_shared], shared.values).astype(mixed.dtype)
    mixed = mixed.reshape(*split, head_dim).transpose(0, 3, 1, 2, 4)
    return mixed.reshape(batch, length, heads * head_dim)


def _by_all_rows(left: jax.Array, right: jax.Array) -> jax.Array:
    """left [B, G, Q, n] times right [1, G, n, m] in float32: what all rows share is read once, by B Q rows."""
    batch, groups, count, width = left.shape
    rows = left.transpose(1, 0, 2, 3).reshape(groups, batch * count, width)
    product = jnp.einsum("gqn,gnm->gqm", rows, right[0], preferred_element_type=jnp.float32)
    return product.reshape(groups, batch, count, -1).transpose(1, 0, 2, 3)


class Attention(nnx.Module):
    """Attention sublayer; returns what it attended over, so that prefilling yields the cache."""

    def __init__(self, config: DecoderConfig, path: str, *, rngs: nnx.Rngs):
        def linear(name: str, inputs: int, outputs: int, bias: bool) -> Linear:
            return Linear(config, f"{path}/{name}", inputs, outputs, bias, rngs=rngs)

        self.config = config
        width, bias = config.hidden_size, config.query_key_value_bias
        self.query = linear("query", width, config.num_heads * config.head_dim, bias)
        self.key = linear("key", width, config.num_kv_heads * config.head_dim, bias)
        self.value = linear("value", width, config.num_kv_heads * config.head_dim, bias)
        self.output = linear("output", config.num_heads * config.head_dim, width, config.output_bias)
        if config.family.head_norms or config.family.projection_norms:
            counts = (1, 1) if config.family.head_norms else (config.num_heads, config.num_kv_heads)
            self.query_norm, self.key_norm = (
                NORMS[config.family.norm](count * config.head_dim, config) for count in counts
            )

    def __call__(
        self,
        hidden: jax.Array,
        rotation: Rotation,
        allowed: jax.Array,
        cache: KeyValue | None = None,
        slot: jax.Array | None = None,
        first: int = 0,
        shared: KeyValue | None = None,
    ) -> tuple[jax.Array, KeyValue]:
        """hidden [B, T, D] -> ([B, T - first, D], keys and values).

        The tokens from `first` on look at all; keys and values are written at `slot` of a cache.
        shared: as in `attend`.
        """
        query, key, value = self.query(hidden[:, first:]), self.key(hidden), self.value(hidden)
        if self.config.family.projection_norms:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key, value = (each.reshape(*each.shape[:2], -1, self.config.head_dim) for each in (query, key, value))
        if self.config.family.head_norms:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.config.rotary_dim:
            query = rotate(query, Rotation(rotation.cos[:, first:], rotation.sin[:, first:]))
            key = rotate(key, rotation)
        query = constrain(query, "BTHd")
        stored = KeyValue(key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3))
        if cache is not None:
            write = jax.lax.dynamic_update_slice_in_dim
            stored = KeyValue(
                write(cache.keys, stored.keys, slot, axis=3), write(cache.values, stored.values, slot, axis=2)
            )
        stored = KeyValue(constrain(stored.keys, "BGdS"), constrain(stored.values, "BGSd"))
        scale, softcap = self.config.attention_scale, self.config.attention_softcap
        if shared is not None:
            shared = KeyValue(constrain(shared.keys, "1GdS"), constrain(shared.values, "1GSd"))
        return self.output(attend(query, stored, allowed[:, first:], scale, softcap, shared)), stored
