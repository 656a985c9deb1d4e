"""The language models of an experiment."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

from eagle_jax.base.errors import UserError
from eagle_jax.embeddings.sentences.encoder import SentenceEncoder, is_sentence_encoder, load_sentence_encoder
from eagle_jax.language_model.checkpoints.gguf_files import GGUF_SUFFIX
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel, load_language_model
from eagle_jax.language_model.remote.settings import RemoteSettings
from eagle_jax.language_model.sampling.local import LocalFeatures
from eagle_jax.language_model.sharding import MeshSettings, make_mesh

REMOTE = "remote/"  # what the names of remote models begin with
_MINILENS_LM = Path(__file__).parents[1] / "data" / "minilens" / "models"


def model_path(name: str) -> Path:
    """`minilens/<role>` comes with the package; else a folder in Hugging Face layout, or a GGUF file."""
    source, _, role = name.partition("/")
    path = _MINILENS_LM / role if source == "minilens" else Path(name)
    is_gguf = path.suffix == GGUF_SUFFIX and path.is_file()
    if not is_gguf and not (path / "config.json").is_file():
        shipped = ", ".join(f"minilens/{path.name}" for path in sorted(_MINILENS_LM.iterdir()))
        raise UserError(
            f"config.models: {name!r} is neither one of {shipped} nor a folder with a config.json nor a GGUF file"
        )
    return path


@functools.cache
def load_model(name: str, dtype: str = "float32", mesh: MeshSettings | None = None) -> LanguageModel:
    """The model as `model_path` finds it, on a mesh or the default device; the same
    object every time."""
    devices = None if mesh is None else make_mesh(mesh)
    return load_language_model(model_path(name), dtype=dtype, mesh=devices)


@functools.cache
def load_features(
    name: str, batch_size: int, dtype: str = "float32", mesh: MeshSettings | None = None
) -> SentenceEncoder | LocalFeatures:
    """Features of texts, with a `name` that tells their weights.

    The embeddings of the sentence encoder in a folder, which its files give away; otherwise the
    states of the decoder that `load_model` finds.
    """
    if is_sentence_encoder(name):
        devices = None if mesh is None else make_mesh(mesh)
        return load_sentence_encoder(name, batch_size=batch_size, dtype=dtype, mesh=devices)
    return LocalFeatures(load_model(name, dtype, mesh), batch_size)


def remote_models(names: Iterable[str | None], table: Mapping[str, RemoteSettings]) -> dict[str, RemoteSettings]:
    """Those of the models' names that begin with `remote/`, with their endpoints in the table;
    raises `ValueError`."""
    asked = [name for name in dict.fromkeys(names) if name and name.startswith(REMOTE)]
    for name in asked:
        if name.removeprefix(REMOTE) not in table:
            raise ValueError(f"{name!r} is not in the table remote, which has: {', '.join(table)}")
    return {name: table[name.removeprefix(REMOTE)] for name in asked}
