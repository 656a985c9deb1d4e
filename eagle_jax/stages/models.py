"""The language models of an experiment."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from eagle_jax.base.errors import UserError
from eagle_jax.embeddings.sentences.encoder import SentenceEncoder, is_sentence_encoder, load_sentence_encoder
from eagle_jax.language_model.checkpoints.gguf_files import GGUF_SUFFIX
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel, load_language_model
from eagle_jax.language_model.remote.settings import RemoteSettings
from eagle_jax.language_model.sampling.local import LocalFeatures
from eagle_jax.language_model.sharding import MeshSettings, make_mesh

_THINKING = "enable_thinking"  # what templates call it, Qwen 3's among them
REMOTE = "remote/"  # what the names of remote models begin with
_MINILENS_LM = Path(__file__).parents[1] / "data" / "minilens" / "models"


def model_path(name: str) -> Path:
    """`minilens/<role>` comes with the package; else a folder in Hugging Face layout, or a GGUF file.

    What follows a "?" are arguments of its chat template.
    """
    name = name.partition("?")[0]
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
    """The model as `model_path` finds it, on a mesh or the default device; the same object every time.

    "<folder>?enable_thinking=false" gives the chat template that argument: JSON, or else a text.
    """
    devices = None if mesh is None else make_mesh(mesh)
    model = load_language_model(model_path(name), dtype=dtype, mesh=devices)
    if "?" not in name:
        return model
    arguments = name.partition("?")[2]
    try:
        values = {key: _json_or_text(text) for key, text in parse_qsl(arguments, strict_parsing=True)}
    except ValueError as error:
        raise UserError(f"config.models: {name!r}: behind the ? must stand name=value&name=value") from error
    if model.tokenizer.chat_template is None:
        raise UserError(f"config.models: {name!r}: the model has no chat template that could take {arguments}")
    return _with_template_arguments(model, values, arguments)


def without_thoughts(model: LanguageModel) -> LanguageModel:
    """The model told not to think before it answers, where its chat template can be told so and was told nothing."""
    template = model.tokenizer.chat_template
    if template is None or "?" in model.name or not template.takes(_THINKING):
        return model
    return _with_template_arguments(model, {_THINKING: False}, f"{_THINKING}=false")


def _with_template_arguments(
    model: LanguageModel, values: Mapping[str, bool | int | float | str], told: str
) -> LanguageModel:
    tokenizer = copy.copy(model.tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.with_arguments(values)
    return dataclasses.replace(model, name=f"{model.name}?{told}", tokenizer=tokenizer)


def _json_or_text(text: str) -> bool | int | float | str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


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
