"""ELM's two stages of training: the adapters first, then what they stand in.

Tennenholtz et al. 2024 (ELM), section 2, "Training Procedure", and appendix D.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.elm.model.embedding_lm import EmbeddedBatch, EmbeddingLM, read_embedded
from eagle_jax.language_model.decoder.config import LoRA
from eagle_jax.language_model.decoder.lora import add_lora
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.learning.loop import Records
from eagle_jax.learning.supervised import NextTokenSettings, train_next_token
from eagle_jax.learning.trainable import TrainingMode

STAGES = ("stage1", "stage2")  # folders of checkpoints and metrics


@settings
class ElmTrainingSettings:
    """An optimiser of its own for each stage; a stage of 0 steps is left out."""

    stage1: NextTokenSettings = setting("Trains the adapters alone.")
    stage2: NextTokenSettings = setting("Trains the decoder as mode2 says, and the adapters.")
    mode2: Literal["full", "lora"] = setting("Everything, or low-rank updates.")
    lora: LoRA | None = setting("These updates, for mode2 lora only.")

    def __post_init__(self):
        if (self.mode2 == "lora") != (self.lora is not None):
            raise UserError(f"mode2 {self.mode2!r}: lora is to be given for mode2 'lora' only")


def train_elm(
    elm: EmbeddingLM,
    draw_batches: Callable[[int], tuple[EmbeddedBatch, ...]],
    settings: ElmTrainingSettings,
    key: jax.Array,
    *,
    checkpoint_folder: Path,
    digest: str,
    metrics_folder: Path,
    description: str,
    measure: Callable[[Params], Mapping[str, Any]] | None = None,
) -> EmbeddingLM:
    """Both stages, each from its last checkpoint; `draw_batches(step)` depends on step only, which
    runs on from the first stage into the second.

    In stage 1 the decoder's arrays stay the same objects. What `measure` finds in the parameters is
    logged beside the loss. The key, of fresh low-rank updates, is consumed. Raises
    `NonFiniteError` with the stage's first step whose loss is not finite.
    """

    def train(elm, mode: TrainingMode, stage: str, of_stage: NextTokenSettings, first: int):
        params = train_next_token(
            elm.model.config,
            elm.model.params,
            mode,
            lambda step: draw_batches(first + step),
            of_stage,
            Records(
                Checkpoints(Path(checkpoint_folder) / stage, digest=digest, max_to_keep=1),
                Path(metrics_folder) / stage,
                f"{description}, {stage}",
            ),
            read_embedded,
            measure,
        )
        return elm.with_params(params)

    if settings.stage1.num_steps:
        elm = train(elm, "adapter", STAGES[0], settings.stage1, 0)
    if not settings.stage2.num_steps:
        return elm
    if settings.lora is not None:
        elm = _with_lora(elm, settings.lora, key)
    elm = dataclasses.replace(elm, trained=settings.mode2)
    return train(elm, settings.mode2, STAGES[1], settings.stage2, settings.stage1.num_steps)


def _with_lora(elm: EmbeddingLM, lora: LoRA, key: jax.Array) -> EmbeddingLM:
    config, params = add_lora(elm.model.config, elm.decoder.params, lora, key)
    model = dataclasses.replace(elm.model, config=config, params=elm.model.params | params)
    return dataclasses.replace(elm, model=model)
