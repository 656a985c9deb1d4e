"""RLAIF: an ELM learns from a reward of its texts (Tennenholtz et al. 2024, ELM, appendix H).

An iteration draws prompts with embeddings, samples a text for each, scores the texts (semantic or
behavioral consistency, given from above) and makes one update (`rlaif_update.update`). The replay
buffer D of the appendix are the iteration's own texts. Everything random derives from (seed,
iteration): a run that is interrupted and resumed ends with the same parameters.

Axis letters: `B` texts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import check_finite
from eagle_jax.base.seeds import derive_seed
from eagle_jax.elm.model.embedding_lm import EmbeddingLM
from eagle_jax.elm.model.prompts import EmbeddedBatch, EmbeddedPrompt
from eagle_jax.elm.rlaif.state import RlaifSettings, RlaifState, init_rlaif
from eagle_jax.elm.rlaif.update import update
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.generation import Generation
from eagle_jax.language_model.sharding import on_mesh_of
from eagle_jax.learning.loop import AgentResult, Laps, Records, train_agent
from eagle_jax.learning.trainable import join, split


@dataclasses.dataclass(frozen=True, kw_only=True)
class RlaifTask:
    """What is asked and what the answers are rewarded for. Rows are the caller's own.

    draw_rows: (rng, n) -> n rows.
    prompt_fn: rows -> what the ELM is asked for each.
    reward_fn: (rows, generations) -> rewards [B]; what was cut short says so itself.
    validation_rows: the same ones at every validation.
    """

    draw_rows: Callable[[np.random.Generator, int], Sequence[Any]]
    prompt_fn: Callable[[Sequence[Any]], Sequence[EmbeddedPrompt]]
    reward_fn: Callable[[Sequence[Any], Sequence[Generation]], np.ndarray]
    validation_rows: Sequence[Any]


def train_rlaif(
    elm: EmbeddingLM, task: RlaifTask, settings: RlaifSettings, *, records: Records, seed: int
) -> AgentResult:
    """Trains from the last checkpoint, or from `elm`, what `elm.trained` says is not its base's.

    Give the result's parameters to `elm.with_params`. Raises `NonFiniteError` that names the
    iteration where a reward or a loss is not finite (nothing of it is saved), and UserError for a
    prompt that is too long or rewards that are not one for each text.
    """
    trainable, frozen = split(elm.model.params, elm.trained)
    trainer = _Trainer(elm, trainable, frozen, task, settings, seed)
    key = jax.random.key(derive_seed(seed, 0, 0))
    with on_mesh_of(trainable):
        state = init_rlaif(elm.model.config, trainable, settings, key)
    return train_agent(state, trainer.iterate, trainer.validate, frozen, records, settings, settings.num_iterations)


@dataclasses.dataclass(frozen=True)
class _Trainer:
    """What stays the same over all iterations."""

    elm: EmbeddingLM
    pretrained: Params  # its trainable part
    frozen: Params
    task: RlaifTask
    settings: RlaifSettings
    seed: int

    def iterate(self, step: int, state: RlaifState) -> tuple[RlaifState, dict[str, float]]:
        """Texts and an update; `state` is donated."""
        laps = Laps()
        rng = np.random.default_rng(derive_seed(self.seed, step, 0))
        rows = self.task.draw_rows(rng, self.settings.texts_per_iteration)
        prompts = self.task.prompt_fn(rows)
        generations = self._write(state.trainable, prompts, derive_seed(self.seed, step, 1))
        laps.end("sample")
        values, rewards = self._score(rows, generations)
        check_finite(step, values)
        laps.end("score")
        batch = self._encode(prompts, generations)
        with on_mesh_of(self.pretrained):
            state, metrics = update(
                self.elm.model.config, self.settings, self.frozen, self.pretrained, state, batch, rewards
            )
        values |= {name: float(value) for name, value in metrics.items()}
        laps.end("update")
        return state, values | laps.seconds

    def validate(self, trainable: Params) -> dict[str, float]:
        """The same rows and seed every time, so that only the policy differs."""
        rows = self.task.validation_rows
        prompts = self.task.prompt_fn(rows)
        return self._score(rows, self._write(trainable, prompts, derive_seed(self.seed, 0, 1)))[0]

    def _write(self, trainable: Params, prompts: Sequence[EmbeddedPrompt], seed: int) -> list[Generation]:
        # Scanned layers are for training: here they would be stacked anew for every batch.
        config = dataclasses.replace(self.elm.model.config, scan_layers=False)
        params = join(trainable, self.frozen)
        model = dataclasses.replace(self.elm.model, config=config, params=params)
        acting = dataclasses.replace(self.elm, model=model)
        return acting.generate(prompts, self.settings.sampling, seed)

    def _encode(self, prompts: Sequence[EmbeddedPrompt], generations: Sequence[Generation]) -> EmbeddedBatch:
        """The texts behind their prompts."""
        batch = self.elm.encode(prompts, [made.token_ids for made in generations])
        for row, made in enumerate(generations):
            read = len(made.prompt_token_ids) + len(made.token_ids)
            if num_cut := int(batch.mask[row].sum()) - read:
                raise UserError(
                    f"prompt {row} was cut by {num_cut} tokens to fit the positions of "
                    f"{self.elm.model.name}: RLAIF learns from whole prompts, shorten them or "
                    "max_new_tokens"
                )
        return batch

    def _score(self, rows: Sequence[Any], generations: Sequence[Generation]) -> tuple[dict[str, float], np.ndarray]:
        """Metrics of texts and their rewards [B]."""
        rewards = np.asarray(self.task.reward_fn(rows, generations), np.float32)
        if rewards.shape != (len(generations),):
            raise UserError(f"rewards of {len(generations)} texts have the shape {rewards.shape}")
        return {
            "reward": float(rewards.mean()),
            "reward_std": float(rewards.std()),
            "stopped": float(np.mean([made.stop_reason == "stop" for made in generations])),
        }, rewards
