"""The shape of a decoder, as a Hugging Face config.json gives it, and the families we compute."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from eagle_jax.base.errors import UserError


class UnsupportedModelError(UserError):
    """A config.json asks for something that this decoder does not compute."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """What one `model_type` of Hugging Face does differently, and its defaults."""

    model_type: str
    architecture: str
    default_head_dim: int | None = None  # None: hidden_size / num_attention_heads
    query_key_value_bias: bool = False  # where config.json has no attention_bias
    head_norms: bool = False  # RMSNorm of every query and key head
    # Gemma: norms scale by 1 + weight, embeddings by sqrt(hidden_size), heads are tied.
    is_gemma: bool = False
    output_norms: bool = False  # the sublayers' outputs are normed too, before they are added
    local_every: int | None = None  # layers with a window: all but every n-th


FAMILIES = {
    family.model_type: family
    for family in (
        Family(model_type="llama", architecture="LlamaForCausalLM"),
        Family(model_type="mistral", architecture="MistralForCausalLM"),
        Family(model_type="qwen2", architecture="Qwen2ForCausalLM", query_key_value_bias=True),
        Family(
            model_type="qwen3",
            architecture="Qwen3ForCausalLM",
            default_head_dim=128,
            head_norms=True,
        ),
        Family(
            model_type="gemma",
            architecture="GemmaForCausalLM",
            default_head_dim=256,
            is_gemma=True,
        ),
        Family(
            model_type="gemma2",
            architecture="Gemma2ForCausalLM",
            default_head_dim=256,
            is_gemma=True,
            output_norms=True,
            local_every=2,
        ),
        Family(
            model_type="gemma3_text",
            architecture="Gemma3ForCausalLM",
            default_head_dim=256,
            head_norms=True,
            is_gemma=True,
            output_norms=True,
            local_every=6,
        ),
    )
}
# What config.json of a multimodal Gemma 3 leaves to the defaults of `transformers`.
_GEMMA3_TEXT = {
    "model_type": "gemma3_text",
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
}
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh")
_NECESSARY = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
_ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank updates x @ down @ up * alpha / rank of linear layers (Hu et al. 2021).

    `targets` is a regular expression found in the path of a linear layer, such as
    "layers/0/attention/query".
    """

    rank: int
    alpha: float
    targets: str

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"LoRA rank must be at least 1, got {self.rank}")
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
    remat: layers are computed again in the backward pass instead of kept.
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
    rope: Rope
    local_rope: Rope  # of the layers with a window
    layer_windows: tuple[int | None, ...]  # tokens that each layer looks back on; None: all
    rms_norm_eps: float
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

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise UnsupportedModelError(
                f"num_attention_heads {self.num_heads} is not a multiple of "
                f"num_key_value_heads {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise UnsupportedModelError(
                f"head_dim must be even for rotary positions, got {self.head_dim}"
            )
        if self.activation not in ACTIVATIONS:
            raise UnsupportedModelError(
                f"{self.family.model_type}: hidden_act {self.activation!r} is not supported, only "
                f"{', '.join(ACTIVATIONS)}"
            )


def decoder_config_from_hf(config_json: Mapping[str, Any]) -> DecoderConfig:
    """Reads Hugging Face's config.json; missing keys take the defaults of `transformers`.

    Raises UnsupportedModelError that names the key and value that this decoder cannot compute.
    """
    if config_json.get("model_type") == "gemma3" and "text_config" in config_json:
        config_json = _GEMMA3_TEXT | dict(config_json["text_config"])
    model_type = config_json.get("model_type")
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"model_type {model_type!r} is not supported; known: {', '.join(sorted(FAMILIES))}"
        )
    family = FAMILIES[model_type]
    if config_json.get("use_bidirectional_attention"):
        raise UnsupportedModelError(f"{model_type}: use_bidirectional_attention is not supported")
    if missing := [name for name in _NECESSARY if name not in config_json]:
        raise UnsupportedModelError(f"{model_type}: config.json lacks {', '.join(missing)}")
    get, num_heads = config_json.get, config_json["num_attention_heads"]
    default_head_dim = family.default_head_dim or config_json["hidden_size"] // num_heads
    head_dim = get("head_dim") or default_head_dim
    rope, local_rope = _ropes(family, config_json)
    return DecoderConfig(
        family=family,
        vocab_size=config_json["vocab_size"],
        hidden_size=config_json["hidden_size"],
        intermediate_size=config_json["intermediate_size"],
        num_layers=config_json["num_hidden_layers"],
        num_heads=num_heads,
        num_kv_heads=get("num_key_value_heads") or num_heads,
        head_dim=head_dim,
        max_position_embeddings=config_json["max_position_embeddings"],
        rope=rope,
        local_rope=local_rope,
        layer_windows=_layer_windows(family, config_json),
        rms_norm_eps=float(get("rms_norm_eps", 1e-6)),
        attention_scale=_attention_scale(family, config_json, head_dim),
        attention_softcap=get("attn_logit_softcapping", 50.0 if model_type == "gemma2" else None),
        logit_softcap=get("final_logit_softcapping", 30.0 if model_type == "gemma2" else None),
        activation=get("hidden_activation")
        or get("hidden_act", "gelu_pytorch_tanh" if family.is_gemma else "silu"),
        query_key_value_bias=family.query_key_value_bias or bool(get("attention_bias")),
        output_bias=not family.query_key_value_bias and bool(get("attention_bias")),
        feed_forward_bias=bool(get("mlp_bias", False)),
        tie_word_embeddings=get("tie_word_embeddings", family.is_gemma),
        initializer_range=float(get("initializer_range", 0.02)),
    )


