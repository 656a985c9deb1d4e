"""The shape of a decoder, as a Hugging Face config.json gives it, and the families we compute."""

import dataclasses
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
    head_norms: bool  # RMSNorm of every query and key head
    default_head_dim: int | None  # None: hidden_size / num_attention_heads


FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            model_type="llama",
            architecture="LlamaForCausalLM",
            head_norms=False,
            default_head_dim=None,
        ),
        Family(
            model_type="qwen3",
            architecture="Qwen3ForCausalLM",
            head_norms=True,
            default_head_dim=128,
        ),
    )
}

# Keys of config.json that would change the computation, with the only value that is computed here.
_REQUIRED_VALUES = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_scaling": None,
    "use_sliding_window": False,
}


_NECESSARY = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of a decoder, as its config.json gives it."""

    family: Family
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool
    initializer_range: float

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


def decoder_config_from_hf(config_json: Mapping[str, Any]) -> DecoderConfig:
    """Reads Hugging Face's config.json; missing keys take the defaults of `transformers`.

    Raises UnsupportedModelError that names the key and value that this decoder cannot compute.
    """
    model_type = config_json.get("model_type")
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"model_type {model_type!r} is not supported; known: {', '.join(sorted(FAMILIES))}"
        )
    family = FAMILIES[model_type]
    for name, required in _REQUIRED_VALUES.items():
        if config_json.get(name, required) != required:
            raise UnsupportedModelError(
                f"{model_type}: {name} = {config_json[name]!r} is not supported, only {required!r}"
            )
    if missing := [name for name in _NECESSARY if name not in config_json]:
        raise UnsupportedModelError(f"{model_type}: config.json lacks {', '.join(missing)}")
    num_heads = config_json["num_attention_heads"]
    default_head_dim = family.default_head_dim or config_json["hidden_size"] // num_heads
    return DecoderConfig(
        family=family,
        vocab_size=config_json["vocab_size"],
        hidden_size=config_json["hidden_size"],
        intermediate_size=config_json["intermediate_size"],
        num_layers=config_json["num_hidden_layers"],
        num_heads=num_heads,
        num_kv_heads=config_json.get("num_key_value_heads") or num_heads,
        head_dim=config_json.get("head_dim") or default_head_dim,
        max_position_embeddings=config_json["max_position_embeddings"],
        rope_theta=_rope_theta(config_json),
        rms_norm_eps=float(config_json.get("rms_norm_eps", 1e-6)),
        tie_word_embeddings=config_json.get("tie_word_embeddings", False),
        initializer_range=float(config_json.get("initializer_range", 0.02)),
    )


def _rope_theta(config_json: Mapping[str, Any]) -> float:
    """Before transformers 5 `rope_theta` stood alone; since then it lives in `rope_parameters`."""
    parameters = config_json.get("rope_parameters") or {}
    if parameters.get("rope_type", "default") != "default":
        raise UnsupportedModelError(
            f"{config_json['model_type']}: rope_parameters = {parameters!r} is not supported, "
            "only rope_type 'default'"
        )
    return float(parameters.get("rope_theta", config_json.get("rope_theta", 10000.0)))


def decoder_config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The config.json from which `transformers` (4 and 5) builds the same decoder."""
    return {
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
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "initializer_range": config.initializer_range,
        **_REQUIRED_VALUES,
    }
