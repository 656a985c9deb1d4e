"""One token per row from logits: repetition penalty, temperature, top-k, top-p, min-p (in this order), then a draw.

Axes: B batch, V vocabulary, S stop tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.log_probs import scaled_log_softmax

_INFINITY_BITS = 0x7F800000  # of float32; the bits of numbers >= 0 are ordered as the numbers


class Drawing(NamedTuple):
    """How tokens are drawn, and which [S] end a row; one compiled program serves all values.

    temperature 0: greedy; top_k 0, top_p 1, min_p 0 and repetition_penalty 1: from the whole distribution.
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    stop_token_ids: jax.Array
    min_p: jax.Array = np.float32(0.0)
    repetition_penalty: jax.Array = np.float32(1.0)


def drawing_of(sampling: SamplingSettings, stop_token_ids: Sequence[int]) -> Drawing:
    """As settings say."""
    return Drawing(
        np.float32(sampling.temperature),
        np.int32(sampling.top_k),
        np.float32(sampling.top_p),
        np.array(stop_token_ids, np.int32),
        np.float32(sampling.min_p),
        np.float32(sampling.repetition_penalty),
    )


def penalize(logits: jax.Array, seen: jax.Array, penalty: jax.Array) -> jax.Array:
    """Logits [B, V] of the tokens `seen` [B, V] divided by the penalty, or multiplied below 0 (Keskar et al. 2019,
    CTRL, section 4.1, as `transformers` has it)."""
    return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)


def keep_top_k(log_probs: jax.Array, top_k: jax.Array) -> jax.Array:
    """Log-probs [B, V] of the top_k likeliest tokens alone (Fan et al. 2018), -inf elsewhere.

    Tokens as likely as the last of them are kept too. The threshold is found by bisection over the
    bits of -log p: exact, and top_k need not be known when this is compiled.
    """
    bits = jax.lax.bitcast_convert_type(jnp.abs(log_probs), jnp.int32)

    def halve(bounds):
        low, high, count = bounds  # fewer than top_k tokens up to low, `count` of them up to high
        middle = low + (high - low) // 2
        below = jnp.sum(bits <= middle, axis=-1, keepdims=True)
        enough = below >= top_k
        return (jnp.where(enough, low, middle), jnp.where(enough, middle, high), jnp.where(enough, below, count))

    def is_open(bounds):
        low, high, count = bounds
        return jnp.any((count > top_k) & (high - low > 1))

    low = jnp.full((*bits.shape[:-1], 1), -1, jnp.int32)
    start = low, jnp.full_like(low, _INFINITY_BITS), jnp.full_like(low, bits.shape[-1])
    _, high, _ = jax.lax.while_loop(is_open, halve, start)
    return jax.nn.log_softmax(jnp.where(bits <= high, log_probs, -jnp.inf), axis=-1)


def nucleus_argmax(log_probs: jax.Array, noise: jax.Array, top_p: jax.Array) -> jax.Array:
    """argmax(log p + noise) [B] over the fewest likeliest tokens of mass >= top_p.

    Holtzman et al. 2020, section 3.1; tokens as likely as the last of them belong to them. A token
    belongs to them if those likelier than it have a mass below top_p. So the best of all tokens is
    taken where it does; where not, neither do those that are no likelier, and the best of the rest
    is tried: no sorting, and a pass or two over the vocabulary.
    """
    probs, scores = jnp.exp(log_probs), log_probs + noise

    def judge(tokens):
        chosen = jnp.take_along_axis(probs, tokens[:, None], axis=-1)
        is_likelier = probs > chosen
        mass = jnp.sum(jnp.where(is_likelier, probs, 0.0), axis=-1)
        # The likeliest is never outside, also where top_p is so small that it counts as 0.
        return tokens, (mass > 0) & (mass >= top_p)

    def try_rest(tried):
        tokens, is_outside = tried
        chosen = jnp.take_along_axis(probs, tokens[:, None], axis=-1)
        rest = _argmax(jnp.where(probs > chosen, scores, -jnp.inf))
        return judge(jnp.where(is_outside, rest, tokens))

    first = judge(_argmax(scores))
    return jax.lax.while_loop(lambda tried: jnp.any(tried[1]), try_rest, first)[0]


def draw(
    logits: jax.Array, keys: jax.Array, step: jax.Array, drawing: Drawing, seen: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Tokens [B] and their log-probs before penalty and truncation, from logits [B, V] and keys [B].

    argmax(log p + Gumbel noise) is a draw from p (Gumbel 1954); a row's noise comes from
    fold_in(key, step). seen [B, V]: the tokens that are penalised; None: none.
    """
    log_probs = before = scaled_log_softmax(logits, drawing.temperature)
    if seen is not None:
        log_probs = scaled_log_softmax(penalize(logits, seen, drawing.repetition_penalty), drawing.temperature)

    def sampled():
        kept = jax.lax.cond(drawing.top_k > 0, keep_top_k, lambda values, _: values, log_probs, drawing.top_k)
        shape = logits.shape[-1:]
        noise = jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, step), shape))(keys)
        # A share of the likeliest is the same of what top-k and top-p leave: neither leaves that one out.
        least = jnp.max(kept, axis=-1, keepdims=True) + jnp.log(drawing.min_p)
        noise = jnp.where(kept < least, -jnp.inf, noise)
        return jax.lax.cond(
            drawing.top_p < 1,
            nucleus_argmax,
            lambda values, noise, _: _argmax(values + noise),
            *(kept, noise, drawing.top_p),
        )

    tokens = jax.lax.cond(drawing.temperature > 0, sampled, lambda: _argmax(log_probs))
    return tokens, jnp.take_along_axis(before, tokens[:, None], axis=-1)[:, 0]


def _argmax(values: jax.Array) -> jax.Array:
    """The first best of [B, V] (the last index for a row of NaN), as two reductions.

    XLA on CPU takes two to three times as long for its own, which carries values and indices.
    """
    best = jnp.max(values, axis=-1, keepdims=True)
    indices = jax.lax.broadcasted_iota(jnp.int32, values.shape, 1)
    return jnp.min(jnp.where(values >= best, indices, values.shape[-1] - 1), axis=-1)
