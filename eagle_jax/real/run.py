"""The REAL experiment: which pairs of responses to label, stage by stage, in one work directory."""

from __future__ import annotations

from pathlib import Path

from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.minilens.requests import answer_compare
from eagle_jax.data.preferences.examples import PreferenceExample
from eagle_jax.data.prompts import PROMPT_BOOKS
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.generation import ScriptedGenerator, TextGenerator
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.real.labels import Labeller
from eagle_jax.real.report_stage import make_real_report
from eagle_jax.real.selection.embeddings import make_embed_fn, stability_pairs
from eagle_jax.real.selection.stage import PairChooser, run_embeddings_stage, run_selection_stage
from eagle_jax.real.settings import GRAMMAR_RATER, POLICY, RealExperiment
from eagle_jax.real.task import files_task, minilens_task, run_responses_stage, supervised_pairs
from eagle_jax.real.training.runs import PolicyRuns, RunPlan, StartMeasures
from eagle_jax.stages.models import load_model
from eagle_jax.stages.run import ExperimentRun
from eagle_jax.stages.supervised import run_reference_stage


def run_real(experiment: RealExperiment, workdir: Path) -> Path:
    """Runs what is not done yet and returns the path of report.html."""
    return RealRun(experiment, workdir).run()


class RealRun(ExperimentRun):
    """The stages of one experiment: their names and what each one reads."""

    experiment_name = "real"
    experiment: RealExperiment

    def run(self) -> Path:
        """All stages and the report, whose path it returns."""
        experiment, start = self.experiment, self.prepare()
        followed = stability_pairs(experiment, self.policy, self.examples["test"])
        plans = [plan for seed in experiment.seeds for plan in self.plans(seed)]
        for plan in plans:
            with self.stage(
                plan.stage_name,
                f"pairs_{plan.seed}",
                "start",
                **plan.place,
                training=experiment.training,
                policy_training=experiment.policy_training,
                evaluation=experiment.evaluation,
            ) as stage:
                self.runs.run(stage, plan, start, followed)
        return make_real_report(self.workdir, experiment, self.task, self.stages, plans, start)

    def prepare(self) -> StartMeasures:
        """What comes before any label: the task, the supervised start, responses and embeddings; what runs are
        compared with."""
        experiment = self.experiment
        base = load_model(experiment.models.policy, experiment.policy_training.dtype, experiment.mesh)
        seed = derive_seed(experiment.seed, 0)
        if experiment.minilens is not None:
            self.task = minilens_task(experiment.minilens, seed)
        else:
            self.task = files_task(experiment.files, base.tokenizer, experiment.training.max_prompt_tokens, seed)
        self.policy = self._supervised(base)
        self.examples = self._responses()
        self._embed()
        rater = None if experiment.rater is None else self._generator(experiment.rater.model)
        self.runs = PolicyRuns(experiment, self.task, self.policy, self.examples, rater)
        with self.stage("start", "responses", evaluation=experiment.evaluation, training=experiment.training) as stage:
            return self.runs.start(stage)

    def _supervised(self, base: LanguageModel) -> LanguageModel:
        """Stage 1: the policy's model after next-token prediction."""
        settings = self.experiment.supervised
        if settings is None:
            return base
        seed = derive_seed(self.experiment.seed, 1)
        pairs = supervised_pairs(
            self.task, self.experiment.minilens, base.tokenizer, self.experiment.training.max_tokens, seed
        )
        with self.stage(
            "supervised",
            model=self._generator(self.experiment.models.policy).name,
            supervised=settings,
            policy_training=self.experiment.policy_training,
        ) as stage:
            return run_reference_stage(stage, self.experiment.policy_model, pairs, settings, seed)

    def _responses(self) -> dict[str, list[PreferenceExample]]:
        """Stage 2: K responses to each prompt."""
        settings, training = self.experiment.generation, self.experiment.training
        generator = None if settings is None else self._generator(settings.generator)
        with self.stage(
            "responses",
            *self.stages,
            source=self.experiment.minilens or self.experiment.files,
            generation=settings,
            generator=None if generator is None else generator.name,
            max_prompt_tokens=training.max_prompt_tokens,
            max_tokens=training.max_tokens,
        ) as stage:
            seed = derive_seed(self.experiment.seed, 2)
            return run_responses_stage(stage, self.task, generator, settings, seed, self.policy.tokenizer, training)

    def _embed(self) -> None:
        """Stage 3: what each response is to the selection."""
        settings = self.experiment.embeddings
        embed_fns = {
            name: make_embed_fn(encoder_settings, self.policy, self.experiment)
            for name, encoder_settings in settings.items()
        }
        with self.stage(
            "embeddings",
            "responses",
            embeddings=settings,
            models={name: embed_fn.name for name, embed_fn in embed_fns.items()},
        ) as stage:
            self.embeddings = run_embeddings_stage(stage, self.examples["train"], embed_fns, settings)

    def plans(self, seed: int) -> list[RunPlan]:
        """Stage 4, for one seed: labelled pairs, and the runs that they are for."""
        experiment = self.experiment
        own_seed = derive_seed(experiment.seed, 3, seed)
        choosers = {
            name: PairChooser(embeddings, experiment.selection, own_seed)
            for name, embeddings in self.embeddings.items()
        }
        labeller = Labeller(
            self.examples["train"],
            experiment.labels,
            self.runs.rater,
            experiment.rater and experiment.rater.sampling,
            PROMPT_BOOKS[experiment.prompts],
            own_seed,
        )
        with self.stage(
            f"pairs_{seed}",
            "embeddings",
            seed=seed,
            selection=experiment.selection,
            labels=experiment.labels,
            rater=None if self.runs.rater is None else self.runs.rater.name,
            training=experiment.training,
            num_labels=experiment.num_labels[-1],
        ) as stage:
            chosen = run_selection_stage(
                stage,
                choosers,
                labeller,
                experiment.num_labels[-1],
                lambda pairs: self.runs.rewards_after(stage, pairs, seed),
            )
        return [
            RunPlan(strategy=name, num_labels=count, seed=seed, pairs=pairs[:count])
            for name, pairs in chosen.items()
            for count in experiment.num_labels
        ]

    def _generator(self, name: str) -> TextGenerator:
        """The text generator that a name stands for: the scripted teacher, the policy after
        stage 1, or a model as `Run` finds it."""
        models = self.experiment.models
        if name == GRAMMAR_RATER:
            return ScriptedGenerator(answer_compare, GRAMMAR_RATER)
        if name == POLICY:
            return LocalGenerator(self.policy, models.batch_size, models.length_multiple)
        return self.generator(name)
