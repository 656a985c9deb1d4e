"""Decoder-only transformers (Llama, Qwen 3) as Flax NNX modules behind a functional facade.

`params` is a plain nested dictionary of float32 arrays; `config` is static and hashable.
Axes: B batch, T tokens, S cache slots, D model width, V vocabulary, L layers.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from eagle_jax.language_model.attention import Attention, KeyValue, Linear, RMSNorm, rotary_angles
from eagle_jax.language_model.decoder_config import DecoderConfig

Params = dict[str, Any]


class FeedForward(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        linear = functools.partial(Linear, scale=config.initializer_range, rngs=rngs)
        self.gate = linear(config.hidden_size, config.intermediate_size)
        self.up = linear(config.hidden_size, config.intermediate_size)
        self.down = linear(config.intermediate_size, config.hidden_size)

    def __call__(self, hidden: jax.Array) -> jax.Array:
        return self.down(jax.nn.silu(self.gate(hidden)) * self.up(hidden))


class Layer(nnx.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, rngs=rngs)
        self.feed_forward_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.feed_forward = FeedForward(config, rngs=rngs)

    def __call__(self, hidden, rotation, allowed, cache=None, slot=None, first=0):
        mixed, stored = self.attention(
            self.attention_norm(hidden), rotation, allowed, cache, slot, first
        )
        hidden = hidden[:, first:] + mixed
        return hidden + self.feed_forward(self.feed_forward_norm(hidden)), stored


class Decoder(nnx.Module):
    """Token embedding, layers, final norm and (tied or own) unembedding."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        init = nnx.initializers.normal(config.initializer_range)
        shape = (config.vocab_size, config.hidden_size)
        self.config = config
        self.token_embedding = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.layers = nnx.Dict(
            {str(index): Layer(config, rngs=rngs) for index in range(config.num_layers)}
        )
        self.final_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.unembedding = nnx.Param(init(rngs.params(), shape, jnp.float32))

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        allowed: jax.Array,
        caches: tuple[KeyValue, ...] | None = None,
        slot: jax.Array | None = None,
        first: int = 0,
    ) -> tuple[list[jax.Array], tuple[KeyValue, ...]]:
        """tokens [B, T] at positions [B, T] that see allowed [B, T, S] -> (L + 1 states, caches).

        States are those of `transformers`: the embeddings, then each layer's output, the last one
        after the final norm. That one is computed from token `first` on, [B, T - first, D]: most
        of the last layer is saved where only the end of a sequence is asked for.
        """
        rotation = rotary_angles(positions, self.config.head_dim, self.config.rope_theta)
        states = [jnp.take(self.token_embedding[...], tokens, axis=0)]
        stored = []
        for index in range(self.config.num_layers):
            cache = None if caches is None else caches[index]
            is_last = index == self.config.num_layers - 1
            hidden, kept = self.layers[str(index)](
                states[-1], rotation, allowed, cache, slot, first if is_last else 0
            )
            states.append(hidden)
            stored.append(kept)
        states[-1] = self.final_norm(states[-1])
        return states, tuple(stored)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> [..., V]."""
        tied = self.config.tie_word_embeddings
        matrix = self.token_embedding if tied else self.unembedding
        flat = hidden.reshape(-1, hidden.shape[-1]) @ matrix[...].T
        return flat.reshape(*hidden.shape[:-1], flat.shape[-1])


@functools.lru_cache
def _graph(config: DecoderConfig) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))


def bind(config: DecoderConfig, params: Params) -> Decoder:
    """The module with these parameters."""
    return nnx.merge(_graph(config), params)


@functools.partial(jax.jit, static_argnames="config")
def init_params(config: DecoderConfig, key: jax.Array) -> Params:
    """Normal(0, initializer_range) matrices and unit norms, float32. The key is consumed."""
    return nnx.to_pure_dict(nnx.state(Decoder(config, rngs=nnx.Rngs(params=key))))


def token_positions(mask: jax.Array) -> jax.Array:
    """Number of real tokens before each one of mask [B, T], whichever side is padded."""
    return jnp.maximum(jnp.cumsum(mask, axis=-1, dtype=jnp.int32) - 1, 0)


def causal_mask(mask: jax.Array) -> jax.Array:
    """[B, T] -> [B, T, T]: token t sees the real tokens s <= t."""
    length = mask.shape[-1]
    return mask[:, None, :] & jnp.tri(length, dtype=bool)[None]


class DecoderOutput(NamedTuple):
    """logits [B, T, V], hidden_states [L + 1, B, T, D] as `transformers` defines them."""

    logits: jax.Array
    hidden_states: jax.Array


@functools.partial(jax.jit, static_argnames="config")
def forward(
    config: DecoderConfig, params: Params, tokens: jax.Array, mask: jax.Array
) -> DecoderOutput:
    """Whole sequences tokens [B, T] with mask [B, T] (True: real), padded left or right.

    Outputs at padding are finite and mean nothing. Under jit, unused outputs cost nothing.
    """
    chex.assert_rank([tokens, mask], 2)
    chex.assert_equal_shape([tokens, mask])
    decoder = bind(config, params)
    mask = mask.astype(bool)
    states, _ = decoder(tokens, token_positions(mask), causal_mask(mask))
    return DecoderOutput(decoder.logits(states[-1]), jnp.stack(states))
