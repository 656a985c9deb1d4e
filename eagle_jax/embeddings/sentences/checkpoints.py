"""Parameters of text encoders from Hugging Face's safetensors; layers are stacked to [L, ...]."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.tensor_files import CheckpointError, TensorFiles
from eagle_jax.embeddings.sentences.layers import Params

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class UnsupportedEncoderError(UserError):
    """A config file asks for something that these encoders do not compute."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where a parameter stands: tensors of one shape, side by side along the outputs.

    A kernel is [outputs, inputs] in the checkpoint and [inputs, outputs] here. `{layer}` in a name
    stands for the number of the layer.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    is_kernel: bool = False

    def read(self, files: TensorFiles, in_file: Mapping[str, str], layer: int = 0) -> np.ndarray:
        """The parameter, of one layer if there is one for each."""
        pieces = []
        for template in self.names:
            name = template.format(layer=layer)
            name = in_file.get(name, name)
            files.check_shape(name, self.shape)
            pieces.append(files.read(name).T if self.is_kernel else files.read(name))
        return np.concatenate(pieces, axis=-1)


def kernel(*names: str, inputs: int, outputs: int) -> Stored:
    """Weights of torch's linear layers."""
    return Stored(names, (outputs, inputs), is_kernel=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Naming:
    """How the names of a family vary: a prefix, told by the tensor `probe`; other names of the
    same tensor; and tensors that carry no part of the encoder."""

    prefixes: tuple[str, ...]
    probe: str
    synonyms: Mapping[str, str]
    ignored: re.Pattern[str]

    def canonical(self, names: list[str]) -> dict[str, str]:
        """Name without prefix -> name in the file."""
        prefix = next((p for p in self.prefixes if p + self.probe in names), "")
        found = {}
        for name in names:
            plain = name.removeprefix(prefix)
            found[self.synonyms.get(plain, plain)] = name
        return found


def read_params(
    folder: Path, layout: Mapping[str, Stored], num_layers: int, naming: Naming, dtype: str
) -> Params:
    """The parameter tree that `layout` (path -> where it stands) describes.

    Paths that begin with `layers/` are read for every layer and stacked. Raises CheckpointError
    that names file and tensor, also for a tensor that has no place in the encoder.
    """
    files = TensorFiles(folder)
    in_file = naming.canonical(files.names)
    numbers = range(num_layers)
    known = {
        name.format(layer=layer) for at in layout.values() for name in at.names for layer in numbers
    }
    for plain, name in in_file.items():
        if plain not in known and not naming.ignored.fullmatch(plain):
            raise CheckpointError(
                f"{files.file(name)}: tensor {name} has no place in an encoder of {num_layers} "
                "layers as config.json describes it"
            )
    params: dict[str, Any] = {}
    for path, at in layout.items():
        if path.startswith("layers/"):
            array = np.stack([at.read(files, in_file, layer) for layer in numbers])
        else:
            array = at.read(files, in_file)
        *parents, leaf = path.split("/")
        branch = params
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = jnp.asarray(array, DTYPES[dtype])
    return params
