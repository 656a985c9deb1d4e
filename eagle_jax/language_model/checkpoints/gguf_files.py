"""GGUF, the files of llama.cpp: a model's tensors and the config.json that its metadata amount to.

The `gguf` package reads and dequantises. Here stands what llama.cpp's converter does to a Hugging
Face checkpoint, undone: names, rows of rotated heads, Gemma's norms. Metadata that would change the
computation in a way that is not known here are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.base.tensor_files import CheckpointError, TensorFiles
from eagle_jax.language_model.decoder.config import UnsupportedModelError

GGUF_SUFFIX = ".gguf"
_MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_LAYER = _LAYER | {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_ROPE_FACTORS = "rope_freqs.weight"  # by which the converter tells Llama 3.1's frequencies
# Metadata below the architecture's name, and their keys in config.json.
_KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base_swa": "rope_local_base_freq",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_NEEDED = ("embedding_length", "feed_forward_length", "block_count", "attention.head_count", "context_length")
_READ_OTHERWISE = {
    "vocab_size",  # the embedding's rows say it
    "attention.value_length",
    "attention.scale",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",  # says who made it
}


class Gguf(NamedTuple):
    """A file as the `gguf` package reads it: metadata by key, tensors by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Any]

    @property
    def architecture(self) -> str:
        return self.metadata["general.architecture"]


def read_gguf(path: Path) -> Gguf:
    """Raises CheckpointError for what is no GGUF, UnsupportedModelError for what is not computed."""
    import gguf  # takes a second

    if not path.is_file():
        raise CheckpointError(f"{path}: not found")
    try:
        reader = gguf.GGUFReader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
    except Exception as error:  # ValueError, IndexError, UnicodeDecodeError, whatever damage leads to
        raise CheckpointError(f"{path}: truncated or not GGUF: {type(error).__name__}: {error}") from error
    if metadata.get("general.architecture") not in _MODEL_TYPES:
        raise UnsupportedModelError(
            f"{path}: general.architecture = {metadata.get('general.architecture')!r} is not read, "
            f"only {', '.join(_MODEL_TYPES)}"
        )
    return Gguf(path, metadata, {tensor.name: tensor for tensor in reader.tensors})


