"""Next embeddings of a catalogue on disk, never in memory as a whole.

One `.npy` file [N, K, d], or a folder of such files, which follow each other sorted by name (number
them with leading zeros). Opening reads the headers only, `read` maps the file it needs.

Axis letters: N problems, n problems of one piece, K candidates, d domain width.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eagle_jax.base.errors import UserError

_DTYPES = tuple(np.dtype(name) for name in ("float16", "float32", "float64"))
_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class EmbeddingFileError(UserError):
    """A file of embeddings is missing, damaged or not of the form that is expected."""


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype


class EmbeddingFiles:
    """The problems of one file or of a folder's files, numbered from 0 to num_problems - 1."""

    def __init__(self, path: Path):
        """Checks every header and size; raises `EmbeddingFileError`."""
        self._paths = _find_files(Path(path))
        headers = [_read_header(file) for file in self._paths]
        for file, header in zip(self._paths, headers, strict=True):
            if (header.shape[1:], header.dtype) != (headers[0].shape[1:], headers[0].dtype):
                raise EmbeddingFileError(
                    f"{file}: holds {_describe(header)}, but {self._paths[0].name} before it holds "
                    f"{_describe(headers[0])}; all files need the same K, d and dtype"
                )
        self._starts = np.cumsum([0, *(header.shape[0] for header in headers)])
        self.num_problems = int(self._starts[-1])
        self.num_candidates, self.width = headers[0].shape[1:]
        self.dtype = headers[0].dtype

    def read(self, first: int, last: int) -> np.ndarray:
        """Problems first to last - 1 as an array [n, K, d] in memory."""
        pieces = []
        for file, start, end in zip(self._paths, self._starts[:-1], self._starts[1:], strict=True):
            if first < end and start < last:
                mapped = np.load(file, mmap_mode="r", allow_pickle=False)
                pieces.append(mapped[max(first - start, 0) : last - start])
        return np.concatenate(pieces)

    def checksums(self) -> dict[str, str]:
        """File name -> SHA-256: what tells this input from another one."""
        found = {}
        for path in self._paths:
            with open(path, "rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found


def _find_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise EmbeddingFileError(f"{path}: is not there; expected a .npy file [N, K, d] or a folder of such files")
    files = sorted(path.glob("*.npy"))
    if not files:
        raise EmbeddingFileError(f"{path}: holds no .npy file; expected files [N, K, d]")
    return files


def _read_header(path: Path) -> _Header:
    """Raises `EmbeddingFileError` unless the whole array is there and can be solved."""
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in _HEADER_READERS:
                raise ValueError(f"version {version} of the format is not for plain numbers")
            shape, _, dtype = _HEADER_READERS[version](file)
            offset = file.tell()
    except Exception as error:
        # A damaged header leaves NumPy as whatever its Python tokenizer, parser or sizes raise.
        told = " ".join(str(error).split())
        raise EmbeddingFileError(f"{path}: is not a readable .npy file: {told}") from error
    header = _Header(shape, dtype)
    if dtype not in _DTYPES:
        raise EmbeddingFileError(
            f"{path}: holds {_describe(header)}; expected float16, float32 or float64 in this machine's byte order"
        )
    if len(shape) != 3 or min(shape) < 1:
        raise EmbeddingFileError(
            f"{path}: holds {_describe(header)}; expected [N, K, d]: problems, candidates of each, "
            "width of an embedding, at least 1 each"
        )
    needed = offset + math.prod(shape) * dtype.itemsize
    if path.stat().st_size != needed:
        raise EmbeddingFileError(
            f"{path}: has {path.stat().st_size} bytes where {_describe(header)} needs {needed}: "
            "it is truncated or its header is damaged; copy or make it again"
        )
    return header


def _describe(header: _Header) -> str:
    return f"{header.dtype} {list(header.shape)}"
