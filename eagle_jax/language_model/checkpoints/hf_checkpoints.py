"""Checkpoints in Hugging Face's layout: config.json, safetensors (file or shards), tokenizer."""

from __future__ import annotations

import collections
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict
from huggingface_hub import split_state_dict_into_shards_factory
from jax.sharding import Mesh, Sharding

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.tensor_files import INDEX_SUFFIX, SUFFIX, CheckpointError, TensorFiles, read_json
from eagle_jax.language_model.checkpoints.gguf_files import GGUF_SUFFIX, GgufTensors, gguf_config, read_gguf
from eagle_jax.language_model.checkpoints.gguf_tokenizer import write_gguf_tokenizer
from eagle_jax.language_model.checkpoints.hf_config import decoder_config_from_hf, decoder_config_to_hf
from eagle_jax.language_model.checkpoints.hf_names import HFTensor, hf_tensor
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer, load_tokenizer
from eagle_jax.language_model.decoder.config import DecoderConfig, UnsupportedModelError
from eagle_jax.language_model.decoder.lora import LORA_LEAVES, merged_kernel
from eagle_jax.language_model.decoder.transformer import Params, init_params
from eagle_jax.language_model.sharding import fetch, tree_shardings

MAX_SHARD_BYTES = 5 * 10**9
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# Buffers that follow from config.json: old checkpoints carry them.
_DERIVED = (".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias", ".attn.bias", ".attn.masked_bias")
# How a text model's names hang: in its own checkpoint, in GPT-2's own, and in two kinds of those
# that see as well (the first one is that of Gemma 3).
_NESTINGS = (
    lambda name: name,
    lambda name: name.removeprefix("transformer."),
    lambda name: f"language_model.{name}",
    lambda name: name.replace("model.", "model.language_model.", 1),
)


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModel:
    """A decoder with its parameters and tokenizer; `name` says which one in caches and reports."""

    name: str
    config: DecoderConfig
    params: Params
    tokenizer: Tokenizer


def load_language_model(path: Path | str, *, dtype: str = "float32", mesh: Mesh | None = None) -> LanguageModel:
    """Reads a checkpoint of a known family, a folder or a GGUF file; its parameters become "float32"
    or "bfloat16".

    On a mesh each device's part of a tensor is read for itself, and the host holds one tensor at a
    time at most. Raises CheckpointError (file and tensor named), UnsupportedModelError,
    TokenizerError or ChatTemplateError.
    """
    path = Path(path)
    if path.suffix == GGUF_SUFFIX:
        return _load_gguf(path, dtype, mesh)
    config = _decoder_config(path / "config.json", read_json(path / "config.json"))
    tokenizer = load_tokenizer(path, config.vocab_size)
    return _read_model(path.name, config, TensorFiles(path), tokenizer, path / "config.json", dtype, mesh)


def _load_gguf(path: Path, dtype: str, mesh: Mesh | None) -> LanguageModel:
    file = read_gguf(path)
    config_json = gguf_config(file)
    config = _decoder_config(path, config_json)
    with tempfile.TemporaryDirectory() as folder:
        write_gguf_tokenizer(path, file.metadata, config_json["model_type"], Path(folder))
        tokenizer = load_tokenizer(folder, config.vocab_size)
    return _read_model(path.stem, config, GgufTensors(file, config_json), tokenizer, path, dtype, mesh)


def _decoder_config(path: Path, config_json: Mapping[str, Any]) -> DecoderConfig:
    try:
        return decoder_config_from_hf(config_json)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{path}: {error}") from error


def _read_model(
    name: str,
    config: DecoderConfig,
    files: TensorFiles,
    tokenizer: Tokenizer,
    source: Path,
    dtype: str,
    mesh: Mesh | None,
) -> LanguageModel:
    """`source` is the file that the config is from."""
    if config.num_layers > len(files.names):  # before so many layers are made
        raise CheckpointError(
            f"{source}: has {config.num_layers} layers, but there are only {len(files.names)} tensors"
        )
    if config.tie_word_embeddings and _has_own_unembedding(config, files):
        config = dataclasses.replace(config, tie_word_embeddings=False)
    shapes = parameter_shapes(config)
    leaves = read_leaves(files, _places(config, files, shapes), shapes, dtype, mesh)
    return LanguageModel(name, config, unflatten_dict(leaves, sep="/"), tokenizer)


