"""ELM's toy: two vectors, two words, and whether a stage for the adapter alone is needed.

Tennenholtz et al. 2024 (ELM), appendix D: [1, 0] is to be told as one word and [0, 1] as another,
without any other prompt. One-stage training moves everything from the start, two-stage training the
adapter alone for the first steps; both take the same number of steps from the same start.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import read_metrics
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.settings import setting, settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.prompts import Prompt
from eagle_jax.data.tasks import PLACEHOLDERS, SEMANTIC
from eagle_jax.elm.model.adapter import unchanged_input
from eagle_jax.elm.model.embedding_lm import (
    EmbeddedPrompt,
    EmbeddingLM,
    embedded_logits,
    embedded_token_log_probs,
    new_embedding_lm,
)
from eagle_jax.elm.model.training import STAGES, ElmTrainingSettings, train_elm
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.learning.supervised import NextTokenSettings
from eagle_jax.reports.pages import shared_fields
from eagle_jax.stages.models import load_model
from eagle_jax.stages.run import Run
from eagle_jax.studies.elm_toy.report import ToyData, write_toy_report

_VECTORS = np.eye(2, dtype=np.float32)
_TRAININGS = ("one stage", "two stages")


@settings
class ElmToySettings:
    """Two vectors that an ELM is to tell as two texts."""

    title: str = setting("Of the report.")
    seed: int = setting("Of everything.", at_least=0)
    model: str = setting("minilens/<role> or a folder.")
    texts: tuple[str, str] = setting("What the two vectors are to be told as.")
    num_seeds: int = setting("Adapters and orders of batches.", at_least=1)
    learning_rates: tuple[float, ...] = setting("Of both stages.", above=0, distinct=True)
    adapter_scales: tuple[float, ...] = setting(
        "Of a fresh adapter's outputs, as multiples of the token embeddings' scale.", above=0, distinct=True
    )
    num_steps: int = setting("Optimiser steps.", at_least=2)
    adapter_steps: int = setting(
        "Of the num_steps of two-stage training, those that move the adapter alone.", at_least=1
    )
    warmup_steps: int = setting("Of each stage.", at_least=0)
    weight_decay: float = setting("AdamW's, of matrices.", at_least=0)
    max_gradient_norm: float = setting("Longer gradients are scaled down to it.", above=0)
    batch_size: int = setting("Examples of an optimiser step.", at_least=1)
    adapter_hidden_width: int = setting("Between the adapter's two layers.", at_least=1)
    log_every: int = setting("The last step always has a row.", at_least=1, unit="steps")

    def __post_init__(self):
        if self.adapter_steps >= self.num_steps:
            raise UserError(
                f"adapter_steps must lie between 0 and num_steps ({self.num_steps}), got {self.adapter_steps}"
            )


def run_elm_toy(settings: ElmToySettings, workdir: Path) -> Path:
    """Trains what is not trained yet and returns the path of report.html."""
    with Run(workdir, experiment="elm_toy").stage("runs", **dataclasses.asdict(settings)) as stage:
        if not stage.is_complete():
            stage.write_json("runs.json", _train_all(settings, stage))
            stage.finish()
    data = ToyData(
        **shared_fields(settings),
        model=settings.model,
        texts=settings.texts,
        num_steps=settings.num_steps,
        adapter_steps=settings.adapter_steps,
        runs=stage.read_json("runs.json"),
    )
    return write_toy_report(workdir, data)


def _train_all(settings: ElmToySettings, stage: StageFolder) -> list[dict[str, Any]]:
    """A curve for each condition, training and seed."""
    base = load_model(settings.model)
    stage.begin()
    runs = itertools.product(settings.learning_rates, settings.adapter_scales, _TRAININGS, range(settings.num_seeds))
    curves = []
    for index, (rate, scale, training, number) in enumerate(runs):
        elm = _new_elm(settings, base, scale, derive_seed(settings.seed, number))
        train = functools.partial(_train_run, settings, elm, stage, f"trainings/{index:03d}", training, rate, number)
        condition = f"rate {rate:g}, scale {scale:g}"
        curve = stage.chunk(index, train)
        curves.append({"condition": condition, "training": training, "seed": number, "curve": curve})
    return curves


def _new_elm(settings: ElmToySettings, base: LanguageModel, scale: float, seed: int) -> EmbeddingLM:
    elm = new_embedding_lm(
        base,
        {SEMANTIC: unchanged_input(2)},
        jax.random.key(seed),
        hidden_width=settings.adapter_hidden_width,
        batch_size=2,
        length_multiple=4,
        slot_multiple=1,
    )
    adapter = elm.model.params["adapter"][SEMANTIC]
    down = adapter["down"] | {"kernel": scale * adapter["down"]["kernel"]}
    return elm.with_params(elm.model.params | {"adapter": {SEMANTIC: adapter | {"down": down}}})


def _train_run(
    settings: ElmToySettings,
    elm: EmbeddingLM,
    stage: StageFolder,
    folder: str,
    training: str,
    learning_rate: float,
    number: int,
) -> list[dict[str, float]]:
    """Metrics of all logged steps, the state before the first one in front."""
    prompt = Prompt(PLACEHOLDERS[SEMANTIC], (), "")
    prompts = [EmbeddedPrompt(prompt, ((SEMANTIC, vector),)) for vector in _VECTORS]

    def draw_batches(step: int):
        rng = np.random.default_rng([settings.seed, number, step])
        rows = rng.integers(2, size=settings.batch_size)
        return (elm.encode([prompts[row] for row in rows], [settings.texts[r] for r in rows]),)

    def of_stage(num_steps: int) -> NextTokenSettings:
        return NextTokenSettings(
            num_steps=num_steps,
            learning_rate=learning_rate,
            warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay,
            max_gradient_norm=settings.max_gradient_norm,
            checkpoint_every=settings.num_steps,
            log_every=settings.log_every,
        )

    adapter_steps = settings.adapter_steps if training == _TRAININGS[1] else 0
    measure = _measure_both(elm, prompts, settings.texts)
    start = {"step": 0, **{name: float(v) for name, v in measure(elm.model.params).items()}}
    train_elm(
        elm,
        draw_batches,
        ElmTrainingSettings(
            stage1=of_stage(adapter_steps), stage2=of_stage(settings.num_steps - adapter_steps), mode2="full", lora=None
        ),
        jax.random.key(number),
        checkpoint_folder=stage.path / folder / "checkpoints",
        digest=stage.digest,
        metrics_folder=stage.path / folder / "metrics",
        description=f"{training}, learning rate {learning_rate:g}, seed {number}",
        measure=measure,
    )
    rows = [start]
    for name, before in zip(STAGES, (0, adapter_steps), strict=True):
        for row in read_metrics(stage.path / folder / "metrics" / name / "metrics.jsonl"):
            rows.append({**row, "step": row["step"] + before})
    return rows


def _measure_both(
    elm: EmbeddingLM, prompts: list[EmbeddedPrompt], texts: tuple[str, str]
) -> Callable[[Params], Mapping[str, Any]]:
    """Parameters -> nats, the mean of -log p(text | vector), and accuracy of greedy decoding.

    What does not look at the vector has at least ln 2 nats and at most an accuracy of a half.
    """
    batch = elm.encode(prompts, texts)
    config = elm.model.config
    targets = batch.loss_weights[:, 1:] > 0

    def measure(params: Params) -> dict[str, Any]:
        log_probs = embedded_token_log_probs(config, params, batch)
        best = jnp.argmax(_logits(config, params, batch)[:, :-1], axis=-1)
        is_right = jnp.all((best == batch.tokens[:, 1:]) | ~targets, axis=1)
        nats = -jnp.sum(jnp.where(targets, log_probs, 0.0), axis=1)
        return {"nats": jnp.mean(nats), "accuracy": jnp.mean(is_right)}

    return measure


_logits = jax.jit(embedded_logits, static_argnames="config")
