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
from eagle_jax.learning.loop import Records
from eagle_jax.learning.supervised import Batch, NextTokenSettings, encode_pairs, train_next_token
from eagle_jax.stages.policy_models import PolicyModel

_LENGTH_MULTIPLE = 32


@settings
class ReferenceStageSettings:
    """Next-token prediction on pairs of prompt and answer."""

    batch_size: int = setting("Texts of an optimiser step.", at_least=1)
    training: NextTokenSettings


def training_records(stage: StageFolder) -> Records:
    """Checkpoints and metrics of the one training of a stage, in its folder."""
    checkpoints = Checkpoints(stage.path / "checkpoints", digest=stage.digest, max_to_keep=1)
    return Records(checkpoints, stage.path / "metrics", stage.name)


def run_reference_stage(
    stage: StageFolder,
    policy: PolicyModel,
    pairs: Sequence[tuple[str, str]],
    settings: ReferenceStageSettings,
    seed: int,
) -> LanguageModel:
    """Next-token prediction on `pairs` from the pretrained model; writes model/."""
    if not stage.is_complete():
        fit_pairs(stage, policy, policy.with_updates(derive_seed(seed, 0)), pairs, settings, seed)
        stage.write_json("facts.json", {"num_pairs": len(pairs)})
        stage.finish()
    return policy.load(stage.path / "model")


def fit_pairs(
    stage: StageFolder,
    policy: PolicyModel,
    model: LanguageModel,
    pairs: Sequence[tuple[str, str]],
    settings: ReferenceStageSettings,
    seed: int,
) -> None:
    """Next-token prediction on `pairs` (prompt, completion) from `model` on; writes model/."""
    stage.begin()
    length = max(len(model.tokenizer.encode(prompt + " " + target)) for prompt, target in pairs)
    # One length for all batches: one compilation.
    multiple = -(-length // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE

    def draw_batches(step: int) -> tuple[Batch, ...]:
        rows = np.random.default_rng([seed, step]).integers(len(pairs), size=settings.batch_size)
        return (encode_pairs(model.tokenizer, [pairs[i] for i in rows], 0.0, multiple),)

    params = train_next_token(
        policy.for_training(model).config,
        model.params,
        policy.training.mode,
        draw_batches,
        settings.training,
        training_records(stage),
    )
    policy.save(dataclasses.replace(model, name=stage.name, params=params), stage.path / "model")
