"""BERT and its kin (RoBERTa, XLM-R, MPNet) as functions of a parameter tree.

Layers are stacked and scanned, so that one is compiled instead of all; `config` is static and
hashable. Axes: B texts, T tokens, D model width, L layers.
"""

from __future__ import annotations

import dataclasses
import functools
import re
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
from eagle_jax.embeddings.sentences.layers import ACTIVATIONS, Params, layer_norm, linear

_RELATIVE_MAX_DISTANCE = 128  # MPNet's; its config.json does not say it


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Family:
    """What one `model_type` of Hugging Face does differently."""

    counts_from_padding: bool  # positions begin behind the padding token's id
    has_token_types: bool
    has_relative_bias: bool
    query_key_value: tuple[str, str, str]
    attention_output: str
    attention_norm: str


_BERT = _Family(
    counts_from_padding=False,
    has_token_types=True,
    has_relative_bias=False,
    query_key_value=("attention.self.query", "attention.self.key", "attention.self.value"),
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
)
_ROBERTA = dataclasses.replace(_BERT, counts_from_padding=True)
_MPNET = _Family(
    counts_from_padding=True,
    has_token_types=False,
    has_relative_bias=True,
    query_key_value=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    attention_output="attention.attn.o",
    attention_norm="attention.LayerNorm",
)
_FAMILIES = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": _MPNET,
}
MODEL_TYPES = tuple(_FAMILIES)

