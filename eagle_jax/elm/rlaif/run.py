"""RLAIF: an ELM that was trained on a teacher's texts learns from their consistency.

Tennenholtz et al. 2024 (ELM), appendix H. After the stages of a supervised run: trainings on
training films, answers of start and trained ELMs about held-out films, and their comparison. The
last parameters are compared: the divergence's price is what ends a training, and rewards of a few
validation films are too noisy to choose an iteration by.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.task_examples import Row
from eagle_jax.elm.evaluation.answers import SystemTexts, sample_rows, score
from eagle_jax.elm.evaluation.consistency import read_outputs
from eagle_jax.elm.evaluation.consistency_table import ConsistencyRecord, summarize_consistency
from eagle_jax.elm.model.embedding_lm import EmbeddingLM
from eagle_jax.elm.model.files import load_embedding_lm, save_embedding_lm
from eagle_jax.elm.rlaif.rewards import draw_questions, questions, training_reward
from eagle_jax.elm.rlaif.settings import START, RlaifExperiment
from eagle_jax.elm.rlaif.table import compare_to_start
from eagle_jax.elm.rlaif.training import RlaifTask, train_rlaif
from eagle_jax.elm.run import ElmRun
from eagle_jax.elm.train_stage import elm_prompts
from eagle_jax.stages.models import load_model
from eagle_jax.stages.supervised import training_records


class RlaifRun(ElmRun):
    """The stages of one experiment, beside those of its supervised start."""

    experiment_name = "rlaif"

    def __init__(self, rlaif: RlaifExperiment, workdir: Path):
        super().__init__(rlaif.start, workdir)
        self.rlaif = rlaif

    def run(self) -> Path:
        """Runs what is not done yet and returns the folder of the results."""
        self.prepare()
        self.start = self.train(self.experiment.elm_seeds[0])
        self.policies = {
            (name, seed): self._reinforce(name, seed) for name in self.rlaif.trainings for seed in self.rlaif.seeds
        }
        return self._compare(self._ask_all())

    def training_stage(self, name: str, seed: int) -> str:
        return f"{name}_{seed}"

    def _reinforce(self, name: str, seed: int) -> EmbeddingLM:
        """One training, from the supervised ELM."""
        settings = self.rlaif
        with self.stage(
            self.training_stage(name, seed),
            self._elm_stages[0],
            training=settings.trainings[name],
            reward=settings.reward,
            tasks=settings.tasks,
            malformed_reward=settings.malformed_reward,
            seed=seed,
        ) as stage:
            if not stage.is_complete():
                stage.begin()
                result = train_rlaif(
                    self.start,
                    self.rewarded_task(),
                    settings.trainings[name],
                    records=training_records(stage),
                    seed=derive_seed(self.experiment.seed, 7, seed),
                )
                save_embedding_lm(self.start.with_params(result.params), stage.path / "model")
                stage.finish()
            return load_embedding_lm(stage.path / "model", load_model(self.experiment.models.reader))

    def rewarded_task(self) -> RlaifTask:
        """Training questions and their reward; every validation film is asked every task."""
        settings = self.rlaif
        train, validation = (questions(settings.tasks, self.spaces, part) for part in ("train", "validation"))
        return RlaifTask(
            draw_rows=lambda rng, count: draw_questions(train, rng, count),
            prompt_fn=lambda rows: elm_prompts(rows, self.spaces),
            reward_fn=training_reward(settings.reward, settings.malformed_reward, self.spaces),
            validation_rows=[row for of_one in validation for row in of_one],
        )

    def held_out_rows(self) -> list[Row]:
        """What is asked in the end, with the teacher's answers: about some held-out entities."""
        asked = questions(self.rlaif.tasks, self.spaces, "test")
        rng = np.random.default_rng(derive_seed(self.experiment.seed, 8))
        chosen = rng.permutation(len(asked))[: self.rlaif.evaluation.num_entities]
        return self.teacher.answer([row for index in chosen for row in asked[index]], 8).rows

    def _ask_all(self) -> list[dict[str, Any]]:
        """What the start and every trained ELM write, temperature by temperature:
        [{"temperature", "answers": [SystemTexts], "kl": [nats or None]}]."""
        evaluation = self.rlaif.evaluation
        with self.stage(
            "rlaif_answers",
            *(self.training_stage(*policy) for policy in self.policies),
            num_entities=evaluation.num_entities,
            temperatures=evaluation.other_temperatures,
        ) as stage:
            rows = self.held_out_rows()
            asked = [(system, seed) for seed in self.rlaif.seeds for system in (START, *self.rlaif.trainings)]
            at_temperatures = []
            for temperature in dict.fromkeys((self.rlaif.sampling.temperature, *evaluation.other_temperatures)):
                answers, kl = [], []
                for system, seed in asked:
                    number = len(at_temperatures) * len(asked) + len(answers)
                    ask = functools.partial(self._ask, system, seed, temperature, rows)
                    kept = stage.chunk(number, ask)
                    kl.append(kept.pop("kl"))
                    answers.append(SystemTexts(system=system, seed=seed, **kept))
                at_temperatures.append({"temperature": temperature, "answers": answers, "kl": kl})
            if not stage.is_complete():
                stage.finish()
            return at_temperatures

    def _ask(self, system: str, own_seed: int, temperature: float, rows: Sequence[Row]) -> dict[str, Any]:
        """With the same seed all ELMs are sampled with the same random numbers."""
        elm = self.start if system == START else self.policies[system, own_seed]
        sampling = dataclasses.replace(self.rlaif.sampling, temperature=temperature)
        prompts = elm_prompts(rows, self.spaces)
        generations = elm.generate(prompts, sampling, derive_seed(self.experiment.seed, 10, own_seed))
        kl = None
        if temperature == 1.0:  # that of log_probs
            tokens = [made.token_ids for made in generations]
            kl = np.mean(elm.log_probs(prompts, tokens) - self.start.log_probs(prompts, tokens))
        return {**read_outputs(self.spaces.book, generations)._asdict(), "kl": kl}

    def _compare(self, at_temperatures: Sequence[dict[str, Any]]) -> Path:
        """Scores, differences to the start, and samples."""
        evaluation = self.rlaif.evaluation
        with self.stage("rlaif_results", "rlaif_answers", evaluation=evaluation, tasks=self.rlaif.tasks) as stage:
            if not stage.is_complete():
                rows = self.held_out_rows()
                tables = []
                for asked in at_temperatures:
                    answers = asked["answers"]
                    records = [score(answer, rows, self.spaces) for answer in answers]
                    if not tables:
                        samples = sample_rows(answers, records, rows, self.spaces, evaluation.samples_per_task)
                        stage.write_jsonl("samples.jsonl", samples)
                    table = self._table([record for group in records for record in group])
                    kl = _mean_kl(answers, asked["kl"])
                    tables.append({"temperature": asked["temperature"], **table, "kl": kl})
                stage.write_json("tables.json", tables)
                stage.finish()
            return stage.path

    def _table(self, records: Sequence[ConsistencyRecord]) -> dict[str, Any]:
        settings, bootstrap = self.rlaif, self.rlaif.evaluation.bootstrap
        groups = {"all tasks": settings.tasks} | {name: (name,) for name in settings.tasks}
        return {
            "rows": summarize_consistency(records, groups, bootstrap),
            "comparisons": compare_to_start(
                records, START, list(settings.trainings), settings.tasks, settings.reward, bootstrap
            ),
        }


def _mean_kl(answers: Sequence[SystemTexts], kl: Sequence[float | None]) -> dict[str, float] | None:
    """system -> nats, over its seeds; None where it was not measured."""
    if None in kl:
        return None
    by_system: dict[str, list[float]] = {}
    for answer, nats in zip(answers, kl, strict=True):
        by_system.setdefault(answer.system, []).append(nats)
    return {system: float(np.mean(of_system)) for system, of_system in by_system.items()}
