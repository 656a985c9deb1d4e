"""The ELM experiment: ratings and texts to scores, stage by stage, in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.sources import fingerprint, load_catalogue
from eagle_jax.data.splits import split_catalogue
from eagle_jax.data.task_examples import Row
from eagle_jax.elm.evaluation.answers import Respondents, SystemTexts, answer_all, sample_rows, score, score_chance
from eagle_jax.elm.evaluation.bounds import bound_consistency
from eagle_jax.elm.evaluation.consistency_table import ConsistencyRecord, compare_consistency, summarize_consistency
from eagle_jax.elm.evaluation.curves import Paths
from eagle_jax.elm.evaluation.mixtures import score_mixtures
from eagle_jax.elm.examples import Teacher, grammar_teacher, rows_about, run_example_stage
from eagle_jax.elm.model.embedding_lm import EmbeddingLM
from eagle_jax.elm.settings import GRAMMAR, SINGLE_MOVIE, TWO_MOVIES, ElmExperiment
from eagle_jax.elm.space import FILM_ANSWERS, Spaces, films_asked_about, run_space_stage
from eagle_jax.elm.train_stage import run_elm_stage
from eagle_jax.elm.verdict import CHANCE, ELM, FILM_MIXTURE, USER_MIXTURE
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.stages.catalogue import run_catalogue_stage
from eagle_jax.stages.models import load_features, load_model
from eagle_jax.stages.run import Run

_CACHE = "teacher.sqlite"


class ElmRun(Run):
    """The stages of one experiment: their names and what each one reads."""

    experiment_name = "elm"

    def __init__(self, experiment: ElmExperiment, workdir: Path):
        super().__init__(
            workdir, {"experiment_seed": experiment.seed}, models=experiment.models, remote=experiment.remote_models()
        )
        self.experiment = experiment
        self._elm_stages = [f"elm_{seed}" for seed in experiment.elm_seeds]

    def run(self) -> Path:
        """Runs what is not done yet and returns the folder of the results."""
        self.prepare()
        self.elms = {seed: self.train(seed) for seed in self.experiment.elm_seeds}
        first_rows: dict[str, Row] = {}  # of each task, of those that ELM learned from
        for row in self.examples["train"]:
            first_rows.setdefault(row["task"], row)
        respondents = Respondents(
            book=self.experiment.book,
            elms=self.elms,
            reader=self._reader(),
            examples=first_rows,
            sampling=self.experiment.evaluation.sampling,
        )
        answers = self._answer(respondents)
        curves, mixtures, bounds = self._walk(), self._mix(respondents), self._bound()
        return self._report(answers, mixtures, curves, bounds)

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
            stage_seed = derive_seed(settings.seed, 4, seed)
            return run_elm_stage(stage, self.examples["train"], self.spaces, settings.models, settings.elm, stage_seed)

    def _prepare_spaces(self) -> Spaces:
        """Stages 1 and 2: behavioral embeddings from ratings, semantic ones from texts."""
        settings = self.experiment
        catalogue, load_report = load_catalogue(settings.catalogue)
        split = split_catalogue(catalogue, settings.split)
        is_grammar = settings.models.teacher == GRAMMAR
        self.teacher = Teacher(
            generator=grammar_teacher() if is_grammar else self.generator(settings.models.teacher),
            book=settings.book,
            catalogue=catalogue,
            settings=settings.teacher,
            seed=settings.seed,
            cache=self.workdir / _CACHE,
        )
        with self.stage("catalogue", data=fingerprint(catalogue), split=settings.split, wals=settings.wals) as stage:
            seed = derive_seed(settings.seed, 1)
            wals = run_catalogue_stage(stage, catalogue, load_report, split, settings.wals, seed)
        features = load_features(settings.models.features, settings.models.batch_size)
        with self.stage(
            "space",
            "catalogue",
            space=settings.space,
            features=features.name,
            teacher=self.teacher.generator.name,
            asked=settings.teacher,
            book=settings.book,
            profile_task=settings.profile_task,
        ) as stage:
            return run_space_stage(
                stage,
                settings.profile_task,
                split,
                wals,
                features,
                self.teacher,
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
            tasks=settings.tasks,
        ) as stage:
            return run_example_stage(
                stage,
                settings.tasks,
                self.spaces.split,
                self.spaces.neighbors,
                settings.examples,
                evaluation,
                self.teacher,
                derive_seed(settings.seed, 3),
                () if stage.is_complete() else self._told(),
            )

    def _told(self) -> list[Row]:
        """What the teacher said of training films and users for the spaces, where that makes the examples."""
        settings, spaces = self.experiment, self.spaces
        if not settings.examples.from_space:
            return []
        films = films_asked_about(settings.space, spaces.split, len(spaces.catalogue.entities))
        known = set(spaces.split.entities["train"].tolist())
        told = [
            row
            for task in settings.space.tasks
            for row in self.teacher.answer(rows_about(task, films), FILM_ANSWERS).rows  # as they are in the cache
            if row["items"][0] in known
        ]
        return told + [spaces.profile_rows[user] for user in spaces.described_users("train")]

    def _reader(self) -> LocalGenerator:
        """The ELM's base, which reads titles."""
        models = self.experiment.models
        return LocalGenerator(load_model(models.reader), models.batch_size, models.length_multiple)

    def _answer(self, respondents: Respondents) -> list[SystemTexts]:
        """Stage 5: what every system writes for the held-out examples."""
        with self.stage("answers", *self._elm_stages, sampling=respondents.sampling) as stage:
            seed = derive_seed(self.experiment.seed, 5)
            told = self.examples["train"] if self.experiment.examples.from_space else ()
            answers = answer_all(stage, self.examples["test"], told, self.spaces, respondents, self.teacher, seed)
            if not stage.is_complete():
                stage.finish()
            return answers

    def _walk(self) -> list[dict[str, Any]]:
        """Stage 6: films and users that do not exist, told by the ELM of the first seed."""
        evaluation = self.experiment.evaluation
        with self.stage(
            "paths",
            self._elm_stages[0],
            curves=evaluation.curves,
            sampling=evaluation.sampling,
            bootstrap=evaluation.bootstrap,
        ) as stage:
            if not stage.is_complete():
                paths = Paths(
                    stage=stage,
                    spaces=self.spaces,
                    elm=self.elms[self.experiment.elm_seeds[0]],
                    settings=evaluation,
                    seed=derive_seed(self.experiment.seed, 6),
                )
                stage.write_json("curves.json", paths.run())
                stage.finish()
            return stage.read_json("curves.json")

    def _mix(self, respondents: Respondents) -> list[ConsistencyRecord]:
        """Stage 7: the middles of the same paths, by the ELMs and by models told with words."""
        curves = self.experiment.evaluation.curves
        with self.stage("mixtures", *self._elm_stages, curves=curves, sampling=respondents.sampling) as stage:
            seed = derive_seed(self.experiment.seed, 6)
            records = score_mixtures(stage, self.spaces, respondents, curves, seed)
            if not stage.is_complete():
                stage.finish()
            return records

    def _bound(self) -> list[dict[str, Any]]:
        """Stage 8, where training examples are asked: between what the consistency of the first ELM lies."""
        evaluation = self.experiment.evaluation
        if not evaluation.training_rows:
            return []
        with self.stage("bounds", self._elm_stages[0], evaluation=evaluation) as stage:
            if not stage.is_complete():
                elm, seed = self.elms[self.experiment.elm_seeds[0]], derive_seed(self.experiment.seed, 8)
                bounds = bound_consistency(stage, self.examples, self.spaces, elm, evaluation, seed)
                stage.write_json("bounds.json", bounds)
                stage.finish()
            return stage.read_json("bounds.json")

    def _report(
        self,
        answers: list[SystemTexts],
        mixtures: list[ConsistencyRecord],
        curves: list[dict[str, Any]],
        bounds: list[dict[str, Any]],
    ) -> Path:
        """The last stage: scores and what else a report tells."""
        evaluation = self.experiment.evaluation
        before = ["answers", "paths", "mixtures", *(["bounds"] if bounds else [])]
        with self.stage("results", *before, evaluation=evaluation) as stage:
            if not stage.is_complete():
                rows = self.examples["test"]
                records = [score(answer, rows, self.spaces) for answer in answers]
                samples = sample_rows(answers, records, rows, self.spaces, evaluation.samples_per_task)
                scored = [record for of_system in records for record in of_system]
                table = self._table([*scored, *mixtures, *score_chance(rows, self.spaces)])
                stage.write_json("consistency.json", table | ({"bounds": bounds} if bounds else {}))
                stage.write_json("curves.json", curves)
                stage.write_jsonl("samples.jsonl", samples)
                stage.write_json("facts.json", self._facts())
                stage.finish()
            return stage.path

    def _table(self, records: list[ConsistencyRecord]) -> dict[str, Any]:
        bootstrap, learned = self.experiment.evaluation.bootstrap, self.experiment.tasks
        groups = {
            "single-movie tasks": [name for name in learned if name in SINGLE_MOVIE],
            "two-movie tasks": [name for name in learned if name in TWO_MOVIES],
            **{name: [name] for name in (*learned, FILM_MIXTURE, USER_MIXTURE)},
        }
        groups = {name: tasks for name, tasks in groups.items() if tasks}
        comparisons = []
        for group, tasks in groups.items():
            others = {record.system for record in records if record.task in tasks} - {ELM, CHANCE}
            pairs = [(ELM, other) for other in sorted(others)]
            comparisons += compare_consistency(records, group, tasks, pairs, bootstrap)
        return {"groups": groups, "rows": summarize_consistency(records, groups, bootstrap), "comparisons": comparisons}

    def _facts(self) -> dict[str, Any]:
        test = self.examples["test"]
        absent = {}
        if self.spaces.catalogue.oracle is None:
            reason = f"no grammar reads the texts of {self.spaces.catalogue.name}"
            absent = {"slots": reason, "has_tag": reason}
        if not self.experiment.evaluation.curves.tags:
            absent["moves along tags"] = "evaluation.curves.tags names none"
        return {
            "world": self.spaces.world,
            "absent": absent,
            "catalogue": self.stages["catalogue"].read_json("facts.json"),
            "space": self.stages["space"].read_json("facts.json"),
            "targets": self.stages["examples"].read_json("facts.json"),
            "training": self.stages[self._elm_stages[0]].read_json("training.json"),
            "num_training_examples": len(self.examples["train"]),
            "num_test_films": len({row["items"][0] for row in test if row["user"] is None}),
            "num_test_users": len({row["user"] for row in test if row["user"] is not None}),
            "seeds": list(self.experiment.elm_seeds),
            "models": {
                "elm": [elm.name for elm in self.elms.values()],
                "reader": self._reader().name,
                "features": self.spaces.features.name,
                "teacher": self.teacher.generator.name,
            },
        }
