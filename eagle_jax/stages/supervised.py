"""Next-token prediction as a stage: from pairs of prompt and answer to a policy's folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.settings import setting, settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.sharding import MeshSettings
from eagle_jax.learning.loop import Records
from eagle_jax.learning.supervised import Batch, NextTokenSettings, encode_pairs, train_next_token
from eagle_jax.stages.models import load_model, model_path
from eagle_jax.stages.policy_models import PolicyTrainingSettings, for_training, load_policy, save_policy, with_updates

_LENGTH_MULTIPLE = 32


@settings
class ReferenceStageSettings:
    """Next-token prediction on the kept candidates."""

    batch_size: int = setting("Texts of an optimiser step.", at_least=1)
    training: NextTokenSettings


def training_records(stage: StageFolder) -> Records:
    """Checkpoints and metrics of the one training of a stage, in its folder."""
    checkpoints = Checkpoints(stage.path / "checkpoints", digest=stage.digest, max_to_keep=1)
    return Records(checkpoints, stage.path / "metrics", stage.name)


def run_reference_stage(
    stage: StageFolder,
    pretrained: str,
    mesh: MeshSettings,
    pairs: Sequence[tuple[str, str]],
    settings: ReferenceStageSettings,
    policy_training: PolicyTrainingSettings,
    seed: int,
) -> LanguageModel:
    """Next-token prediction on `pairs` from the model named `pretrained`; writes model/."""
    base = load_model(pretrained, policy_training.dtype, mesh)
    if not stage.is_complete():
        stage.begin()
        model = with_updates(base, policy_training, derive_seed(seed, 0))
        length = max(len(model.tokenizer.encode(prompt + " " + target)) for prompt, target in pairs)

        def draw_batches(step: int) -> tuple[Batch, ...]:
            rng = np.random.default_rng([seed, step])
            rows = rng.integers(len(pairs), size=settings.batch_size)
            # One length for all batches: one compilation.
            multiple = -(-length // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
            return (encode_pairs(model.tokenizer, [pairs[i] for i in rows], 0.0, multiple),)

        params = train_next_token(
            for_training(model, policy_training).config,
            model.params,
            policy_training.mode,
            draw_batches,
            settings.training,
            training_records(stage),
        )
        trained = dataclasses.replace(model, name=stage.name, params=params)
        save_policy(trained, stage.path / "model", model_path(pretrained))
        stage.write_json("facts.json", {"num_pairs": len(pairs)})
        stage.finish()
    return load_policy(stage.path / "model", base, policy_training)
