"""An ELM as a folder: its adapters, and what was trained of the model that they belong to.

`embedding_lm.json` names the base model's digest, the kinds of embeddings and their widths;
`adapter.safetensors` holds adapters and input statistics. Beside them lies `lora` (a PEFT adapter)
or `base` (the whole model in Hugging Face's layout) where the second stage changed the base.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from eagle_jax.base.tensor_files import SUFFIX, CheckpointError, TensorFiles, read_json
from eagle_jax.data.tasks import PLACEHOLDERS
from eagle_jax.elm.model.adapter import EmbeddingError
from eagle_jax.elm.model.embedding_lm import EmbeddingLM, decoder_params, place_like
from eagle_jax.language_model.checkpoints.hf_checkpoints import (
    LanguageModel,
    load_language_model,
    save_language_model,
    write_json,
    write_tensors,
)
from eagle_jax.language_model.checkpoints.peft_adapters import load_peft_adapter, save_peft_adapter
from eagle_jax.language_model.checkpoints.placeholders import with_placeholders
from eagle_jax.language_model.sampling.local import identity
from eagle_jax.language_model.sharding import fetch, mesh_of

_RECORD, _STEM, _BASE, _LORA = "embedding_lm.json", "adapter", "base", "lora"


def save_embedding_lm(elm: EmbeddingLM, folder: Path | str) -> None:
    """Writes adapters, statistics and what was trained of the base; whole again by
    `load_embedding_lm`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    params = elm.model.params
    adapters = {name: part for name, part in params.items() if name not in decoder_params(params)}
    leaves = flatten_dict(adapters, sep="/")
    tensors = {path: np.asarray(fetch(leaf)) for path, leaf in leaves.items()}
    write_tensors(folder / (_STEM + SUFFIX), tensors)
    if elm.trained == "full":
        save_language_model(elm.decoder, folder / _BASE, "float32")
    if elm.trained == "lora":
        save_peft_adapter(elm.decoder, folder / _LORA, elm.base)
    record = {
        "base": elm.base,
        "trained": elm.trained,
        "token_width": elm.model.config.hidden_size,
        "adapters": {
            kind: {
                "placeholder": PLACEHOLDERS[kind],
                "input_width": width,
                "hidden_width": params["adapter"][kind]["up"]["kernel"].shape[1],
                "statistics": [f"adapter_input/{kind}/{name}" for name in ("mean", "scale")],
            }
            for kind, width in sorted(elm.widths.items())
        },
        "batch_size": elm.batch_size,
        "length_multiple": elm.length_multiple,
        "slot_multiple": elm.slot_multiple,
    }
    write_json(folder / _RECORD, record)  # last: the folder is an ELM once it is there


def load_embedding_lm(folder: Path | str, base: LanguageModel | None) -> EmbeddingLM:
    """What `save_embedding_lm` wrote, on the arrays and the mesh of `base`.

    Where all was trained the folder has its own model, and base may be None. Raises CheckpointError
    (file and tensor named) and EmbeddingError for another base model or another width.
    """
    folder = Path(folder)
    path = folder / _RECORD
    record = _checked(path, read_json(path))
    if record["trained"] == "full":
        mesh = None if base is None else mesh_of(base.params)
        model = load_language_model(folder / _BASE, mesh=mesh)
        model = dataclasses.replace(model, name=record["base"].partition("@")[0])
    else:
        model = _on_base(path, record, base)
        if record["trained"] == "lora":
            model = load_peft_adapter(model, folder / _LORA)
    adapters = _read_own(TensorFiles(folder, _STEM), record, model.config.hidden_size)
    params = model.params | place_like(model.params, adapters)
    return EmbeddingLM(
        dataclasses.replace(model, params=params),
        record["base"],
        record["trained"],
        record["batch_size"],
        record["length_multiple"],
        record["slot_multiple"],
    )


def _checked(path: Path, record: Mapping[str, Any]) -> Mapping[str, Any]:
    expected = {
        "base": str,
        "trained": str,
        "token_width": int,
        "adapters": dict,
        "batch_size": int,
        "length_multiple": int,
        "slot_multiple": int,
    }
    for name, kind in expected.items():
        if not isinstance(record.get(name), kind):
            raise CheckpointError(f"{path}: {name} is missing or no {kind.__name__}")
    if record["trained"] not in ("adapter", "lora", "full"):
        raise CheckpointError(f"{path}: trained is {record['trained']!r}, expected adapter, lora or full")
    for kind, sizes in record["adapters"].items():
        if kind not in PLACEHOLDERS or not isinstance(sizes, dict):
            raise CheckpointError(f"{path}: adapters has {kind!r}; known kinds are {', '.join(PLACEHOLDERS)}")
        for name in ("input_width", "hidden_width"):
            if not isinstance(sizes.get(name), int):
                raise CheckpointError(f"{path}: {name} of {kind} is missing or no int")
    return record


def _on_base(path: Path, record: Mapping[str, Any], base: LanguageModel | None) -> LanguageModel:
    """The base with placeholders, once it is known to be the one of the adapters."""
    if base is None:
        raise EmbeddingError(
            f"{path}: holds adapters of the model {record['base']} and not the model itself; load "
            "that one and give it here"
        )
    if base.config.hidden_size != record["token_width"]:
        raise EmbeddingError(
            f"{path}: its adapters write token embeddings of width {record['token_width']}, those "
            f"of {base.name} have {base.config.hidden_size}"
        )
    found = identity(base)
    if found.rpartition("@")[2] != record["base"].rpartition("@")[2]:
        raise EmbeddingError(
            f"{path}: its adapters were trained with the model {record['base']}, this is {found}; "
            "load that model, in the same dtype, or train adapters for this one"
        )
    return with_placeholders(base, [PLACEHOLDERS[kind] for kind in sorted(record["adapters"])])


def _read_own(files: TensorFiles, record: Mapping[str, Any], width: int) -> dict[str, Any]:
    """Adapters and statistics; every tensor that has to be there, of its shape, finite."""
    shapes: dict[str, tuple[int, ...]] = {}
    for kind, sizes in record["adapters"].items():
        inputs, hidden = sizes["input_width"], sizes["hidden_width"]
        shapes |= {
            f"adapter/{kind}/up/kernel": (inputs, hidden),
            f"adapter/{kind}/up/bias": (hidden,),
            f"adapter/{kind}/down/kernel": (hidden, width),
            f"adapter/{kind}/down/bias": (width,),
            f"adapter_input/{kind}/mean": (inputs,),
            f"adapter_input/{kind}/scale": (inputs,),
        }
    if others := sorted(set(files.names) - set(shapes)):
        raise CheckpointError(f"{files.file(others[0])}: tensor {others[0]} has no place in an ELM")
    leaves = {}
    for name, shape in shapes.items():
        if files.shape(name) != shape:
            raise CheckpointError(
                f"{files.file(name)}: tensor {name} has shape {files.shape(name)}, {_RECORD} and "
                f"the base model say {shape}"
            )
        values = files.read(name)
        if not np.isfinite(values).all():
            raise CheckpointError(f"{files.file(name)}: tensor {name} has values that are no number")
        leaves[name] = jnp.asarray(values, jnp.float32)
    return unflatten_dict(leaves, sep="/")
