"""Checkpoints in Hugging Face's layout: config.json, safetensors (file or shards), tokenizer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.errors import UserError
from eagle_jax.language_model.decoder_config import (
    DecoderConfig,
    UnsupportedModelError,
    decoder_config_from_hf,
    decoder_config_to_hf,
)
from eagle_jax.language_model.tokenizer import Tokenizer, load_tokenizer
from eagle_jax.language_model.transformer import Params, init_params

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
_READABLE = {"F32", "F16", "BF16"}
_GIT_LFS = b"version https://git-lfs"

_EMBEDDING, _UNEMBEDDING = "model.embed_tokens.weight", "lm_head.weight"
# Our parameter path -> name in Hugging Face's checkpoints. A layer's names hang below its number.
_OUTER_NAMES = {
    "token_embedding": _EMBEDDING,
    "final_norm/scale": "model.norm.weight",
    "unembedding": _UNEMBEDDING,
}
_LAYER_NAMES = {
    "attention_norm/scale": "input_layernorm.weight",
    "attention/query/kernel": "self_attn.q_proj.weight",
    "attention/key/kernel": "self_attn.k_proj.weight",
    "attention/value/kernel": "self_attn.v_proj.weight",
    "attention/output/kernel": "self_attn.o_proj.weight",
    "attention/query_norm/scale": "self_attn.q_norm.weight",
    "attention/key_norm/scale": "self_attn.k_norm.weight",
    "feed_forward_norm/scale": "post_attention_layernorm.weight",
    "feed_forward/gate/kernel": "mlp.gate_proj.weight",
    "feed_forward/up/kernel": "mlp.up_proj.weight",
    "feed_forward/down/kernel": "mlp.down_proj.weight",
}
_DERIVED_SUFFIX = ".rotary_emb.inv_freq"  # carried by old checkpoints, follows from rope_theta


class CheckpointError(UserError):
    """A checkpoint's file or tensor is missing, damaged or of another shape."""


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModel:
    """A decoder with its parameters and tokenizer; `name` says which one in caches and reports."""

    name: str
    config: DecoderConfig
    params: Params
    tokenizer: Tokenizer


def load_language_model(folder: Path | str) -> LanguageModel:
    """Reads a checkpoint of a known family; bfloat16, float16 and float32 become float32.

    Raises CheckpointError (file and tensor named), UnsupportedModelError or TokenizerError.
    """
    folder = Path(folder)
    try:
        config = decoder_config_from_hf(_read_json(folder / "config.json"))
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{folder / 'config.json'}: {error}") from error
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model's vocab_size is "
            f"only {config.vocab_size}"
        )
    return LanguageModel(folder.name, config, _read_params(folder, config), tokenizer)


def save_language_model(model: LanguageModel, folder: Path | str, dtype: str) -> None:
    """Writes config.json, model.safetensors and the tokenizer; dtype is "float32" or "bfloat16"."""
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for path, parameter in _flatten(model.params):
        name, is_kernel = _hf_name(path)
        array = np.asarray(parameter).astype(_DTYPES[dtype])
        tensors[name] = np.ascontiguousarray(array.T if is_kernel else array)
    config_json = decoder_config_to_hf(model.config) | {
        "torch_dtype": dtype,
        "bos_token_id": model.tokenizer.bos_id,
        "eos_token_id": model.tokenizer.eos_id,
        "pad_token_id": model.tokenizer.pad_id,
    }
    weights = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    model.tokenizer.save(folder)
    write_atomically(folder / WEIGHTS, lambda file: file.write(weights))
    text = json.dumps(config_json, indent=2) + "\n"
    write_atomically(folder / "config.json", lambda file: file.write(text.encode()))


def _read_params(folder: Path, config: DecoderConfig) -> Params:
    files = _tensor_files(folder)
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    expected = {_hf_name(path)[0]: (path, shape.shape) for path, shape in _flatten(shapes)}
    tied = config.tie_word_embeddings and _UNEMBEDDING in files
    if tied and _EMBEDDING not in files:  # one matrix under two names: either may be the one kept
        expected[_UNEMBEDDING] = expected.pop(_EMBEDDING)
    for name, file in files.items():
        derived = name.endswith(_DERIVED_SUFFIX) or (tied and name == _UNEMBEDDING)
        if name not in expected and not derived:
            raise CheckpointError(
                f"{file}: tensor {name} has no place in a {config.family.model_type} decoder"
            )
    params: Params = {}
    by_file: dict[Path, list[str]] = {}
    for name in expected:
        if name not in files:
            raise CheckpointError(f"{folder}: tensor {name} is missing")
        by_file.setdefault(files[name], []).append(name)
    for file, names in by_file.items():
        with _open(file) as tensors:
            for name in names:
                path, shape = expected[name]
                array = _read_tensor(file, tensors, name, _hf_name(path)[1], shape)
                *parents, leaf = path.split("/")
                branch = params
                for parent in parents:
                    branch = branch.setdefault(parent, {})
                branch[leaf] = array
    return params


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> the file that holds it, from the index or from the single file."""
    if (folder / INDEX).is_file():
        weight_map = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict):
            raise CheckpointError(f"{folder / INDEX}: has no weight_map")
        return {name: folder / file for name, file in weight_map.items()}
    with _open(folder / WEIGHTS) as tensors:
        return dict.fromkeys(tensors.keys(), folder / WEIGHTS)


def _open(file: Path) -> safetensors.safe_open:
    if not file.is_file():
        raise CheckpointError(f"{file}: not found")
    with open(file, "rb") as stream:
        if stream.read(len(_GIT_LFS)) == _GIT_LFS:
            raise CheckpointError(
                f"{file}: is a git LFS pointer; run `git lfs pull` to get the file"
            )
    try:
        return safetensors.safe_open(file, framework="numpy")
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{file}: truncated or not safetensors: {error}") from error


def _read_tensor(file: Path, tensors, name: str, is_kernel: bool, shape: tuple[int, ...]):
    """One tensor as float32, transposed if it is a kernel ([outputs, inputs] in PyTorch)."""
    if name not in tensors.keys():  # noqa: SIM118  (safe_open is no mapping)
        raise CheckpointError(f"{file}: tensor {name} is missing, though the index says it is here")
    header = tensors.get_slice(name)
    found, expected = tuple(header.get_shape()), shape[::-1] if is_kernel else shape
    if found != expected:
        raise CheckpointError(
            f"{file}: tensor {name} has shape {found}, config.json says {expected}"
        )
    if header.get_dtype() not in _READABLE:
        raise CheckpointError(
            f"{file}: tensor {name} is {header.get_dtype()}, readable are "
            f"{', '.join(sorted(_READABLE))}"
        )
    array = tensors.get_tensor(name).astype(np.float32)
    return jnp.asarray(array.T if is_kernel else array)


def _flatten(params: Params) -> Iterator[tuple[str, jax.Array]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def _hf_name(path: str) -> tuple[str, bool]:
    """Hugging Face's name of our parameter, and whether it is a kernel (there transposed)."""
    if path in _OUTER_NAMES:
        return _OUTER_NAMES[path], False
    _, index, rest = path.split("/", 2)
    return f"model.layers.{index}.{_LAYER_NAMES[rest]}", rest.endswith("/kernel")


def _read_json(path: Path) -> dict:
    if not path.is_file():
        raise CheckpointError(f"{path}: not found")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
