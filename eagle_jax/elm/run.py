"""The ELM experiment on MiniLens: ratings and texts to scores, stage by stage, in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.minilens.world import make_catalogue
from eagle_jax.data.sources import fingerprint
from eagle_jax.data.splits import split_catalogue
from eagle_jax.data.task_examples import Row
from eagle_jax.elm.evaluation.answers import SystemTexts, answer_all, sample_rows, score, score_chance
from eagle_jax.elm.evaluation.consistency_table import ConsistencyRecord, compare_consistency, summarize_consistency
from eagle_jax.elm.evaluation.curves import Paths
from eagle_jax.elm.evaluation.mixtures import score_mixtures
from eagle_jax.elm.examples import ask_teacher, grammar_teacher, run_example_stage
from eagle_jax.elm.model.embedding_lm import EmbeddingLM
from eagle_jax.elm.settings import PROFILE, SINGLE_MOVIE, TASK_NAMES, TWO_MOVIES, ElmExperiment
from eagle_jax.elm.space import Spaces, run_space_stage
from eagle_jax.elm.train_stage import run_elm_stage
from eagle_jax.elm.verdict import CHANCE, ELM, FILM_MIXTURE, USER_MIXTURE
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.stages.catalogue import run_catalogue_stage
from eagle_jax.stages.models import load_features, load_model
from eagle_jax.stages.run import Run

_CACHE = "teacher.sqlite"
GROUPS = {
    "single-movie tasks": SINGLE_MOVIE,
    "two-movie tasks": TWO_MOVIES,
    **{name: (name,) for name in (*TASK_NAMES, FILM_MIXTURE, USER_MIXTURE)},
}


class ElmRun(Run):
    """The stages of one experiment: their names and what each one reads."""

    def __init__(self, experiment: ElmExperiment, workdir: Path):
        super().__init__(workdir, {"experiment_seed": experiment.seed})
        self.experiment = experiment
        self.catalogue = make_catalogue(experiment.catalogue)
        self.split = split_catalogue(self.catalogue, experiment.split)

    def run(self) -> Path:
        """Runs what is not done yet and returns the folder of the results."""
        self.prepare()
        self.elms = {seed: self.train(seed) for seed in self.experiment.elm_seeds}
        answers = self._answer()
        curves, mixtures = self._walk(), self._mix()
        return self._report(answers, mixtures, curves)

    def prepare(self) -> None:
        """Stages 1 to 3: spaces, and examples with what the teacher says of them."""
        self.spaces = self._prepare_spaces()
        self.examples = self._write_examples()

    def train(self, seed: int) -> EmbeddingLM:
        """Stage 4, for one seed."""
        settings = self.experiment
        with self.stage(
            f"elm_{seed}", "examples", elm=settings.elm, models=settings.models, reader=self._reader().name, seed=seed
        ) as stage:
            return run_elm_stage(
                stage,
                self.examples["train"],
                self.spaces,
                self.split.entities["train"],
                self.split.users["train"],
                settings.models,
                settings.elm,
                derive_seed(settings.seed, 4, seed),
            )

    def _write(self, rows: Sequence[Row], use: int) -> list[Row]:
        """Every row with the teacher's answer."""
        seed = derive_seed(self.experiment.seed, 9, use)
        cache = self.workdir / _CACHE
        targets = ask_teacher(self.catalogue, rows, self.experiment.teacher, seed, cache)
        if targets.left_out:
            raise UserError(
                f"the teacher has no answer for {dict(targets.left_out)} examples, which are all "
                f"needed: {dict(targets.malformed)}; raise teacher.max_tries"
            )
        return targets.rows

    def _prepare_spaces(self) -> Spaces:
        """Stages 1 and 2: behavioral embeddings from ratings, semantic ones from texts."""
        settings = self.experiment
        with self.stage(
            "catalogue", data=fingerprint(self.catalogue), split=settings.split, wals=settings.wals
        ) as stage:
            seed = derive_seed(settings.seed, 1)
            self.wals = run_catalogue_stage(stage, self.catalogue, {}, self.split, settings.wals, seed)
        features = load_features(settings.models.features, settings.models.batch_size)
        with self.stage(
            "space",
            "catalogue",
            space=settings.space,
            features=features.name,
            teacher=grammar_teacher().name,
            asked=settings.teacher,
        ) as stage:
            return run_space_stage(
                stage,
                self.catalogue,
                self.split,
                self.wals,
                features,
                self._write,
                settings.space,
                settings.examples.num_neighbors,
                derive_seed(settings.seed, 2),
            )

    def _write_examples(self) -> dict[str, list[Row]]:
        """Stage 3: examples of every task with the teacher's answers."""
        settings, evaluation = self.experiment, self.experiment.evaluation
        with self.stage(
            "examples",
            "space",
            examples=settings.examples,
            held_out=[evaluation.per_movie_task, evaluation.profiles],
            asked=settings.teacher,
        ) as stage:
            return run_example_stage(
                stage,
                self.catalogue,
                self.split,
                self.spaces.neighbors,
                settings.examples,
                evaluation,
                settings.teacher,
                derive_seed(settings.seed, 3),
                self.workdir / _CACHE,
            )

    @property
    def elm(self) -> EmbeddingLM:
        """That of the first seed: paths are decoded by it, and questions answered."""
        return self.elms[self.experiment.elm_seeds[0]]

    def _of_elms(self) -> list[str]:
        """Names of the stages that train them."""
        return [f"elm_{seed}" for seed in self.experiment.elm_seeds]

    def _reader(self) -> LocalGenerator:
        """The ELM's base, which reads titles."""
        models = self.experiment.models
        return LocalGenerator(load_model(models.reader), models.batch_size, models.length_multiple)

    def _answer(self) -> list[SystemTexts]:
        """Stage 5: what every system writes for the held-out examples."""
        evaluation = self.experiment.evaluation
        with self.stage("answers", *self._of_elms(), sampling=evaluation.sampling) as stage:
            answers = answer_all(
                stage,
                self.examples["test"],
                self.catalogue,
                self.split,
                self.spaces,
                self.elms,
                self._reader(),
                self._shown(),
                self._write,
                evaluation,
                derive_seed(self.experiment.seed, 5),
            )
            if not stage.is_complete():
                stage.finish()
            return answers

    def _walk(self) -> list[dict[str, Any]]:
        """Stage 6: films and users that do not exist."""
        evaluation = self.experiment.evaluation
        with self.stage(
            "paths",
            *self._of_elms()[:1],
            curves=evaluation.curves,
            sampling=evaluation.sampling,
            bootstrap=evaluation.bootstrap,
        ) as stage:
            if not stage.is_complete():
                paths = Paths(
                    stage,
                    self.catalogue,
                    self.split,
                    self.wals,
                    self.spaces,
                    self.elm,
                    evaluation,
                    derive_seed(self.experiment.seed, 6),
                )
                stage.write_json("curves.json", paths.run())
                stage.finish()
            return stage.read_json("curves.json")

    def _mix(self) -> list[ConsistencyRecord]:
        """Stage 7: the middles of the same paths, by the ELMs and by models told with words."""
        evaluation = self.experiment.evaluation
        with self.stage("mixtures", *self._of_elms(), curves=evaluation.curves, sampling=evaluation.sampling) as stage:
            records = score_mixtures(
                stage,
                self.catalogue,
                self.split,
                self.wals,
                self.spaces,
                self.elms,
                self._reader(),
                self._shown(),
                evaluation,
                derive_seed(self.experiment.seed, 6),
            )
            if not stage.is_complete():
                stage.finish()
            return records

    def _shown(self) -> dict[str, Row]:
        """An example of each task: the first of those that ELM learned from."""
        first: dict[str, Row] = {}
        for row in self.examples["train"]:
            first.setdefault(row["task"], row)
        return first

    def _report(
        self, answers: list[SystemTexts], mixtures: list[ConsistencyRecord], curves: list[dict[str, Any]]
    ) -> Path:
        """Stage 8: scores and what else a report tells."""
        evaluation = self.experiment.evaluation
        with self.stage("results", "answers", "paths", "mixtures", evaluation=evaluation) as stage:
            if not stage.is_complete():
                rows = self.examples["test"]
                records = [score(answer, rows, self.catalogue, self.split, self.spaces) for answer in answers]
                samples = sample_rows(answers, records, rows, self.catalogue, evaluation.samples_per_task)
                chance = score_chance(rows, self.catalogue, self.split, self.spaces)
                scored = [record for of_system in records for record in of_system]
                table = self._table([*scored, *mixtures, *chance])
                stage.write_json("consistency.json", table)
                stage.write_json("curves.json", curves)
                stage.write_jsonl("samples.jsonl", samples)
                stage.write_json("facts.json", self._facts())
                stage.finish()
            return stage.path

    def _table(self, records: list[ConsistencyRecord]) -> dict[str, Any]:
        bootstrap = self.experiment.evaluation.bootstrap
        comparisons = []
        for group, tasks in GROUPS.items():
            others = {record.system for record in records if record.task in tasks} - {ELM, CHANCE}
            pairs = [(ELM, other) for other in sorted(others)]
            comparisons += compare_consistency(records, {group: tasks}, pairs, bootstrap)
        return {
            "groups": {name: list(tasks) for name, tasks in GROUPS.items()},
            "rows": summarize_consistency(records, GROUPS, bootstrap),
            "comparisons": comparisons,
        }

    def _facts(self) -> dict[str, Any]:
        test = self.examples["test"]
        return {
            "catalogue": self.stages["catalogue"].read_json("facts.json"),
            "space": self.stages["space"].read_json("facts.json"),
            "targets": self.stages["examples"].read_json("facts.json"),
            "training": self.stages[self._of_elms()[0]].read_json("training.json"),
            "num_training_examples": len(self.examples["train"]),
            "num_test_films": len({row["items"][0] for row in test if row["task"] != PROFILE}),
            "num_test_users": len({row["user"] for row in test if row["task"] == PROFILE}),
            "seeds": list(self.experiment.elm_seeds),
            "models": {
                "elm": [elm.name for elm in self.elms.values()],
                "reader": self._reader().name,
                "features": self.spaces.features.name,
                "teacher": grammar_teacher().name,
            },
        }
