"""Text encoders of Hugging Face: what each family does differently, as data."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

from eagle_jax.base.tensor_files import CheckpointError
from eagle_jax.embeddings.sentences.config_file import ConfigFile
from eagle_jax.embeddings.sentences.layers import ACTIVATIONS


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EncoderFamily:
    """A kind of encoder: its arithmetic, its config.json, its tensors."""

    is_pre_norm: bool = False  # norms stand before sublayers and at the end, not behind each sum
    has_biases: bool = True  # of linear layers, and of norms, which else are RMS norms
    scales_scores: bool = True  # by 1 / sqrt(head width)
    first_position: int | None = 0  # of a text; None: behind the padding token's id

    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)  # that have another name
    head_dim: str | None = None  # its key; None: the width is divided among the heads
    layer_norm_eps: float = 1e-12  # where config.json does not say it
    feed_forward: tuple[str, str] = ("hidden_act", "gelu")  # key and default of what follows:
    feed_forwards: Mapping[str, tuple[str, bool]]  # value -> activation, and whether it is gated

    prefixes: tuple[str, ...]  # what may stand before all names
    layers: str  # what stands before the names of a layer
    names: Mapping[str, tuple[str, ...]]  # our module -> its tensors, side by side along outputs
    gated_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    synonyms: Mapping[str, str] = dataclasses.field(default_factory=dict)  # for one of `names`
    ignored: str  # what is no part of the encoder


_BERT = EncoderFamily(
    feed_forwards={name: (name, False) for name in ACTIVATIONS},
    prefixes=("", "bert.", "roberta.", "mpnet."),
    layers="encoder.layer.{layer}.",
    names={
        "token_embedding": ("embeddings.word_embeddings",),
        "position_embedding": ("embeddings.position_embeddings",),
        "type_embedding": ("embeddings.token_type_embeddings",),
        "embedding_norm": ("embeddings.LayerNorm",),
        "layers/attention_in": tuple(f"attention.self.{n}" for n in ("query", "key", "value")),
        "layers/attention_out": ("attention.output.dense",),
        "layers/attention_norm": ("attention.output.LayerNorm",),
        "layers/up": ("intermediate.dense",),
        "layers/down": ("output.dense",),
        "layers/feed_forward_norm": ("output.LayerNorm",),
    },
    ignored=r"embeddings\.(position|token_type)_ids|(pooler|cls|lm_head)\..*",
)
_ROBERTA = dataclasses.replace(_BERT, first_position=None)
_MPNET = dataclasses.replace(
    _BERT,
    first_position=2,
    names={name: own for name, own in _BERT.names.items() if name != "type_embedding"}
    | {
        "relative_bias": ("encoder.relative_attention_bias",),
        "layers/attention_in": tuple(f"attention.attn.{n}" for n in "qkv"),
        "layers/attention_out": ("attention.attn.o",),
        "layers/attention_norm": ("attention.LayerNorm",),
    },
)
_T5 = EncoderFamily(
    is_pre_norm=True,
    has_biases=False,
    scales_scores=False,
    keys={
        "hidden_size": "d_model",
        "intermediate_size": "d_ff",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "layer_norm_eps": "layer_norm_epsilon",
    },
    head_dim="d_kv",
    layer_norm_eps=1e-6,
    feed_forward=("feed_forward_proj", "relu"),
    # "gelu" means the tanh form there.
    feed_forwards={"relu": ("relu", False), "gated-gelu": ("gelu_new", True)},
    prefixes=("encoder.", ""),
    layers="block.{layer}.",
    names={
        "token_embedding": ("embed_tokens",),
        # One table for all layers, kept in the first.
        "relative_bias": ("block.0.layer.0.SelfAttention.relative_attention_bias",),
        "final_norm": ("final_layer_norm",),
        "layers/attention_norm": ("layer.0.layer_norm",),
        "layers/attention_in": tuple(f"layer.0.SelfAttention.{n}" for n in "qkv"),
        "layers/attention_out": ("layer.0.SelfAttention.o",),
        "layers/feed_forward_norm": ("layer.1.layer_norm",),
        "layers/up": ("layer.1.DenseReluDense.wi",),
        "layers/down": ("layer.1.DenseReluDense.wo",),
    },
    gated_names={"layers/gate": ("layer.1.DenseReluDense.wi_0",), "layers/up": ("layer.1.DenseReluDense.wi_1",)},
    synonyms={"shared.weight": "embed_tokens.weight"},
    ignored=r"decoder\..*|lm_head\.weight",
)
ENCODER_FAMILIES = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": _MPNET,
    "t5": _T5,
    "mt5": dataclasses.replace(_T5, feed_forward=("feed_forward_proj", "gated-gelu")),
}
_NECESSARY = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_NUMBERS = dict.fromkeys(_NECESSARY) | {  # key -> the default of `transformers`
    "type_vocab_size": 2,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,  # MPNet's always
}
_REQUIRED = {"position_embedding_type": "absolute", "is_decoder": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of an encoder, as its config.json gives it, mostly under its names; hashable."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    type_vocab_size: int
    relative_attention_num_buckets: int
    relative_attention_max_distance: int
    head_dim: int
    first_position: int  # of the first token of a text
    max_tokens: int  # of the longest text that has positions
    activation: str
    is_gated: bool
    layer_norm_eps: float

    @property
    def family(self) -> EncoderFamily:
        """What its kind does differently."""
        return ENCODER_FAMILIES[self.model_type]


def read_config(path: Path) -> EncoderConfig:
    """Reads Hugging Face's config.json; missing keys take the defaults of `transformers`.

    Raises UnsupportedEncoderError or CheckpointError that name file, key and value.
    """
    file = ConfigFile(path)
    model_type = file.choose("model_type", ENCODER_FAMILIES)
    family = ENCODER_FAMILIES[model_type]
    for key, required in _REQUIRED.items():
        file.choose(key, (required,), required)
    numbers = {name: file.read(family.keys.get(name, name), int, default) for name, default in _NUMBERS.items()}
    buckets = numbers["relative_attention_num_buckets"]
    distance = numbers["relative_attention_max_distance"]
    if not 4 <= buckets < 4 * distance:  # a quarter of the buckets are for single distances
        raise CheckpointError(
            f"{path}: relative_attention_num_buckets = {buckets} must be from 4 to "
            f"{4 * distance - 1} with a relative_attention_max_distance of {distance}"
        )
    key, default = family.feed_forward
    activation, is_gated = family.feed_forwards[file.choose(key, family.feed_forwards, default)]
    first, max_tokens = family.first_position, sys.maxsize  # relative positions set no limit
    if first is None:
        first = file.read("pad_token_id", int, 1, least=0) + 1
    if "position_embedding" in family.names:
        max_tokens = file.read("max_position_embeddings", int, least=first + 1) - first
    width, heads = numbers["hidden_size"], numbers["num_attention_heads"]
    head_dim = file.read(family.head_dim, int) if family.head_dim else width // heads
    if not family.head_dim and width % heads:
        raise CheckpointError(f"{path}: {heads} heads do not divide a hidden_size of {width}")
    eps_key = family.keys.get("layer_norm_eps", "layer_norm_eps")
    return EncoderConfig(
        model_type=model_type,
        **numbers,
        head_dim=head_dim,
        first_position=first,
        max_tokens=max_tokens,
        activation=activation,
        is_gated=is_gated,
        layer_norm_eps=float(file.read(eps_key, float, family.layer_norm_eps, least=0)),
    )
