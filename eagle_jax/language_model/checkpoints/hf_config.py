"""Hugging Face's config.json, read into a DecoderConfig and written from one.

The config classes of `transformers` read it: they know the keys of all times, their defaults and
types. Here stands what our decoder makes of them, and what it refuses.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Set
from typing import Any

from eagle_jax.language_model.decoder.config import FAMILIES, DecoderConfig, Family, Rope, UnsupportedModelError

# Keys that would change the computation, with the only value that is computed here.
_REQUIRED = {
    "use_bidirectional_attention": False,
    "qk_layernorm": False,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "is_causal": True,
}
# The same of keys that are no fields of the classes.
_REFUSED = ("quantization_config", "per_layer_config")
# What `transformers` calls our keys in the config.json of GPT-2.
_GPT2_KEYS = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "layer_norm_eps": "layer_norm_epsilon",
    "hidden_act": "activation_function",
}
_ACTIVATION_SYNONYMS = {"swish": "silu", "gelu_python": "gelu", "gelu_fast": "gelu_new"}
_ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def decoder_config_from_hf(config_json: Mapping[str, Any]) -> DecoderConfig:
    """Reads Hugging Face's config.json; missing keys take the defaults of `transformers`.

    Raises UnsupportedModelError that names the key and value that this decoder cannot compute.
    """
    family, config = _hf_config(config_json)
    get = functools.partial(_value, config, {field.name for field in dataclasses.fields(config)})
    for key, computed in _REQUIRED.items():
        if (value := getattr(config, key, None)) not in (None, computed):
            raise _refused(config, key, value, f"is not computed, only {computed!r}")
    cap = get("attn_logit_softcapping")
    if cap is not None and family.model_type == "gemma3_text":
        raise _refused(config, "attn_logit_softcapping", cap, "is passed over by `transformers`")
    width, num_heads = get("hidden_size"), get("num_attention_heads")
    # Models read head_dim whether their class has it or not, GPT-2 and GPT-NeoX aside.
    head_dim = None if family.fused_heads else _value(config, {"head_dim"}, "head_dim")
    head_dim = head_dim or width // num_heads
    rope, local_rope, rotary_share = _ropes(family, config)
    multiplier = get("attention_multiplier")  # of Granite
    has_attention_bias = get("attention_bias", family.has_all_biases)
    epsilon = get("rms_norm_eps") or get("layer_norm_eps") or get("layer_norm_epsilon")
    activation = get("hidden_activation") or get("activation_function") or get("hidden_act")
    return DecoderConfig(
        family=family,
        vocab_size=get("vocab_size"),
        hidden_size=width,
        intermediate_size=get("intermediate_size") or get("n_inner", 4 * width),
        num_layers=get("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=get("num_key_value_heads", num_heads),
        head_dim=head_dim,
        max_position_embeddings=get("max_position_embeddings"),
        block=family.block if get("use_parallel_residual", True) else "sequential",
        rotary_dim=int(head_dim * rotary_share),
        rope=rope,
        local_rope=local_rope,
        layer_windows=_layer_windows(config, get),
        norm_eps=float(epsilon),
        attention_scale=float(multiplier or get("query_pre_attn_scalar", head_dim) ** -0.5),
        attention_softcap=cap,
        logit_softcap=get("final_logit_softcapping"),
        activation=_ACTIVATION_SYNONYMS.get(activation, activation),
        query_key_value_bias=family.query_key_value_bias or has_attention_bias,
        output_bias=not family.query_key_value_bias and has_attention_bias,
        feed_forward_bias=get("mlp_bias", family.has_all_biases),
        tie_word_embeddings=get("tie_word_embeddings"),
        initializer_range=float(get("initializer_range")),
        unrotated_layers=_unrotated_layers(config, get),
        embedding_multiplier=float(get("embedding_multiplier", 1.0)),
        residual_multiplier=float(get("residual_multiplier", 1.0)),
        logit_divisor=float(get("logits_scaling", 1.0)),
    )


def _value(config: Any, declared: Set[str], key: str, default: Any = None) -> Any:
    """Only what the family's class has `declared`: its model reads no other key.

    The class has checked the type. Numbers that are not above 0 and below 2^31 would end in NaN, or
    in an error far from here.
    """
    spelled = config.attribute_map.get(key, key)
    value = getattr(config, spelled, None) if spelled in declared else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_wrong = is_number and not 0 < value < 2**31
    if is_wrong or (key == "head_dim" and not isinstance(value, int | None)):
        raise _refused(config, spelled, value, "must be a finite number above 0")
    return default if value is None else value


def _hf_config(config_json: Mapping[str, Any]) -> tuple[Family, Any]:
    """The family and the config object of `transformers`."""
    import transformers  # takes seconds

    text_config = config_json.get("text_config")
    if config_json.get("model_type") == "gemma3" and isinstance(text_config, dict):
        config_json = {"model_type": "gemma3_text"} | text_config
    model_type = config_json.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UnsupportedModelError(f"model_type {model_type!r} is not supported; known: {', '.join(sorted(FAMILIES))}")
    for key in _REFUSED:
        if config_json.get(key):
            raise UnsupportedModelError(f"{model_type}: {key} = {config_json[key]!r:.80}: not read")
    # Only AutoConfig sees that a Mistral with layer_types is computed as a Ministral.
    alternates = model_type == "mistral" and "layer_types" in config_json
    config_class = transformers.CONFIG_MAPPING["ministral" if alternates else model_type]
    try:  # a copy: the class writes into the dictionaries that it gets
        return FAMILIES[model_type], config_class.from_dict(copy.deepcopy(dict(config_json)))
    except Exception as error:  # of many kinds, the validators' and those of bare arithmetic
        reason = " ".join(str(error).split())
        raise UnsupportedModelError(
            f"{model_type}: not a config of `transformers`: {type(error).__name__}: {reason:.400}"
        ) from error


def _refused(config: Any, key: str, value: Any, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"{config.model_type}: {key} = {value!r:.80} {why}")


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _ropes(family: Family, config: Any) -> tuple[Rope, Rope, float]:
    """Rotary positions of the layers that see all and of those with a window, and the share of a
    head's coordinates that is rotated: a part of them in GPT-NeoX and Phi."""
    if family.learned_positions:
        return Rope(theta=1e4), Rope(theta=1e4), 0.0
    parameters = config.rope_parameters
    if family.model_type == "gemma3_text":
        both = (parameters.get("full_attention"), parameters.get("sliding_attention"))
    else:
        both = (parameters, parameters)
    share = both[0].get("partial_rotary_factor", 1.0) if isinstance(both[0], dict) else 1.0
    if not _is_positive(share) or share > 1 or (share != 1 and not family.partly_rotated):
        raise _refused(config, "partial_rotary_factor", share, "is not computed")
    return *(_rope(config, each) for each in both), share