def parameter_shapes(config: DecoderConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """The decoder's parameters by path, such as "layers/0/attention/query/kernel"."""
    return flatten_dict(jax.eval_shape(lambda: init_params(config, jax.random.key(0))), sep="/")


def save_language_model(
    model: LanguageModel, folder: Path | str, dtype: str, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Writes what `transformers` and vLLM load: config.json, safetensors in "float32" or "bfloat16"
    (shards with an index if more than max_shard_bytes), the tokenizer and its chat template.

    Low-rank updates are merged: W + down up alpha / rank, in float32 (Hu et al. 2021, section 4.1).
    """
    _check_dtype(dtype)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    params = flatten_dict(model.params, sep="/")
    paths, sizes = {}, collections.Counter()
    for path, leaf in params.items():
        if not path.endswith(LORA_LEAVES):
            name = hf_tensor(model.config, path).name
            paths.setdefault(name, path)  # of parameters that are one tensor there the first one stands for all
            sizes[name] += leaf.size * jnp.dtype(DTYPES[dtype]).itemsize
    split = split_state_dict_into_shards_factory(
        sizes, get_storage_size=int, filename_pattern="model{suffix}" + SUFFIX, max_shard_size=max_shard_bytes
    )
    model.tokenizer.save(folder)
    for file, names in split.filename_to_tensors.items():  # the host holds one shard at a time
        tensors = {name: _hf_array(model.config, params, paths[name], DTYPES[dtype]) for name in names}
        write_tensors(folder / file, tensors)
    files = [*split.filename_to_tensors, *(["model" + INDEX_SUFFIX] if split.is_sharded else [])]
    if split.is_sharded:
        write_json(folder / files[-1], {"metadata": split.metadata, "weight_map": split.tensor_to_filename})
    for path in folder.glob("model*" + SUFFIX + "*"):
        if path.name not in files:  # of an earlier save: a single file goes before an index
            path.unlink(missing_ok=True)
    _write_configs(model, folder, dtype)
    _warn_of_auto_tokenizer(model.tokenizer, folder)


def _write_configs(model: LanguageModel, folder: Path, dtype: str) -> None:
    tokenizer = model.tokenizer
    several_ends = len(tokenizer.eos_ids) > 1
    special = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": list(tokenizer.eos_ids) if several_ends else tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    if several_ends:  # vLLM takes the other ends from here only
        write_json(folder / "generation_config.json", special)
    config_json = decoder_config_to_hf(model.config) | {"torch_dtype": dtype} | special
    write_json(folder / "config.json", config_json)


def _warn_of_auto_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """In the log and in README.md, if there is none, where `AutoTokenizer` gives other ids: it
    builds the tokenizer anew by model_type (qwen2), whatever tokenizer_config.json asks for."""
    from transformers import AutoTokenizer  # takes seconds

    words = tokenizer.backend.decode(range(min(1000, tokenizer.vocab_size)))
    probe = f"{words}  12 345\n\n  Don't É ﬁ Ａ"
    try:
        ids = AutoTokenizer.from_pretrained(folder, local_files_only=True)(probe)["input_ids"]
    except Exception:  # of any kind: it cannot make its own of what is in tokenizer.json
        ids = None
    if ids != tokenizer.backend.encode(probe).ids:
        text = (
            "`AutoTokenizer` of `transformers` builds this folder's tokenizer anew and gives other "
            "ids than the model was trained on. Read it by "
            "`transformers.PreTrainedTokenizerFast.from_pretrained(folder)`.\n"
        )
        logging.warning("%s: %s", folder, text)
        if not (folder / "README.md").exists():
            write_atomically(folder / "README.md", lambda file: file.write(text.encode()))


def _hf_array(config: DecoderConfig, params: Mapping[str, jax.Array], path: str, dtype: jnp.dtype) -> np.ndarray:
    """A checkpoint's tensor, with its low-rank update if it has one."""
    place = hf_tensor(config, path)

    def merged(path: str) -> np.ndarray:
        leaf = params[path]
        module = path.rpartition("/")[0]
        if path.endswith("/kernel") and f"{module}/lora_down" in params:
            down, up = (params[f"{module}/{half}"] for half in LORA_LEAVES)
            leaf = merged_kernel(leaf, down, up, config.lora.scale)
        return np.asarray(fetch(leaf)).astype(dtype, copy=False)

    if place.fused is None:
        array = merged(path)
    else:
        array = place.fused.join([merged(part) for part in place.fused.paths])
    return array.T if place.is_kernel else array


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A safetensors file as `transformers` writes it."""
    # Not contiguous, an array would be written as it lies in memory: untransposed.
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    content = safetensors.numpy.save(contiguous, metadata={"format": "pt"})
    write_atomically(path, lambda file: file.write(content))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A JSON file as `transformers` writes it."""
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_leaves(
    files: TensorFiles,
    places: Mapping[str, HFTensor],
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    dtype: str,
    mesh: Mesh | None,
) -> dict[str, jax.Array]:
    """Parameters by path, each from its place; without a mesh on the default device.

    Raises CheckpointError for the first tensor that is missing or has another shape, before the
    first one is read, and for one that holds NaN or infinity.
    """
    _check_dtype(dtype)
    for path, leaf in shapes.items():
        place, shape = places[path], leaf.shape
        if place.fused is not None:
            shape = (*shape[:-1], place.fused.groups * sum(place.fused.sizes))
        files.check_shape(place.name, shape[::-1] if place.is_kernel else shape)
    shardings = dict.fromkeys(shapes) if mesh is None else tree_shardings(mesh, dict(shapes))
    leaves = {}
    for path, leaf in shapes.items():
        name = places[path].name
        leaves[path] = _read_leaf(files, places[path], leaf.shape, DTYPES[dtype], shardings[path])
        if not jnp.isfinite(leaves[path]).all():
            raise CheckpointError(f"{files.file(name)}: tensor {name} holds NaN or infinity")
    return leaves


def _read_leaf(
    files: TensorFiles, place: HFTensor, shape: tuple[int, ...], dtype: jnp.dtype, sharding: Sharding | None
) -> jax.Array:
    parts: dict[tuple, np.ndarray] = {}

    def read(index: tuple[slice, ...]) -> np.ndarray:
        key = tuple((axis.start, axis.stop) for axis in index)
        if key not in parts:  # devices with the same part share one reading
            parts[key] = _read_part(files, place, index).astype(dtype, copy=False)
        return parts[key]

    if sharding is None:
        return jnp.asarray(read((slice(None),) * len(shape)))
    return jax.make_array_from_callback(shape, sharding, read, dtype=dtype)


def _read_part(files: TensorFiles, place: HFTensor, index: tuple[slice, ...]) -> np.ndarray:
    """Part `index` of a parameter; one that shares its tensor with others is cut out of the
    whole."""
    stored_index = index[::-1] if place.is_kernel else index
    stored = files.read(place.name, stored_index if place.fused is None else ...)
    ours = stored.T if place.is_kernel else stored
    return ours if place.fused is None else place.fused.split(ours)[index]


def _nesting(config: DecoderConfig, files: TensorFiles) -> Callable[[str], str]:
    """How the names of the text model hang in these files."""
    final_norm = hf_tensor(config, "final_norm/scale").name
    return next((nest for nest in _NESTINGS if nest(final_norm) in files.names), _NESTINGS[0])


def _has_own_unembedding(config: DecoderConfig, files: TensorFiles) -> bool:
    """Whether a head is in the file beside the embedding and differs from it: then it counts, as in
    `transformers`, whatever tie_word_embeddings says."""
    nest = _nesting(config, files)
    tied = [nest(hf_tensor(config, path).name) for path in ("token_embedding", "unembedding")]
    return set(tied) <= set(files.names) and not np.array_equal(*map(files.read, tied))


def _places(config: DecoderConfig, files: TensorFiles, paths: Iterable[str]) -> dict[str, HFTensor]:
    """Where each parameter stands in these files. Raises CheckpointError for a tensor too many."""
    names = set(files.names)
    nest = _nesting(config, files)

    def place(path: str) -> HFTensor:
        stands = hf_tensor(config, path)
        return stands._replace(name=nest(stands.name))

    places = {path: place(path) for path in paths}
    known = {place.name for place in places.values()}
    if config.tie_word_embeddings:  # one matrix under two names: either may be the one kept
        embedding, unembedding = place("token_embedding"), place("unembedding")
        if embedding.name not in names and unembedding.name in names:
            places["token_embedding"] = unembedding
        known |= {embedding.name, unembedding.name}
    others = 0
    is_nested = "language_model." in places["final_norm/scale"].name
    for name in sorted(names - known):
        if is_nested and "language_model." not in name:
            others += 1
        elif not name.endswith(_DERIVED):
            raise CheckpointError(
                f"{files.file(name)}: tensor {name} has no place in a {config.family.model_type} decoder"
            )
    if others:
        logging.info("%s: %d tensors are not the text model's and not read", files.folder, others)
    return places


def _check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
