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
from eagle_jax.language_model.sharding import MeshSettings, mesh_of
from eagle_jax.stages.models import load_model, model_path

_ADAPTER = "adapter"  # below a model's folder


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


@dataclasses.dataclass(frozen=True)
class PolicyModel:
    """The pretrained model that every policy of a run starts from: its name, where it lies, and what
    of it is trained."""

    name: str
    mesh: MeshSettings
    training: PolicyTrainingSettings

    def pretrained(self) -> LanguageModel:
        """The same object every time."""
        return load_model(self.name, self.training.dtype, self.mesh)

    def with_updates(self, seed: int) -> LanguageModel:
        """The pretrained model, in mode "lora" with low-rank updates that change nothing yet."""
        model = self.pretrained()
        if self.training.mode == "full":
            return model
        config, params = add_lora(model.config, model.params, self.training.lora, jax.random.key(seed))
        return dataclasses.replace(model, config=config, params=params)

    def for_training(self, policy: LanguageModel) -> LanguageModel:
        """A policy with its layers computed as the settings say: same results, other memory."""
        layers = {"remat": self.training.remat, "scan_layers": self.training.scan_layers}
        return dataclasses.replace(policy, config=dataclasses.replace(policy.config, **layers))

    def save(self, policy: LanguageModel, folder: Path) -> None:
        """Writes the whole model; in mode "lora" its updates alone, as `folder`/adapter, for PEFT and vLLM to load
        upon the pretrained model's folder."""
        if policy.config.lora is None:
            save_language_model(policy, folder, str(policy.params["token_embedding"].dtype))
        else:
            save_peft_adapter(policy, folder / _ADAPTER, str(model_path(self.name)))

    def load(self, folder: Path) -> LanguageModel:
        """What `save` wrote; in mode "lora" on the arrays of the pretrained model."""
        pretrained = self.pretrained()
        if self.training.mode == "full":
            return load_language_model(folder, mesh=mesh_of(pretrained.params))
        policy = load_peft_adapter(pretrained, folder / _ADAPTER)
        return dataclasses.replace(policy, name=folder.name)
