"""Text encoders of all families as a function of a parameter tree.

Layers are stacked and scanned, so that one is compiled instead of all. Axes: B texts, T tokens,
D model width, L layers.
"""

from __future__ import annotations

import functools

import chex
import jax

from eagle_jax.embeddings.sentences.families import EncoderConfig
from eagle_jax.embeddings.sentences.layers import (
    ACTIVATIONS,
    Params,
    attend,
    linear,
    mask_bias,
    norm,
    relative_position_bias,
)


@functools.partial(jax.jit, static_argnames="config")
def encode(config: EncoderConfig, params: Params, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Last hidden states [B, T, D] of tokens [B, T], of which mask [B, T] says which are real.

    Devlin et al. 2019 (BERT): embeddings of token, position and type 0, then post-norm layers.
    Raffel et al. 2020 (T5): embeddings of tokens, a learned bias of the scores by relative
    position, pre-norm layers. Padding is on the right: the first column is a text's first position.
    Outputs at padding mean nothing.
    """
    chex.assert_rank([tokens, mask], 2)
    chex.assert_equal_shape([tokens, mask])
    chex.assert_scalar_in(tokens.shape[1], 1, config.max_tokens)
    family, epsilon = config.family, config.layer_norm_eps
    scale = config.head_dim**-0.5 if family.scales_scores else 1.0
    bias = mask_bias(mask.astype(bool))
    if "relative_bias" in params:
        bias = bias + relative_position_bias(
            params["relative_bias"], tokens.shape[1], config.relative_attention_max_distance
        )

    def attention(own: Params, inputs: jax.Array) -> jax.Array:
        mixed = attend(linear(inputs, own["attention_in"]), config.num_attention_heads, scale, bias)
        return linear(mixed, own["attention_out"])

    def feed_forward(own: Params, inputs: jax.Array) -> jax.Array:
        activation = ACTIVATIONS[config.activation]
        if not config.is_gated:
            return linear(activation(linear(inputs, own["up"])), own["down"])
        gated = activation(linear(inputs, own["gate"])) * linear(inputs, own["up"])
        return linear(gated, own["down"])

    def layer(hidden: jax.Array, own: Params) -> tuple[jax.Array, None]:
        sublayers = {"attention_norm": attention, "feed_forward_norm": feed_forward}
        for name, sublayer in sublayers.items():
            if family.is_pre_norm:
                hidden = hidden + sublayer(own, norm(hidden, own[name], epsilon))
            else:
                hidden = norm(hidden + sublayer(own, hidden), own[name], epsilon)
        return hidden, None

    hidden = params["token_embedding"][tokens]
    if "position_embedding" in params:
        positions = slice(config.first_position, config.first_position + tokens.shape[1])
        hidden = hidden + params["position_embedding"][None, positions]
    if "type_embedding" in params:
        hidden = hidden + params["type_embedding"][None, :1]
    if "embedding_norm" in params:
        hidden = norm(hidden, params["embedding_norm"], epsilon)
    hidden = jax.lax.scan(layer, hidden, params["layers"])[0]
    return norm(hidden, params["final_norm"], epsilon) if "final_norm" in params else hidden