_NECESSARY = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
_REQUIRED_VALUES = {"position_embedding_type": "absolute", "is_decoder": False}
_NAMING = Naming(
    prefixes=("", "bert.", "roberta.", "mpnet."),
    probe="embeddings.word_embeddings.weight",
    synonyms={},
    ignored=re.compile(r"embeddings\.(position|token_type)_ids|(pooler|cls|lm_head)\..*"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Shape of an encoder, as its config.json gives it."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    max_position_embeddings: int
    first_position: int  # of the first token of a text
    num_token_types: int
    num_relative_buckets: int
    activation: str
    layer_norm_eps: float

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest text that has positions."""
        return self.max_position_embeddings - self.first_position


def config_from_hf(config_json: Mapping[str, Any]) -> BertConfig:
    """Reads Hugging Face's config.json; missing keys take the defaults of `transformers`.

    Raises UnsupportedEncoderError that names the key and the value.
    """
    model_type = config_json["model_type"]
    family = _FAMILIES[model_type]
    if missing := [name for name in _NECESSARY if name not in config_json]:
        raise UnsupportedEncoderError(f"{model_type}: config.json lacks {', '.join(missing)}")
    for name, required in _REQUIRED_VALUES.items():
        if config_json.get(name, required) != required:
            raise UnsupportedEncoderError(
                f"{model_type}: {name} = {config_json[name]!r} is not supported, only {required!r}"
            )
    activation = config_json.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise UnsupportedEncoderError(
            f"{model_type}: hidden_act = {activation!r} is not supported; "
            f"known: {', '.join(ACTIVATIONS)}"
        )
    padding = 1 if model_type == "mpnet" else config_json.get("pad_token_id", 1)
    return BertConfig(
        model_type=model_type,
        vocab_size=config_json["vocab_size"],
        hidden_size=config_json["hidden_size"],
        intermediate_size=config_json["intermediate_size"],
        num_layers=config_json["num_hidden_layers"],
        num_heads=config_json["num_attention_heads"],
        max_position_embeddings=config_json["max_position_embeddings"],
        first_position=padding + 1 if family.counts_from_padding else 0,
        num_token_types=config_json.get("type_vocab_size", 2),
        num_relative_buckets=config_json.get("relative_attention_num_buckets", 32),
        activation=activation,
        layer_norm_eps=float(config_json.get("layer_norm_eps", 1e-12)),
    )


def load_params(folder: Path, config: BertConfig, dtype: str) -> Params:
    """Reads the folder's safetensors; raises CheckpointError naming file and tensor."""
    return read_params(folder, _layout(config), config.num_layers, _NAMING, dtype)


def _layout(config: BertConfig) -> dict[str, Stored]:
    width, family = config.hidden_size, _FAMILIES[config.model_type]
    layout = {
        "token_embedding": Stored(
            ("embeddings.word_embeddings.weight",), (config.vocab_size, width)
        ),
        "position_embedding": Stored(
            ("embeddings.position_embeddings.weight",), (config.max_position_embeddings, width)
        ),
        **_norm("embedding_norm", "embeddings.LayerNorm", width),
    }
    if family.has_token_types:
        layout["type_embedding"] = Stored(
            ("embeddings.token_type_embeddings.weight",), (config.num_token_types, width)
        )
    if family.has_relative_bias:
        layout["relative_bias"] = Stored(
            ("encoder.relative_attention_bias.weight",),
            (config.num_relative_buckets, config.num_heads),
        )
    in_layer = "encoder.layer.{layer}."
    projections = tuple(in_layer + name for name in family.query_key_value)
    wide = config.intermediate_size
    return layout | {
        **_linear("layers/attention_in", projections, width, width),
        **_linear("layers/attention_out", (in_layer + family.attention_output,), width, width),
        **_norm("layers/attention_norm", in_layer + family.attention_norm, width),
        **_linear("layers/up", (in_layer + "intermediate.dense",), width, wide),
        **_linear("layers/down", (in_layer + "output.dense",), wide, width),
        **_norm("layers/feed_forward_norm", in_layer + "output.LayerNorm", width),
    }


def _linear(path: str, names: tuple[str, ...], inputs: int, outputs: int) -> dict[str, Stored]:
    weights = [f"{name}.weight" for name in names]
    biases = tuple(f"{name}.bias" for name in names)
    return {
        f"{path}/kernel": kernel(*weights, inputs=inputs, outputs=outputs),
        f"{path}/bias": Stored(biases, (outputs,)),
    }


def _norm(path: str, name: str, width: int) -> dict[str, Stored]:
    return {
        f"{path}/scale": Stored((f"{name}.weight",), (width,)),
        f"{path}/bias": Stored((f"{name}.bias",), (width,)),
    }


@functools.partial(jax.jit, static_argnames="config")
def encode(config: BertConfig, params: Params, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Last hidden states [B, T, D] of tokens [B, T], of which mask [B, T] says which are real.

    Devlin et al. 2019: embeddings of token, position and type 0, then post-norm layers. Padding is
    on the right: the first column is a text's first position. Outputs at padding mean nothing.
    """
    chex.assert_rank([tokens, mask], 2)
    chex.assert_equal_shape([tokens, mask])
    length, epsilon = tokens.shape[1], config.layer_norm_eps
    chex.assert_scalar_in(length, 1, config.max_tokens)
    bias = mask_bias(mask.astype(bool))
    if "relative_bias" in params:
        bias = bias + relative_position_bias(
            params["relative_bias"], length, _RELATIVE_MAX_DISTANCE
        )
    first = config.first_position
    hidden = params["token_embedding"][tokens]
    hidden = hidden + params["position_embedding"][None, first : first + length]
    if "type_embedding" in params:
        hidden = hidden + params["type_embedding"][None, :1]
    hidden = layer_norm(hidden, params["embedding_norm"], epsilon)

    def layer(hidden: jax.Array, own: Params) -> tuple[jax.Array, None]:
        scale = (config.hidden_size // config.num_heads) ** -0.5
        mixed = attend(linear(hidden, own["attention_in"]), config.num_heads, scale, bias)
        mixed = linear(mixed, own["attention_out"])
        hidden = layer_norm(hidden + mixed, own["attention_norm"], epsilon)
        wide = ACTIVATIONS[config.activation](linear(hidden, own["up"]))
        narrow = linear(wide, own["down"])
        return layer_norm(hidden + narrow, own["feed_forward_norm"], epsilon), None

    return jax.lax.scan(layer, hidden, params["layers"])[0]