def _attention_scale(family: Family, config_json: Mapping[str, Any], head_dim: int) -> float:
    """1 / sqrt(head width), or what Gemma 2 and 3 put in its place."""
    divisor = config_json.get("query_pre_attn_scalar", 256) if family.output_norms else head_dim
    return float(divisor) ** -0.5


def _ropes(family: Family, config_json: Mapping[str, Any]) -> tuple[Rope, Rope]:
    """Rotary positions of the layers that see all, and of those with a window.

    Before transformers 5 `rope_theta`, `rope_scaling` and `rope_local_base_freq` stood alone; since
    then all is in `rope_parameters`, for Gemma 3 by type of layer.
    """
    parameters = config_json.get("rope_parameters") or {}
    is_gemma3 = family.model_type == "gemma3_text"
    theta = config_json.get("rope_theta", 1e6 if is_gemma3 else 1e4)
    old = {"rope_theta": theta} | (config_json.get("rope_scaling") or {})
    if not is_gemma3:
        rope = _rope(family, old | parameters)
        return rope, rope
    local = {"rope_theta": config_json.get("rope_local_base_freq", 1e4)}
    return (
        _rope(family, old | (parameters.get("full_attention") or {})),
        _rope(family, local | (parameters.get("sliding_attention") or {})),
    )


def _rope(family: Family, parameters: Mapping[str, Any]) -> Rope:
    rope_type = parameters.get("rope_type", parameters.get("type", "default"))
    keys = _ROPE_KEYS.get(rope_type)
    if keys is None or parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedModelError(
            f"{family.model_type}: rotary positions {dict(parameters)!r} are not supported, only "
            "rope_type default, linear and llama3, of whole heads"
        )
    if missing := [key for key in keys if parameters.get(key) is None]:
        raise UnsupportedModelError(
            f"{family.model_type}: rope_type {rope_type} lacks {', '.join(missing)}"
        )
    given = {key: parameters[key] for key in keys}
    return Rope(theta=float(parameters["rope_theta"]), rope_type=rope_type, **given)


def _layer_windows(family: Family, config_json: Mapping[str, Any]) -> tuple[int | None, ...]:
    """How far each layer looks back, from `layer_types` or from what stood there before."""
    num_layers = config_json["num_hidden_layers"]
    default = {"mistral": 4096, "gemma2": 4096, "gemma3_text": 4096}.get(family.model_type)
    window = config_json.get("sliding_window", default)
    if family.model_type in ("qwen2", "qwen3") and not config_json.get("use_sliding_window"):
        window = None
    if family.model_type in ("llama", "gemma") or window is None:
        return (None,) * num_layers
    types = config_json.get("layer_types")
    if types is not None and len(types) != num_layers:
        raise UnsupportedModelError(f"{len(types)} layer_types for {num_layers} layers")
    if types is not None and family.model_type != "mistral":
        is_local = [kind == "sliding_attention" for kind in types]
    elif family.local_every is not None:
        every = config_json.get("sliding_window_pattern") or family.local_every
        is_local = [(layer + 1) % every != 0 for layer in range(num_layers)]
    else:  # Mistral: all; Qwen: those behind the first max_window_layers
        first = config_json.get("max_window_layers", 28) if family.model_type != "mistral" else 0
        is_local = [layer >= first for layer in range(num_layers)]
    return tuple(window if local else None for local in is_local)


def decoder_config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The config.json from which `transformers` (4 and 5) builds the same decoder."""
    windows = [window for window in config.layer_windows if window is not None]
    config_json = {
        "architectures": [config.family.architecture],
        "model_type": config.family.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope.theta,
        "rope_scaling": _rope_scaling(config.rope),
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "initializer_range": config.initializer_range,
        "hidden_act": config.activation,
        "attention_bias": config.query_key_value_bias,
        "mlp_bias": config.feed_forward_bias,
        "use_sliding_window": bool(windows),
        "sliding_window": windows[0] if windows else None,
        "layer_types": [
            "full_attention" if window is None else "sliding_attention"
            for window in config.layer_windows
        ],
    }
    if config.family.is_gemma:
        config_json |= {
            "hidden_activation": config.activation,
            "query_pre_attn_scalar": round(config.attention_scale**-2),
            "attn_logit_softcapping": config.attention_softcap,
            "final_logit_softcapping": config.logit_softcap,
            "rope_local_base_freq": config.local_rope.theta,
        }
    return config_json


def _rope_scaling(rope: Rope) -> dict[str, Any] | None:
    if rope.rope_type == "default":
        return None
    return {"rope_type": rope.rope_type} | {
        key: getattr(rope, key) for key in _ROPE_KEYS[rope.rope_type]
    }
