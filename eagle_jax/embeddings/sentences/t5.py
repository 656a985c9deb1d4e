"""T5's encoder (Sentence-T5, GTR) as functions of a parameter tree.

Layers are stacked and scanned, so that one is compiled instead of all; `config` is static and
hashable. Axes: B texts, T tokens, D model width, L layers.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import chex
import jax

from eagle_jax.embeddings.sentences.attention import attend, mask_bias, relative_position_bias
from eagle_jax.embeddings.sentences.checkpoints import (
    Naming,
    Stored,
    UnsupportedEncoderError,
    kernel,
    read_params,
)
from eagle_jax.embeddings.sentences.layers import ACTIVATIONS, Params, linear, rms_norm

MODEL_TYPES = ("t5", "mt5")
_NECESSARY = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
# feed_forward_proj -> its activation, and whether it is gated; "gelu" there means the tanh form
_FEED_FORWARDS = {"relu": ("relu", False), "gated-gelu": ("gelu_new", True)}
_NAMING = Naming(
    prefixes=("encoder.", ""),
    probe="final_layer_norm.weight",
    synonyms={"shared.weight": "embed_tokens.weight"},
    ignored=re.compile(r"decoder\..*|lm_head\.weight"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
    """Shape of an encoder, as its config.json gives it."""

    model_type: str
    vocab_size: int
    hidden_size: int
    head_dim: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_relative_buckets: int
    relative_max_distance: int
    activation: str
    is_gated: bool
    layer_norm_eps: float

    @property
    def max_tokens(self) -> int:
        """Relative positions set no limit."""
        return sys.maxsize


def config_from_hf(config_json: Mapping[str, Any]) -> T5Config:
    """Reads Hugging Face's config.json; missing keys take the defaults of `transformers`.

    Raises UnsupportedEncoderError that names the key and the value.
    """
    model_type = config_json["model_type"]
    if missing := [name for name in _NECESSARY if name not in config_json]:
        raise UnsupportedEncoderError(f"{model_type}: config.json lacks {', '.join(missing)}")
    default = "gated-gelu" if model_type == "mt5" else "relu"
    feed_forward = config_json.get("feed_forward_proj", default)
    if feed_forward not in _FEED_FORWARDS:
        raise UnsupportedEncoderError(
            f"{model_type}: feed_forward_proj = {feed_forward!r} is not supported; "
            f"known: {', '.join(_FEED_FORWARDS)}"
        )
    activation, is_gated = _FEED_FORWARDS[feed_forward]
    return T5Config(
        model_type=model_type,
        vocab_size=config_json["vocab_size"],
        hidden_size=config_json["d_model"],
        head_dim=config_json["d_kv"],
        intermediate_size=config_json["d_ff"],
        num_layers=config_json["num_layers"],
        num_heads=config_json["num_heads"],
        num_relative_buckets=config_json.get("relative_attention_num_buckets", 32),
        relative_max_distance=config_json.get("relative_attention_max_distance", 128),
        activation=activation,
        is_gated=is_gated,
        layer_norm_eps=float(config_json.get("layer_norm_epsilon", 1e-6)),
    )


def load_params(folder: Path, config: T5Config, dtype: str) -> Params:
    """Reads the folder's safetensors; raises CheckpointError naming file and tensor."""
    return read_params(folder, _layout(config), config.num_layers, _NAMING, dtype)


def _layout(config: T5Config) -> dict[str, Stored]:
    width, heads = config.hidden_size, config.num_heads * config.head_dim
    wide = config.intermediate_size
    attention = "block.{layer}.layer.0."
    feed_forward = "block.{layer}.layer.1."
    ups = ("wi_0", "wi_1") if config.is_gated else ("wi",)
    projections = [f"{attention}SelfAttention.{name}.weight" for name in "qkv"]
    return {
        "token_embedding": Stored(("embed_tokens.weight",), (config.vocab_size, width)),
        # One table for all layers, kept in the first.
        "relative_bias": Stored(
            ("block.0.layer.0.SelfAttention.relative_attention_bias.weight",),
            (config.num_relative_buckets, config.num_heads),
        ),
        "final_norm/scale": Stored(("final_layer_norm.weight",), (width,)),
        "layers/attention_norm/scale": Stored((attention + "layer_norm.weight",), (width,)),
        "layers/attention_in/kernel": kernel(*projections, inputs=width, outputs=heads),
        "layers/attention_out/kernel": kernel(
            attention + "SelfAttention.o.weight", inputs=heads, outputs=width
        ),
        "layers/feed_forward_norm/scale": Stored((feed_forward + "layer_norm.weight",), (width,)),
        **{
            f"layers/{name}/kernel": kernel(
                f"{feed_forward}DenseReluDense.{name}.weight", inputs=width, outputs=wide
            )
            for name in ups
        },
        "layers/wo/kernel": kernel(
            feed_forward + "DenseReluDense.wo.weight", inputs=wide, outputs=width
        ),
    }


@functools.partial(jax.jit, static_argnames="config")
def encode(config: T5Config, params: Params, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Last hidden states [B, T, D] of tokens [B, T], of which mask [B, T] says which are real.

    Raffel et al. 2020: pre-norm layers without biases, scores that are not scaled, a learned bias
    by relative position. Outputs at padding mean nothing.
    """
    chex.assert_rank([tokens, mask], 2)
    chex.assert_equal_shape([tokens, mask])
    epsilon, activation = config.layer_norm_eps, ACTIVATIONS[config.activation]
    bias = mask_bias(mask.astype(bool)) + relative_position_bias(
        params["relative_bias"], tokens.shape[1], config.relative_max_distance
    )

    def layer(hidden: jax.Array, own: Params) -> tuple[jax.Array, None]:
        normed = rms_norm(hidden, own["attention_norm"], epsilon)
        mixed = attend(linear(normed, own["attention_in"]), config.num_heads, 1.0, bias)
        hidden = hidden + linear(mixed, own["attention_out"])
        normed = rms_norm(hidden, own["feed_forward_norm"], epsilon)
        if config.is_gated:
            wide = activation(linear(normed, own["wi_0"])) * linear(normed, own["wi_1"])
        else:
            wide = activation(linear(normed, own["wi"]))
        return hidden + linear(wide, own["wo"]), None

    hidden = jax.lax.scan(layer, params["token_embedding"][tokens], params["layers"])[0]
    return rms_norm(hidden, params["final_norm"], epsilon)
