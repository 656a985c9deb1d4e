"""The policy's model as it goes into training, and as files that the next stage reads.

In mode "lora" every reference policy and agent is the pretrained model's own arrays (one copy in
memory for all of them) and its own low-rank updates.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import jax

from eagle_jax.base.settings import setting, settings
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel, load_language_model, save_language_model
from eagle_jax.language_model.checkpoints.peft_adapters import load_peft_adapter, save_peft_adapter
from eagle_jax.language_model.decoder.config import LoRA
from eagle_jax.language_model.decoder.lora import add_lora
from eagle_jax.language_model.sharding import mesh_of

_ADAPTER = "adapter"  # below the folder of the whole model


def with_updates(pretrained: LanguageModel, settings: PolicyTrainingSettings, seed: int) -> LanguageModel:
    """The pretrained model, in mode "lora" with low-rank updates that change nothing yet."""
    if settings.mode == "full":
        return pretrained
    key = jax.random.key(seed)
    config, params = add_lora(pretrained.config, pretrained.params, settings.lora, key)
    return dataclasses.replace(pretrained, config=config, params=params)


def for_training(policy: LanguageModel, settings: PolicyTrainingSettings) -> LanguageModel:
    """The model with its layers computed as the settings say: same results, other memory."""
    config = dataclasses.replace(policy.config, remat=settings.remat, scan_layers=settings.scan_layers)
    return dataclasses.replace(policy, config=config)


def save_policy(policy: LanguageModel, folder: Path, pretrained: Path) -> None:
    """Writes the whole model, with low-rank updates merged; they stand in `folder`/adapter as well,
    for PEFT and vLLM to load upon the `pretrained` folder."""
    save_language_model(policy, folder, str(policy.params["token_embedding"].dtype))
    if policy.config.lora is not None:
        save_peft_adapter(policy, folder / _ADAPTER, str(pretrained))


def load_policy(folder: Path, pretrained: LanguageModel, settings: PolicyTrainingSettings) -> LanguageModel:
    """What `save_policy` wrote; in mode "lora" on the arrays of the `pretrained` model."""
    if settings.mode == "full":
        return load_language_model(folder, mesh=mesh_of(pretrained.params))
    policy = load_peft_adapter(pretrained, folder / _ADAPTER)
    return dataclasses.replace(policy, name=folder.name)


@settings
class PolicyTrainingSettings:
    """What of the policy's model is trained, for the reference policies and their agents."""

    mode: Literal["full", "lora"] = setting(
        "All parameters (then they are float32), or low-rank updates beside the frozen ones."
    )
    dtype: Literal["float32", "bfloat16"] = setting("Of the policy's own parameters; the updates are float32.")
    lora: LoRA = setting("These updates, in mode lora only.")
    remat: bool = setting("Layers are computed again in the backward pass, not kept.")
    scan_layers: bool = setting("All layers are compiled as one.")

    def __post_init__(self):
        if self.mode == "full" and self.dtype != "float32":
            raise ValueError(
                f"policy_training: mode full trains all parameters, which needs float32, got dtype "
                f"{self.dtype}; mode lora trains updates beside {self.dtype} ones"
            )
