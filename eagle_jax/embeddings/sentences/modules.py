"""From hidden states of tokens to one embedding: pooling, dense layers, normalisation.

These are modules of sentence-transformers (Reimers & Gurevych 2019), read from its folders.
Axes: B texts, T tokens, D model width, E width of the embedding.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path, PurePosixPath

import jax
import jax.numpy as jnp

from eagle_jax.base.tensor_files import CheckpointError, TensorFiles
from eagle_jax.embeddings.sentences.checkpoints import read_linear, read_tensor, to_device
from eagle_jax.embeddings.sentences.config_file import ConfigFile, UnsupportedEncoderError
from eagle_jax.embeddings.sentences.layers import ACTIVATIONS, Params, linear

MODULES_FILE = "modules.json"
SETTINGS_FILE = "config_sentence_transformers.json"
_LIBRARY = "sentence_transformers."

# Before version 5.7 a flag for each mode; where several are set, their order is this one.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_POOLING_MODES = tuple(_POOLING_FLAGS.values())
_DENSE_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")  # of torch.nn


@dataclasses.dataclass(frozen=True)
class Pooling:
    """Modes whose results stand side by side, and whether the tokens of a prompt count."""

    modes: tuple[str, ...]
    includes_prompt: bool


@dataclasses.dataclass(frozen=True)
class Dense:
    """activation(x W + b), plus x or x R where there is a residual connection."""

    activation: str
    has_residual: bool


@dataclasses.dataclass(frozen=True)
class Normalize:
    """x / |x|."""


Head = Dense | Normalize


def pool(modes: tuple[str, ...], hidden: jax.Array, lengths: jax.Array, num_skipped: int) -> jax.Array:
    """Hidden states [B, T, D] of texts with lengths [B] -> float32 [B, D * number of modes].

    Texts begin in the first column; their first `num_skipped` tokens do not count. Of the n others
    mean is sum / n, mean_sqrt_len_tokens sum / sqrt(n), weightedmean weighted by the positions
    1, 2, ... in the text, cls and lasttoken the first and the last, max that of each coordinate.
    """
    hidden = hidden.astype(jnp.float32)
    position = jnp.arange(hidden.shape[1])[None]
    counts = (position >= num_skipped) & (position < lengths[:, None])
    weights = counts[:, :, None].astype(jnp.float32)

    def at(column: jax.Array) -> jax.Array:
        return jnp.take_along_axis(hidden, column[:, None, None], axis=1)[:, 0]

    def mean(weights: jax.Array, power: float = 1.0) -> jax.Array:
        total = jnp.maximum(weights.sum(axis=1), 1e-9)
        return (hidden * weights).sum(axis=1) / total**power

    def pooled(mode: str) -> jax.Array:
        has_any = lengths > num_skipped
        if mode == "cls":
            return at(jnp.where(has_any, num_skipped, 0))
        if mode == "lasttoken":
            return jnp.where(has_any[:, None], at(jnp.maximum(lengths - 1, 0)), 0.0)
        if mode == "max":
            return jnp.where(counts[:, :, None], hidden, -jnp.inf).max(axis=1)
        if mode == "weightedmean":
            return mean(weights * (position[:, :, None] + 1))
        return mean(weights, 0.5 if mode == "mean_sqrt_len_tokens" else 1.0)

    return jnp.concatenate([pooled(mode) for mode in modes], axis=1)


def apply_head(head: Head, params: Params, embeddings: jax.Array) -> jax.Array:
    """[B, D] -> [B, E] by a dense layer, or unit vectors (zero stays zero)."""
    if isinstance(head, Normalize):
        norm = jnp.linalg.norm(embeddings, axis=1, keepdims=True)
        return embeddings / jnp.maximum(norm, 1e-12)
    output = ACTIVATIONS[head.activation](linear(embeddings, params["linear"]))
    if not head.has_residual:
        return output
    residual = params.get("residual")
    return output + (embeddings if residual is None else linear(embeddings, residual))


@dataclasses.dataclass(frozen=True)
class Modules:
    """What modules.json lists: where the transformer stands, and what follows it."""

    transformer: Path
    pooling: Pooling
    heads: tuple[Head, ...]
    head_params: tuple[Params, ...]


def read_modules(folder: Path) -> Modules:
    """The modules of a sentence-transformers folder; any other folder is mean-pooled, as there.

    Raises UnsupportedEncoderError for other modules or another order, CheckpointError for files.
    """
    path = folder / MODULES_FILE
    if not path.is_file():
        return Modules(folder, Pooling(("mean",), True), (), ())
    try:
        listed = [(entry["type"], entry["path"]) for entry in json.loads(path.read_text("utf-8"))]
        if outside := [own for _, own in listed if not _is_inside(own)]:
            raise ValueError(f"path {outside[0]!r} leads out of the folder")
        listed = [(str(kind), folder / own) for kind, own in listed]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a list of modules: {error!r}") from error
    kinds = [kind.rsplit(".", 1)[-1] for kind, _ in listed]
    known = all(kind.startswith(_LIBRARY) for kind, _ in listed)
    if not known or kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - set(_READERS):
        raise UnsupportedEncoderError(
            f"{path}: modules are {', '.join(kind for kind, _ in listed)}; computed here are "
            f"Transformer, Pooling, then any of {', '.join(_READERS)} of {_LIBRARY[:-1]}"
        )
    heads = [_READERS[kind](own) for kind, (_, own) in zip(kinds[2:], listed[2:], strict=True)]
    return Modules(
        listed[0][1],
        _read_pooling(listed[1][1] / "config.json"),
        tuple(head for head, _ in heads),
        tuple(params for _, params in heads),
    )


def read_truncate_dim(folder: Path) -> int | None:
    """How many leading coordinates of an embedding the folder keeps; None: all."""
    settings = ConfigFile(folder / SETTINGS_FILE, is_optional=True)
    return settings.read("truncate_dim", int, 0, least=0) or None


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts


def _read_pooling(path: Path) -> Pooling:
    config = ConfigFile(path)
    modes = config.content.get("pooling_mode")
    if modes is None:
        flags = {mode: config.read(key, bool, False) for key, mode in _POOLING_FLAGS.items()}
        modes = [mode for mode, is_on in flags.items() if is_on] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or any(own not in _POOLING_MODES for own in modes):
        raise UnsupportedEncoderError(
            f"{path}: pooling_mode {modes!r} is not supported; known: {', '.join(_POOLING_MODES)}"
        )
    return Pooling(tuple(modes), config.read("include_prompt", bool, True))


def _read_dense(folder: Path) -> tuple[Dense, Params]:
    config = _module_config(folder)
    name = config.read("activation_function", str, "torch.nn.modules.activation.Tanh")
    activation = name.rsplit(".", 1)[-1]
    if activation not in _DENSE_ACTIVATIONS or not name.startswith("torch.nn."):
        raise UnsupportedEncoderError(
            f"{config.path}: activation_function = {name!r} is not supported; "
            f"known: torch.nn's {', '.join(_DENSE_ACTIVATIONS)}"
        )
    inputs, outputs = (config.read(key, int) for key in ("in_features", "out_features"))
    has_residual = config.read("use_residual", bool, False)
    read = functools.partial(read_tensor, TensorFiles(folder))
    has_bias = config.read("bias", bool, True)
    params = {"linear": read_linear(read, ["linear"], inputs, outputs, has_bias)}
    if has_residual and inputs != outputs:
        params["residual"] = read_linear(read, ["residual"], inputs, outputs, False)
    return Dense(activation.lower(), has_residual), to_device(params, "float32")


def _read_normalize(folder: Path) -> tuple[Normalize, Params]:
    _module_config(folder)
    return Normalize(), {}


_READERS = {"Dense": _read_dense, "Normalize": _read_normalize}


def _module_config(folder: Path) -> ConfigFile:
    """The folder's config.json, which older Normalize modules lack."""
    config = ConfigFile(folder / "config.json", is_optional=True)
    for end in ("module_input_name", "module_output_name"):
        config.choose(end, ("sentence_embedding",), "sentence_embedding")
    return config
