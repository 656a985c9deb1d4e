"""log p of tokens, from a decoder's last hidden states and its unembedding.

    l = unembed(h) / temperature,  log p = l - logsumexp(l)                 h [D] -> log p [V]
    scores of a token a:  log p(a),  -sum_v p(v) log p(v),  sum_v p(v) (log p(v) - log p_ref(v))

The logits [B, T, V] of a batch are larger than all else that training needs: nothing else makes
them. Where there are many, they are made for a block of some tokens of each row at a time; only
what is asked for of them is kept. For the gradient a block's logits are made once more
(`score_tokens`), or, where a loss is linear in the scores, so that each score's share in it is
known beforehand, the gradient is formed beside them (`linear_loss`): a third product with the
table, not a fourth.

Axes: B batch, T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params, SoftEmbeddings, bind
from eagle_jax.language_model.sharding import on_own_rows, shard_size
from eagle_jax.language_model.token_blocks import in_blocks, joined

_MANY = 2**26  # logits of a block, 256 MiB of them


class LastStates(NamedTuple):
    """Last hidden states [B, T, D] of texts, and what makes logits [B, T, V] of them: the decoder's
    own unembedding, a pytree of its table and bias."""

    states: jax.Array
    unembed: jax.tree_util.Partial


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
    return LastStates(decoder.read(tokens, mask, soft).last, decoder.head)


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


class _Rows(NamedTuple):
    """What is split into blocks: last states [B, T, D], those of the reference or None, tokens [B, T]."""

    states: jax.Array
    reference_states: jax.Array | None
    tokens: jax.Array


def score_tokens(
    read: LastStates, tokens: jax.Array, temperature: jax.Array | float = 1.0, reference: LastStates | None = None
) -> TokenScores:
    """Scores of tokens [B, T], each drawn from softmax(logits / temperature) of its state.

    The temperature is that of sampling, for the reference too: else another policy is scored than
    the one that acts. Under jit, what is not used costs nothing.
    """
    rows, other = _rows(read, tokens, reference)
    heads, size = (read.unembed, other, temperature), _block_length(read)
    if size == tokens.shape[1]:
        return _score(heads, rows)

    def own_rows(heads, rows):
        score = jax.checkpoint(lambda block: _score(heads, block))
        return (), joined(jax.lax.map(score, in_blocks(rows, size)), rows.tokens.shape[1])

    return on_own_rows(own_rows, heads, rows)[1]


def linear_loss(
    loss_fn: Callable[[TokenScores], jax.Array],
    read: LastStates,
    tokens: jax.Array,
    temperature: jax.Array | float = 1.0,
    reference: LastStates | None = None,
) -> tuple[jax.Array, TokenScores]:
    """loss_fn(`score_tokens`), [], and the scores, which have no gradient.

    The loss must be sum_t w_t s_t with weights w_t that no parameter moves: linear in the scores s.
    Its gradient goes to `read` alone.
    """
    rows, other = _rows(read, tokens, reference)
    heads, size = (read.unembed, other, temperature), _block_length(read)
    if size == tokens.shape[1]:
        scores = _score(heads, rows)
        return loss_fn(scores), jax.lax.stop_gradient(scores)
    nothing = jax.tree.map(lambda of: jnp.zeros(of.shape, of.dtype), jax.eval_shape(_score, heads, rows))
    return _weighted_sum(size, heads, rows, jax.grad(loss_fn)(nothing))


def _rows(read, tokens, reference):
    """Of the text and its reference: what is split, and the reference's unembedding."""
    chex.assert_equal_shape_prefix([read.states, tokens], 2)
    states, other = (None, None) if reference is None else reference
    return _Rows(read.states, states, tokens), other


def _score(heads, rows) -> TokenScores:
    unembed, reference, temperature = heads
    log_probs = scaled_log_softmax(unembed(rows.states), temperature)
    divergence = None
    if reference is not None:
        logits = jax.lax.stop_gradient(reference(rows.reference_states))
        divergence = kl_divergence(log_probs, scaled_log_softmax(logits, temperature))
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return TokenScores(pick_tokens(log_probs, rows.tokens), entropy, divergence)


def _block_length(read: LastStates) -> int:
    """Tokens of each row whose logits are made at once on every chip."""
    batch, length, _ = read.states.shape
    vocab = jax.eval_shape(read.unembed, read.states).shape[-1]
    return max(1, min(length, _MANY // shard_size((batch, vocab), "BV")))


def _weigh(heads, rows, weights):
    """Of a block: sum_t w_t s_t, and the scores."""
    scores = _score(heads, rows)
    # where, not a product alone: a token that does not count may have log-prob -inf.
    parts = jax.tree.map(lambda w, s: jnp.sum(jnp.where(w == 0, 0.0, w * s)), weights, scores)
    return sum(jax.tree.leaves(parts)), scores


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weighted_sum(size, heads, rows, weights):
    def own_rows(heads, own):
        def step(total, block):
            value, scores = _weigh(heads, *block)
            return total + value, scores

        total, scores = jax.lax.scan(step, jnp.zeros((), weights.log_probs.dtype), in_blocks(own, size))
        return total, joined(scores, own[0].tokens.shape[1])

    return on_own_rows(own_rows, heads, (rows, weights))


def _sum_and_gradient(size, heads, rows, weights):
    """The same, and its gradient. That of a frozen unembedding nobody reads: the compiler drops it."""

    def own_rows(heads, own):
        def step(totals, block):
            def of(unembed, states):
                return _weigh((unembed, *heads[1:]), block[0]._replace(states=states), block[1])

            of_block = jax.value_and_grad(of, argnums=(0, 1), has_aux=True)
            (value, scores), (of_unembed, of_states) = of_block(heads[0], block[0].states)
            return jax.tree.map(jnp.add, totals, (value, of_unembed)), (scores, of_states)

        def zeros(leaf):
            return jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32))  # sums of many blocks

        start = jnp.zeros((), weights.log_probs.dtype), jax.tree.map(zeros, heads[0])
        totals, outputs = jax.lax.scan(step, start, in_blocks(own, size))
        return totals, joined(outputs, own[0].tokens.shape[1])

    (total, of_unembed), (scores, of_states) = on_own_rows(own_rows, heads, (rows, weights))
    of_unembed = jax.tree.map(lambda gradient, leaf: gradient.astype(leaf.dtype), of_unembed, heads[0])
    return (total, scores), (of_unembed, of_states)


def _scaled_gradient(size, gradient, of_outputs):
    of_unembed, of_states = jax.tree.map(lambda leaf: (of_outputs[0] * leaf).astype(leaf.dtype), gradient)
    return (of_unembed, None, None), _Rows(of_states, None, None), None


_weighted_sum.defvjp(_sum_and_gradient, _scaled_gradient)


def following_log_probs(
    read: LastStates, tokens: jax.Array, mask: jax.Array, temperature: jax.Array | float = 1.0
) -> jax.Array:
    """log p(tokens[:, 1:] | what stands before) [B, T - 1], 0 at padding."""
    following = jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)))
    log_probs = score_tokens(read, following, temperature).log_probs[:, :-1]
    return jnp.where(mask[:, 1:] & mask[:, :-1], log_probs, 0.0)
