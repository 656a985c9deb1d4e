"""Hugging Face's config.json, read into a DecoderConfig and written from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eagle_jax.language_model.decoder.config import (
    FAMILIES,
    DecoderConfig,
    Family,
    Rope,
    UnsupportedModelError,
)

# What config.json of a multimodal Gemma 3 leaves to the defaults of `transformers`.
_GEMMA3_TEXT = {
    "model_type": "gemma3_text",
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
}
# What our keys are called in the config.json of older families.
_OLD_KEYS = {
    "gpt2": {
        "hidden_size": "n_embd",
        "intermediate_size": "n_inner",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "layer_norm_eps": "layer_norm_epsilon",
        "hidden_act": "activation_function",
    },
    "gpt_neox": {"partial_rotary_factor": "rotary_pct", "rope_theta": "rotary_emb_base"},
}
# Keys that would change the computation, with the only value that is computed here.
_REQUIRED = {
    "use_bidirectional_attention": False,
    "qk_layernorm": False,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
_EPSILONS = {"rms": ("rms_norm_eps", 1e-6), "layer": ("layer_norm_eps", 1e-5)}
_WITH_WINDOWS = ("mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")
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


def decoder_config_from_hf(config_json: Mapping[str, Any]) -> DecoderConfig:
    """Reads Hugging Face's config.json; missing keys take the defaults of `transformers`.

    Raises UnsupportedModelError that names the key and value that this decoder cannot compute.
    """
    if config_json.get("model_type") == "gemma3" and "text_config" in config_json:
        config_json = _GEMMA3_TEXT | dict(config_json["text_config"])
    model_type = config_json.get("model_type")
    if model_type in _OLD_KEYS:
        old_keys = _OLD_KEYS[model_type]
        config_json = {
            new: config_json[old] for new, old in old_keys.items() if old in config_json
        } | dict(config_json)
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"model_type {model_type!r} is not supported; known: {', '.join(sorted(FAMILIES))}"
        )
    family = FAMILIES[model_type]
    for key, value in _REQUIRED.items():
        if config_json.get(key) not in (None, value):
            raise UnsupportedModelError(
                f"{model_type}: {key} = {config_json[key]!r} is not supported, only {value!r}"
            )
    if model_type == "gpt2" and config_json.get("intermediate_size") is None:
        config_json["intermediate_size"] = 4 * config_json.get("hidden_size", 0)
    if missing := [name for name in _NECESSARY if config_json.get(name) is None]:
        raise UnsupportedModelError(f"{model_type}: config.json lacks {', '.join(missing)}")
    get, num_heads = config_json.get, config_json["num_attention_heads"]
    default_head_dim = family.default_head_dim or config_json["hidden_size"] // num_heads
    head_dim = get("head_dim") or default_head_dim
    rope, local_rope = _ropes(family, config_json)
    eps_key, default_eps = _EPSILONS[family.norm]
    has_attention_bias = bool(get("attention_bias", family.has_all_biases))
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
        block=family.block if get("use_parallel_residual", True) else "sequential",
        rotary_dim=0 if family.learned_positions else _rotary_dim(family, config_json, head_dim),
        rope=rope,
        local_rope=local_rope,
        layer_windows=_layer_windows(family, config_json),
        norm_eps=float(get(eps_key, default_eps)),
        attention_scale=_attention_scale(family, config_json, head_dim),
        attention_softcap=get("attn_logit_softcapping", 50.0 if model_type == "gemma2" else None),
        logit_softcap=get("final_logit_softcapping", 30.0 if model_type == "gemma2" else None),
        activation=get("hidden_activation") or get("hidden_act", family.default_activation),
        query_key_value_bias=family.query_key_value_bias or has_attention_bias,
        output_bias=not family.query_key_value_bias and has_attention_bias,
        feed_forward_bias=bool(get("mlp_bias", family.has_all_biases)),
        tie_word_embeddings=get("tie_word_embeddings", family.is_gemma or model_type == "gpt2"),
        initializer_range=float(get("initializer_range", 0.02)),
    )


def _rotary_dim(family: Family, config_json: Mapping[str, Any], head_dim: int) -> int:
    """How many coordinates of a head are rotated: a share of them in GPT-NeoX and Phi."""
    parameters = config_json.get("rope_parameters") or {}
    share = config_json.get("partial_rotary_factor", family.default_rotary_share)
    return int(head_dim * parameters.get("partial_rotary_factor", share))


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
    if keys is None:
        raise UnsupportedModelError(
            f"{family.model_type}: rotary positions {dict(parameters)!r} are not supported, only "
            "rope_type default, linear and llama3"
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
    if window is None or family.model_type not in _WITH_WINDOWS:
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
        _EPSILONS[config.family.norm][0]: config.norm_eps,
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
    if config.family.block != "sequential":
        config_json["use_parallel_residual"] = config.block != "sequential"
    if 0 < config.rotary_dim < config.head_dim:
        config_json["partial_rotary_factor"] = config.rotary_dim / config.head_dim
    if config.family.model_type in _OLD_KEYS:
        old_keys = _OLD_KEYS[config.family.model_type]
        known = {new: old for new, old in old_keys.items() if new in config_json}
        config_json |= {old: config_json[new] for new, old in known.items()}
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
