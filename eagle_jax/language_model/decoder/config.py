"""The shape of a decoder, the families that differ in it, and how it is computed."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings


class UnsupportedModelError(UserError):
    """A config.json asks for something that this decoder does not compute."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """What one `model_type` of Hugging Face does differently.

    block: the feed-forward sees what attention made of its input ("sequential"), or both see the
    same input, each through a norm of its own ("parallel") or through one ("parallel_one_norm").
    """

    model_type: str
    architecture: str
    norm: Literal["rms", "layer"] = "rms"
    block: Literal["sequential", "parallel", "parallel_one_norm"] = "sequential"
    is_gated: bool = True  # down(act(gate) * up), else down(act(up))
    query_key_value_bias: bool = False  # whatever config.json says
    has_all_biases: bool = False  # linear layers have biases, where config.json does not say it
    unembedding_bias: bool = False
    learned_positions: bool = False  # added to the embeddings; no rotary positions
    partly_rotated: bool = False  # rotary positions of a part of a head's coordinates
    fused_heads: bool = False  # query, key and value are one tensor; a head is width / heads wide
    head_norms: bool = False  # RMSNorm of every query and key head
    # Gemma: norms scale by 1 + weight, embeddings by sqrt(hidden_size), heads are tied.
    is_gemma: bool = False
    output_norms: bool = False  # the sublayers' outputs are normed too, before they are added
    # Not in the repr, which stands in the names of models: those of older families stay as they are.
    input_norms: bool = dataclasses.field(default=True, repr=False)  # the sublayers' inputs are normed
    projection_norms: bool = dataclasses.field(default=False, repr=False)  # RMSNorm of all queries, of all keys


FAMILIES = {
    family.model_type: family
    for family in (
        Family(model_type="llama", architecture="LlamaForCausalLM"),
        Family(model_type="mistral", architecture="MistralForCausalLM"),
        Family(model_type="qwen2", architecture="Qwen2ForCausalLM", query_key_value_bias=True),
        Family(model_type="qwen3", architecture="Qwen3ForCausalLM", head_norms=True),
        Family(model_type="smollm3", architecture="SmolLM3ForCausalLM"),
        Family(model_type="granite", architecture="GraniteForCausalLM"),
        Family(
            model_type="olmo2",
            architecture="Olmo2ForCausalLM",
            input_norms=False,
            output_norms=True,
            projection_norms=True,
        ),
        Family(model_type="phi3", architecture="Phi3ForCausalLM", partly_rotated=True),
        Family(model_type="gemma", architecture="GemmaForCausalLM", is_gemma=True),
        Family(model_type="gemma2", architecture="Gemma2ForCausalLM", is_gemma=True, output_norms=True),
        Family(
            model_type="gemma3_text",
            architecture="Gemma3ForCausalLM",
            head_norms=True,
            is_gemma=True,
            output_norms=True,
        ),
        Family(
            model_type="gpt2",
            architecture="GPT2LMHeadModel",
            norm="layer",
            is_gated=False,
            has_all_biases=True,
            learned_positions=True,
            fused_heads=True,
        ),
        Family(
            model_type="gpt_neox",
            architecture="GPTNeoXForCausalLM",
            fused_heads=True,
            partly_rotated=True,
            norm="layer",
            block="parallel",
            is_gated=False,
            has_all_biases=True,
        ),
        Family(
            model_type="phi",
            architecture="PhiForCausalLM",
            partly_rotated=True,
            unembedding_bias=True,
            norm="layer",
            block="parallel_one_norm",
            is_gated=False,
            has_all_biases=True,
        ),
    )
}
ACTIVATIONS = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions: frequencies theta^(-2i / d), scaled as `rope_type` says.

    default: as they are; linear: divided by `factor`; llama3: long wavelengths divided by `factor`,
    short ones kept, those between interpolated (Llama 3.1).
    """

    theta: float
    rope_type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_position_embeddings: int = 0


@settings
class LoRA:
    """Low-rank updates x @ down @ up * alpha / rank of linear layers (Hu et al. 2021)."""

    rank: int = setting("Columns of down, rows of up.", at_least=1)
    alpha: float = setting("The update's scale is alpha / rank.", above=0)
    targets: str = setting("A regular expression found in the path of a linear layer: layers/0/attention/query.")

    def __post_init__(self):
        try:
            re.compile(self.targets)
        except re.error as error:
            raise ValueError(f"LoRA targets {self.targets!r} is no pattern: {error}") from error

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of a decoder, as its config.json gives it, and how it is computed.

    lora: which linear layers have low-rank updates; None: none.
    remat: layers are computed again in the backward pass instead of kept, on a CPU in a loop as with scan_layers.
    unrotated_layers: numbers of the layers without rotary positions (SmolLM3).
    embedding_multiplier, residual_multiplier, logit_divisor: of the embeddings, of what a sublayer adds, and of the
        logits (Granite).
    scan_layers: one compiled layer for all of them (stacked inside the program, which takes a copy
        of their parameters), for training deep models; decoding with a cache is always unrolled.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    block: str
    rotary_dim: int  # of head_dim, from the first on; 0: no rotary positions
    rope: Rope
    local_rope: Rope  # of the layers with a window
    layer_windows: tuple[int | None, ...]  # tokens that each layer looks back on; None: all
    norm_eps: float
    attention_scale: float
    attention_softcap: float | None
    logit_softcap: float | None
    activation: str
    query_key_value_bias: bool
    output_bias: bool
    feed_forward_bias: bool
    tie_word_embeddings: bool
    initializer_range: float
    lora: LoRA | None = None
    remat: bool = False
    scan_layers: bool = False
    # Not in the repr either: `identity` adds those that are not the default.
    unrotated_layers: tuple[int, ...] = dataclasses.field(default=(), repr=False)
    embedding_multiplier: float = dataclasses.field(default=1.0, repr=False)
    residual_multiplier: float = dataclasses.field(default=1.0, repr=False)
    logit_divisor: float = dataclasses.field(default=1.0, repr=False)

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise UnsupportedModelError(
                f"num_attention_heads {self.num_heads} is not a multiple of num_key_value_heads {self.num_kv_heads}"
            )
        if self.rotary_dim % 2:
            raise UnsupportedModelError(f"rotary positions need an even number of coordinates, got {self.rotary_dim}")
        if self.activation not in ACTIVATIONS:
            raise UnsupportedModelError(
                f"{self.family.model_type}: hidden_act {self.activation!r} is not supported, only "
                f"{', '.join(ACTIVATIONS)}"
            )
