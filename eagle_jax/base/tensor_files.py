"""Tensors by name from a folder of safetensors: one file, or several with an index."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import safetensors

from eagle_jax.base.errors import UserError

SUFFIX, INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"
_READABLE = ("F32", "F16", "BF16")
_GIT_LFS = b"version https://git-lfs"


class CheckpointError(UserError):
    """A checkpoint's file or tensor is missing, damaged or of another shape."""


class TensorFiles:
    """The tensors of `<folder>/<stem>.safetensors`, else of the files that its index names.

    The single file goes first, as in `transformers`: an index beside it is an older one. Names are
    today's (`LayerNorm.weight` for gamma). Files are mapped into memory as they are needed; of a
    slice no more than the slice is read.
    Raises CheckpointError that names the file and the tensor.
    """

    def __init__(self, folder: Path | str, stem: str = "model"):
        self.folder = Path(folder)
        self._opened: dict[Path, safetensors.safe_open] = {}
        index, single = self.folder / (stem + INDEX_SUFFIX), self.folder / (stem + SUFFIX)
        if index.is_file() and not single.is_file():
            stored = _indexed_files(index)
        else:
            stored = dict.fromkeys(self._open(single).keys(), single)
        self._stored_names = {_today(name): name for name in stored}
        self._files = {_today(name): file for name, file in stored.items()}

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._files)

    def file(self, name: str) -> Path:
        """The file that holds the tensor."""
        if name not in self._files:
            raise CheckpointError(f"{self.folder}: tensor {name} is missing")
        return self._files[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor as its file's header gives it."""
        return tuple(self._slices(name).get_shape())

    def check_shape(self, name: str, expected: tuple[int, ...]) -> None:
        """Raises CheckpointError with both shapes where the tensor has another one."""
        if (found := self.shape(name)) != expected:
            raise CheckpointError(f"{self.file(name)}: tensor {name} has shape {found}, config.json says {expected}")

    def read(self, name: str, index: Any = ...) -> np.ndarray:
        """The tensor or its part `index` (slices with step 1), in the dtype in which it is stored.

        Raises CheckpointError unless that is float32, float16 or bfloat16.
        """
        slices = self._slices(name)
        if slices.get_dtype() not in _READABLE:
            raise CheckpointError(
                f"{self.file(name)}: tensor {name} is {slices.get_dtype()}, readable are {', '.join(_READABLE)}"
            )
        return slices[index]

    def _slices(self, name: str):
        file = self.file(name)
        try:
            return self._open(file).get_slice(self._stored_names[name])
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{file}: tensor {name} is missing, though the index says it is here") from error

    def _open(self, file: Path) -> safetensors.safe_open:
        if file not in self._opened:
            self._opened[file] = _open(file)
        return self._opened[file]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError that names it."""
    if not path.is_file():
        raise CheckpointError(f"{path}: not found")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: must hold an object, found {type(content).__name__}")
    return content


def _today(name: str) -> str:
    """BERT's checkpoints of 2018 call LayerNorm's weight gamma and its bias beta."""
    old = {"gamma": "weight", "beta": "bias"}
    return re.sub(r"(?<=LayerNorm\.)(gamma|beta)$", lambda match: old[match[0]], name)


def _indexed_files(index: Path) -> dict[str, Path]:
    """Tensor name -> file, none of them outside the index's folder."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index}: has no weight_map")
    for name, file in weight_map.items():
        # By the name only: in Hugging Face's cache the files themselves are links that lead out.
        inside = isinstance(file, str) and ".." not in (path := PurePosixPath(file)).parts
        if not inside or path.is_absolute():
            raise CheckpointError(f"{index}: tensor {name} is in {file!r}, outside the folder")
    return {name: index.parent / file for name, file in weight_map.items()}


def _open(file: Path) -> safetensors.safe_open:
    if not file.is_file():
        pickles = sorted(file.parent.glob("*model*.bin"))
        if pickles and not any(file.parent.glob(f"*{SUFFIX}*")):
            raise CheckpointError(
                f"{pickles[0]}: a pickle can run any program, so it is not read; convert it where "
                "you trust it: the library that wrote it loads it and saves it as safetensors"
            )
        raise CheckpointError(f"{file}: not found")
    with open(file, "rb") as stream:
        if stream.read(len(_GIT_LFS)) == _GIT_LFS:
            raise CheckpointError(f"{file}: is a git LFS pointer; run `git lfs pull` to get the file")
    try:
        return safetensors.safe_open(file, framework="numpy")
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{file}: truncated or not safetensors: {error}") from error
