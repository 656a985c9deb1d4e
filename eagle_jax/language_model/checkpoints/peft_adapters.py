"""Low-rank updates as adapter folders of the library PEFT: adapter_config.json and safetensors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from eagle_jax.base.tensor_files import SUFFIX, CheckpointError, TensorFiles, read_json
from eagle_jax.language_model.checkpoints.hf_checkpoints import (
    LanguageModel,
    parameter_shapes,
    read_leaves,
    write_json,
    write_tensors,
)
from eagle_jax.language_model.checkpoints.hf_names import HFTensor, hf_tensor
from eagle_jax.language_model.decoder.config import DecoderConfig, LoRA, UnsupportedModelError
from eagle_jax.language_model.decoder.lora import LORA_LEAVES
from eagle_jax.language_model.sharding import fetch, mesh_of

CONFIG, STEM = "adapter_config.json", "adapter_model"
_PREFIX = "base_model.model."
_LEAF_NAMES = {"lora_down": "lora_A", "lora_up": "lora_B"}  # stored as [r, in] and [out, r]
# Keys of adapter_config.json that change what is computed, with the values that are computed here.
# The other initial values (PiSSA, OLoRA, CorDA, LoftQ) change the base as well.
_REQUIRED_VALUES = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, []),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
    "alpha_pattern": (None, {}),
    "rank_pattern": (None, {}),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}


def save_peft_adapter(model: LanguageModel, folder: Path | str, base: str) -> None:
    """Writes the model's low-rank updates, which PEFT and vLLM load upon the checkpoint `base`.

    Raises ValueError where the model has none.
    """
    lora = model.config.lora
    tensors = {}
    for path, leaf in flatten_dict(model.params, sep="/").items():
        if path.endswith(LORA_LEAVES):
            tensors[_place(model.config, path).name] = np.asarray(fetch(leaf)).T
    if lora is None or not tensors:
        raise ValueError(f"{model.name} has no low-rank updates to save as an adapter")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / (STEM + SUFFIX), tensors)
    adapted = {_module_of(name) for name in tensors}
    config_json = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": _target_modules(model.config, adapted),
    }
    write_json(folder / CONFIG, config_json)


def load_peft_adapter(model: LanguageModel, folder: Path | str) -> LanguageModel:
    """The model with an adapter's low-rank updates in float32, on the mesh of its parameters.

    Raises CheckpointError that names the file and the key or the tensor, and ValueError where the
    model has low-rank updates already.
    """
    if model.config.lora is not None:
        raise ValueError(f"{model.name} has low-rank updates already; load its base to replace them")
    folder = Path(folder)
    config_json = read_json(folder / CONFIG)
    for key, supported in _REQUIRED_VALUES.items():
        if (value := config_json.get(key, supported[0])) not in supported:
            raise CheckpointError(f"{folder / CONFIG}: {key} = {value!r} is not supported, only {supported[0]!r}")
    files = TensorFiles(folder, STEM)
    lora = _lora(folder / CONFIG, config_json, _targets(model.config, files.names))
    config = dataclasses.replace(model.config, lora=lora)
    shapes = {path: leaf for path, leaf in parameter_shapes(config).items() if path.endswith(LORA_LEAVES)}
    places = {path: _place(config, path) for path in shapes}
    for name in sorted(set(files.names) - {place.name for place in places.values()}):
        raise CheckpointError(
            f"{files.file(name)}: tensor {name} is no low-rank update of a linear layer in a "
            f"{config.family.model_type} decoder"
        )
    if not places:
        raise CheckpointError(f"{folder}: has no low-rank updates")
    adapter = read_leaves(files, places, shapes, "float32", mesh_of(model.params))
    params = unflatten_dict(flatten_dict(model.params, sep="/") | adapter, sep="/")
    return dataclasses.replace(model, config=config, params=params)


def _targets(config: DecoderConfig, names: Sequence[str]) -> str:
    """The pattern of just those linear layers that the tensors belong to."""
    adapted = {_module_of(name) for name in names}
    paths = sorted(path for path, module in _linear_modules(config).items() if module in adapted)
    return f"^({'|'.join(map(re.escape, paths))})$"


def _place(config: DecoderConfig, path: str) -> HFTensor:
    """Where "layers/0/attention/query/lora_down" stands in an adapter."""
    module, leaf = path.rsplit("/", 1)
    kernel, _, fused = hf_tensor(config, f"{module}/kernel")
    if fused is not None or config.family.model_type == "gpt2":
        raise UnsupportedModelError(
            f"{config.family.model_type} has no PEFT adapters here, since its checkpoints keep "
            "several of our linear layers as one: save the merged model"
        )
    return HFTensor(f"{_PREFIX}{_module_of(kernel)}.{_LEAF_NAMES[leaf]}.weight", True)


def _module_of(name: str) -> str:
    """The linear layer to which a tensor belongs, as PyTorch names it."""
    return re.sub(r"(\.lora_[AB])?\.weight$", "", name.removeprefix(_PREFIX))


def _linear_modules(config: DecoderConfig) -> dict[str, str]:
    """Path of each linear layer -> its name in PyTorch."""
    kernels = [path for path in parameter_shapes(config) if path.endswith("/kernel")]
    return {path.removesuffix("/kernel"): _module_of(hf_tensor(config, path).name) for path in kernels}


def _target_modules(config: DecoderConfig, adapted: set[str]) -> list[str]:
    """Ends of the names ("q_proj") where they mean just the adapted layers, else the names."""
    last_parts = {name.rsplit(".", 1)[-1] for name in adapted}
    meant = {name for name in _linear_modules(config).values() if name.rsplit(".", 1)[-1] in last_parts}
    return sorted(last_parts if meant == adapted else adapted)


def _lora(path: Path, config_json: Mapping[str, Any], targets: str) -> LoRA:
    """PEFT scales by alpha / r, with use_rslora by alpha / sqrt(r)."""
    rank, alpha = config_json.get("r"), config_json.get("lora_alpha")
    if type(rank) is not int or not 0 < rank < 2**31:
        raise CheckpointError(f"{path}: r must be an integer of at least 1, got {rank!r:.80}")
    if type(alpha) not in (int, float) or not abs(alpha) < 2**31:
        raise CheckpointError(f"{path}: lora_alpha must be a finite number, got {alpha!r:.80}")
    if config_json.get("use_rslora"):
        alpha *= rank**0.5
    return LoRA(rank=rank, alpha=alpha, targets=targets)