def _rope(config: Any, parameters: Any) -> Rope:
    rope_type = parameters.get("rope_type") if isinstance(parameters, dict) else None
    if not isinstance(rope_type, str) or rope_type not in _ROPE_KEYS:
        why = f"is not computed, only rope_type {', '.join(_ROPE_KEYS)}"
        raise _refused(config, "rope_parameters", parameters, why)
    keys = ("rope_theta", *_ROPE_KEYS[rope_type])
    if wrong := [key for key in keys if not _is_positive(parameters.get(key))]:
        why = f"needs a finite {wrong[0]} above 0"
        raise _refused(config, "rope_parameters", parameters, why)
    if rope_type == "llama3" and parameters["high_freq_factor"] <= parameters["low_freq_factor"]:
        why = "needs a high_freq_factor above its low_freq_factor"
        raise _refused(config, "rope_parameters", parameters, why)
    given = {key: parameters[key] for key in _ROPE_KEYS[rope_type]}
    return Rope(theta=float(parameters["rope_theta"]), rope_type=rope_type, **given)


def _layer_windows(config: Any, get: Callable[..., Any]) -> tuple[int | None, ...]:
    """How far each layer looks back. In Mistral, which knows no types of layers, all alike."""
    count, window = get("num_hidden_layers"), get("sliding_window")
    types = get("layer_types", ["sliding_attention"] * count)
    if wrong := set(types) - {"full_attention", "sliding_attention"}:
        raise _refused(config, "layer_types", sorted(wrong), "are not computed")
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def _unrotated_layers(config: Any, get: Callable[..., Any]) -> tuple[int, ...]:
    """SmolLM3's `no_rope_layers` says for each layer whether it has (!) rotary positions."""
    count = get("num_hidden_layers")
    has_rope = get("no_rope_layers", [1] * count)
    if len(has_rope) < count:
        raise _refused(config, "no_rope_layers", has_rope, f"must say something of each of {count} layers")
    return tuple(index for index in range(count) if not has_rope[index])


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
        "rms_norm_eps" if config.family.norm == "rms" else "layer_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "initializer_range": config.initializer_range,
        "hidden_act": config.activation,
        "attention_bias": config.query_key_value_bias,
        "mlp_bias": config.feed_forward_bias,
        "use_sliding_window": bool(windows),
        "sliding_window": windows[0] if windows else None,
        "layer_types": ["full_attention" if window is None else "sliding_attention" for window in config.layer_windows],
    }
    if config.family.block != "sequential":
        config_json["use_parallel_residual"] = config.block != "sequential"
    if 0 < config.rotary_dim < config.head_dim:
        config_json["partial_rotary_factor"] = config.rotary_dim / config.head_dim
    if config.family.model_type == "gpt2":
        config_json |= {old: config_json[new] for new, old in _GPT2_KEYS.items()}
    if config.family.model_type == "gpt_neox":
        config_json |= {"rotary_pct": config.rotary_dim / config.head_dim, "rotary_emb_base": config.rope.theta}
    if config.family.model_type == "smollm3":
        config_json["no_rope_layers"] = [int(i not in config.unrotated_layers) for i in range(config.num_layers)]
    if config.family.model_type == "granite":
        config_json |= {
            "attention_multiplier": config.attention_scale,
            "embedding_multiplier": config.embedding_multiplier,
            "residual_multiplier": config.residual_multiplier,
            "logits_scaling": config.logit_divisor,
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
    return {"rope_type": rope.rope_type} | {key: getattr(rope, key) for key in _ROPE_KEYS[rope.rope_type]}
