"""Parameters of text encoders from Hugging Face's safetensors; layers are stacked to [L, ...]."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.base.tensor_files import CheckpointError, TensorFiles
from eagle_jax.embeddings.sentences.families import EncoderConfig, EncoderFamily
from eagle_jax.embeddings.sentences.layers import Params

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

ReadTensorFn = Callable[[str, tuple[int, ...]], np.ndarray]  # name, shape -> tensor


def read_tensor(files: TensorFiles, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor that must have this shape; raises CheckpointError that names file and tensor."""
    files.check_shape(name, shape)
    return files.read(name)


def read_linear(read: ReadTensorFn, names: Sequence[str], inputs: int, outputs: int, has_bias: bool) -> Params:
    """torch's linear layers side by side: kernel [inputs, n outputs], bias [n outputs].

    A kernel is [outputs, inputs] in the checkpoint.
    """
    kernels = [read(f"{name}.weight", (outputs, inputs)).T for name in names]
    own = {"kernel": np.concatenate(kernels, axis=-1)}
    if has_bias:
        own["bias"] = np.concatenate([read(f"{name}.bias", (outputs,)) for name in names])
    return own


def load_params(folder: Path, config: EncoderConfig, dtype: str) -> Params:
    """The parameter tree of the folder's safetensors.

    Raises CheckpointError that names file and tensor, also for a tensor that has no place in the
    encoder.
    """
    files, family = TensorFiles(folder), config.family
    in_file = _names_in_file(files, family)
    unread = dict(in_file)

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        unread.pop(name, None)
        return read_tensor(files, in_file.get(name, name), shape)

    names = {**family.names, **(family.gated_names if config.is_gated else {})}
    width, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    tables = {
        "token_embedding": (config.vocab_size, width),
        "position_embedding": (config.first_position + config.max_tokens, width),
        "type_embedding": (config.type_vocab_size, width),
        "relative_bias": (config.relative_attention_num_buckets, config.num_attention_heads),
    }
    linears = {
        "layers/attention_in": (width, heads),
        "layers/attention_out": (heads, width),
        "layers/gate": (width, config.intermediate_size),
        "layers/up": (width, config.intermediate_size),
        "layers/down": (config.intermediate_size, width),
    }

    def module(path: str, start: str = "") -> Params | np.ndarray:
        pieces = [start + name for name in names[path]]
        if path in tables:
            return read(f"{pieces[0]}.weight", tables[path])
        if path in linears:
            return read_linear(read, pieces, *linears[path], family.has_biases)
        leaves = {"scale": "weight", "bias": "bias"} if family.has_biases else {"scale": "weight"}
        return {leaf: read(f"{pieces[0]}.{own}", (width,)) for leaf, own in leaves.items()}

    params: Params = {"layers": {}}
    for path in names:
        if path.startswith("layers/"):
            starts = (family.layers.format(layer=layer) for layer in range(config.num_hidden_layers))
            of_layers = (module(path, start) for start in starts)
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *of_layers)
            params["layers"][path.removeprefix("layers/")] = to_device(stacked, dtype)
        else:
            params[path] = to_device(module(path), dtype)
    for plain, name in unread.items():
        if not re.fullmatch(family.ignored, plain):
            raise CheckpointError(
                f"{files.file(name)}: tensor {name} has no place in an encoder of "
                f"{config.num_hidden_layers} layers as config.json describes it"
            )
    return params


def _names_in_file(files: TensorFiles, family: EncoderFamily) -> dict[str, str]:
    """The family's names -> those in the file, which may have a prefix or be synonyms."""
    probe = family.layers.format(layer=0) + family.names["layers/attention_norm"][0] + ".weight"
    prefix = next((p for p in family.prefixes if p + probe in files.names), "")
    plain = ((name.removeprefix(prefix), name) for name in files.names)
    return {family.synonyms.get(own, own): name for own, name in plain}


def to_device(tree: Params | np.ndarray, dtype: str) -> Params | jax.Array:
    """The same tree in a dtype of `DTYPES`."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, DTYPES[dtype]), tree)