def gguf_config(file: Gguf) -> dict[str, Any]:
    """The config.json that the metadata amount to. Raises UnsupportedModelError that names the key
    and value which is not computed."""
    prefix = f"{file.architecture}."
    given = {key.removeprefix(prefix): value for key, value in file.metadata.items() if key.startswith(prefix)}
    for key in _NEEDED:
        if key not in given:
            raise UnsupportedModelError(f"{file.path}: {prefix}{key} is missing")
    for key in sorted(set(given) - set(_KEYS) - _READ_OTHERWISE):
        raise _refused(file, key, given[key], "is not known, so that what it asks for cannot be computed")
    if "token_embd.weight" not in file.tensors:
        raise CheckpointError(f"{file.path}: tensor token_embd.weight is missing")
    config = {_KEYS[key]: value for key, value in given.items() if key in _KEYS}
    heads = config["num_attention_heads"]
    config.setdefault("num_key_value_heads", heads)  # optional where all heads have their own
    config.setdefault("head_dim", given.get("rope.dimension_count", config["hidden_size"] // heads))
    config.setdefault("rope_theta", 10000.0)
    for key in ("attention.value_length", "rope.dimension_count"):
        if given.get(key, config["head_dim"]) != config["head_dim"]:
            raise _refused(file, key, given[key], f"is not computed, only a head's width ({config['head_dim']})")
    config["model_type"] = _MODEL_TYPES[file.architecture]
    config["vocab_size"] = int(file.tensors["token_embd.weight"].shape[-1])
    config["tie_word_embeddings"] = "output.weight" not in file.tensors
    config["rope_scaling"] = _rope_scaling(file, given, config)
    _set_attention(file, given, config)
    return config


def _refused(file: Gguf, key: str, value: Any, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"{file.path}: {file.architecture}.{key} = {value!r:.80} {why}")


def _set_attention(file: Gguf, given: Mapping[str, Any], config: dict[str, Any]) -> None:
    """The scale of queries and the windows; llama.cpp knows both of Gemma 3 by its sizes."""
    if file.architecture == "gemma3":
        of_27b = config["num_hidden_layers"] == 62
        scalar = config["hidden_size"] // config["num_attention_heads"] if of_27b else config["head_dim"]
        config["query_pre_attn_scalar"] = scalar
        if "attention.scale" in given:
            config["query_pre_attn_scalar"] = given["attention.scale"] ** -2
        return
    scale = given.get("attention.scale", config["head_dim"] ** -0.5)
    if not np.isclose(scale, config["head_dim"] ** -0.5, rtol=1e-4):
        raise _refused(file, "attention.scale", scale, "is not computed, only 1 / sqrt(a head's width)")
    if "sliding_window" in config:
        raise _refused(file, "attention.sliding_window", config["sliding_window"], "is not computed")


def _rope_scaling(file: Gguf, given: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
    kind, factor = given.get("rope.scaling.type", "none"), given.get("rope.scaling.factor", 1.0)
    if _ROPE_FACTORS in file.tensors:
        return _llama3_scaling(file, config)
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return None
    if kind != "linear":
        raise _refused(file, "rope.scaling.type", kind, "is not computed, only none, linear and Llama 3.1's")
    return {"rope_type": "linear", "factor": factor}


def _llama3_scaling(file: Gguf, config: Mapping[str, Any]) -> dict[str, Any]:
    """Llama 3.1's scaling, of which the file has only what each frequency is divided by."""
    divisors = _array(file, _ROPE_FACTORS)
    known = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    factor = float(divisors.max())
    width = config["head_dim"]
    turns = 8192 / (2 * np.pi * config["rope_theta"] ** (np.arange(0, width, 2) / width))
    share = np.clip((turns - 1.0) / 3.0, 0.0, 1.0)
    expected = 1.0 / ((1.0 - share) / factor + share)
    if divisors.shape != expected.shape or not np.allclose(divisors, expected, rtol=1e-4):
        raise UnsupportedModelError(f"{file.path}: tensor {_ROPE_FACTORS}: other frequencies than Llama 3.1's")
    return {"rope_type": "llama3", "factor": factor, **known}


def _array(file: Gguf, name: str) -> np.ndarray:
    """A tensor [outputs, inputs] in float32."""
    import gguf

    tensor = file.tensors[name]
    try:
        return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    except NotImplementedError as error:
        raise CheckpointError(f"{file.path}: tensor {name} is {tensor.tensor_type.name}, not dequantised") from error


class GgufTensors(TensorFiles):
    """A file's tensors under Hugging Face's names and laid out as there, in float32."""

    def __init__(self, file: Gguf, config: Mapping[str, Any]):
        self.folder = file.path.parent
        self._file, self._config = file, config
        self._is_gemma = file.architecture == "gemma3"
        self._stored_names = {self._name(name): name for name in file.tensors if name != _ROPE_FACTORS}
        self._files = dict.fromkeys(self._stored_names, file.path)

    def _name(self, name: str) -> str:
        if found := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name):
            layer, module, leaf = found.groups()
            names = _GEMMA_LAYER if self._is_gemma else _LAYER
            return f"model.layers.{layer}.{names[module]}.{leaf}" if module in names else name
        return _OUTER.get(name, name)

    def shape(self, name: str) -> tuple[int, ...]:
        self.file(name)
        return tuple(int(size) for size in reversed(self._file.tensors[self._stored_names[name]].shape))

    def read(self, name: str, index: Any = ...) -> np.ndarray:
        self.file(name)
        stored = self._stored_names[name]
        array = _array(self._file, stored)
        if self._is_gemma and stored.endswith("norm.weight"):
            array = array - 1.0  # stored as 1 + weight, which it is multiplied by
        if self._file.architecture == "llama" and re.search(r"\.attn_[qk]\.", stored):
            array = self._unpermuted(array, stored)
        return array[index]

    def _unpermuted(self, array: np.ndarray, stored: str) -> np.ndarray:
        """llama.cpp rotates neighbouring coordinates, Hugging Face a head's two halves."""
        is_key = ".attn_k." in stored
        heads = self._config["num_key_value_heads" if is_key else "num_attention_heads"]
        pairs = array.reshape(heads, -1, 2, *array.shape[1:])
        return pairs.swapaxes(1, 2).reshape(array.shape)
