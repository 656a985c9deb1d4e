"""log p of tokens, from a decoder's last hidden states and its unembedding.

The logits [B, T, V] of a batch are larger than all else that training needs: nothing else makes
them. Where there are many, they are made for a few tokens of each row at a time, and once more for
the gradient; only what is asked for of them is kept.

Axes: B batch, T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params, SoftEmbeddings, bind

_MANY = 2**28  # logits, 1 GiB of them


class LastStates(NamedTuple):
    """Last hidden states [B, T, D] of texts, and what makes logits [B, T, V] of them: the decoder's
    own unembedding with its table, bias and cap."""

    states: jax.Array
    unembed: Callable[[jax.Array], jax.Array]


class TokenScores(NamedTuple):
    """Of each token [B, T], in nats: its log-prob, the entropy of the distribution that it is drawn
    from, and KL(p || reference), exact over the vocabulary (None without a reference)."""

    log_probs: jax.Array
    entropy: jax.Array
    divergence: jax.Array | None


def read_text(
    config: DecoderConfig, params: Params, tokens: jax.Array, mask: jax.Array, soft: SoftEmbeddings | None = None
) -> LastStates:
    """Of whole sequences tokens [B, T] with mask [B, T], padded left or right."""
    decoder = bind(config, params)
    return LastStates(decoder.read(tokens, mask, soft).last, decoder.logits)


def scaled_log_softmax(logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """log softmax(logits / temperature); temperature 0 means greedy, reported at temperature 1."""
    return jax.nn.log_softmax(logits / jnp.where(temperature > 0, temperature, 1.0), axis=-1)


def pick_tokens(values: jax.Array, tokens: jax.Array) -> jax.Array:
    """values [..., V] at tokens [...]. A masked sum, not a gather: its gradient is no scatter,
    which is slow on CPU."""
    vocab = jax.lax.broadcasted_iota(tokens.dtype, values.shape, values.ndim - 1)
    return jnp.sum(jnp.where(vocab == tokens[..., None], values, 0.0), axis=-1)


def kl_divergence(log_probs: jax.Array, reference: jax.Array) -> jax.Array:
    """sum_v p(v) (log p(v) - log p_ref(v)), [..., V] -> [...]. No gradient to the reference."""
    chex.assert_equal_shape([log_probs, reference])
    difference = log_probs - jax.lax.stop_gradient(reference)
    return jnp.sum(jnp.exp(log_probs) * difference, axis=-1)


def score_tokens(
    read: LastStates, tokens: jax.Array, temperature: jax.Array | float = 1.0, reference: LastStates | None = None
) -> TokenScores:
    """Scores of tokens [B, T], each drawn from softmax(logits / temperature) of its state.

    The temperature is that of sampling, for the reference too: else another policy is scored than
    the one that acts. Under jit, what is not used costs nothing.
    """
    chex.assert_equal_shape_prefix([read.states, tokens], 2)
    batch, length = tokens.shape
    vocab = jax.eval_shape(read.unembed, read.states).shape[-1]
    size = max(1, min(length, _MANY // (batch * vocab)))
    others = (None, None) if reference is None else reference

    def score(states, tokens, reference_states):
        log_probs = scaled_log_softmax(read.unembed(states), temperature)
        divergence = None
        if reference is not None:
            logits = jax.lax.stop_gradient(reference.unembed(reference_states))
            divergence = kl_divergence(log_probs, scaled_log_softmax(logits, temperature))
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        return TokenScores(pick_tokens(log_probs, tokens), entropy, divergence)

    whole = (read.states, tokens, others[0])
    if size == length:
        return score(*whole)

    def in_blocks(rows):
        padded = jnp.pad(rows, ((0, 0), (0, -length % size), *((0, 0) for _ in rows.shape[2:])))
        return jnp.moveaxis(padded.reshape(batch, -1, size, *rows.shape[2:]), 1, 0)

    blocks = jax.lax.map(lambda block: jax.checkpoint(score)(*block), jax.tree.map(in_blocks, whole))
    return jax.tree.map(lambda rows: jnp.moveaxis(rows, 0, 1).reshape(batch, -1)[:, :length], blocks)


def following_log_probs(
    read: LastStates, tokens: jax.Array, mask: jax.Array, temperature: jax.Array | float = 1.0
) -> jax.Array:
    """log p(tokens[:, 1:] | what stands before) [B, T - 1], 0 at padding."""
    following = jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)))
    log_probs = score_tokens(read, following, temperature).log_probs[:, :-1]
    return jnp.where(mask[:, 1:] & mask[:, :-1], log_probs, 0.0)
