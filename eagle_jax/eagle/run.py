"""The EAGLE experiment: ratings to report, stage by stage, in one work directory."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.prompts import PROMPT_BOOKS
from eagle_jax.data.sources import fingerprint, load_catalogue
from eagle_jax.data.splits import split_catalogue
from eagle_jax.eagle.candidate_stage import CandidateSet, run_candidate_stage
from eagle_jax.eagle.candidates import ProposalContext
from eagle_jax.eagle.dpo.update import PreferenceAgentSettings
from eagle_jax.eagle.elm_baseline.decoder import run_elm_decoder_stage
from eagle_jax.eagle.elm_baseline.search import ElmWriter, run_elm_search_stage
from eagle_jax.eagle.encoder_stage import run_encoder_stage
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.eagle.episodes import Episodes
from eagle_jax.eagle.evaluation.rows import (
    DPO,
    EAGLE,
    ELM_DECODER,
    REFERENCE,
    Contestants,
    Evaluation,
    run_evaluation_stage,
)
from eagle_jax.eagle.policy_stages import reference_pairs, run_agent_stage, run_design_stage, usable_sets
from eagle_jax.eagle.profile_stage import run_profile_stage
from eagle_jax.eagle.report import make_report
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN, Scorer
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.generation import TextGenerator
from eagle_jax.language_model.sampling.local import identity
from eagle_jax.stages.catalogue import run_catalogue_stage
from eagle_jax.stages.models import load_features, load_model
from eagle_jax.stages.run import Run
from eagle_jax.stages.supervised import run_reference_stage


def run_eagle(experiment: EagleExperiment, workdir: Path) -> Path:
    """Runs what is not done yet and returns the path of report.html."""
    return EagleRun(experiment, workdir).run()


def run_to_candidates(experiment: EagleExperiment, workdir: Path) -> tuple[list[CandidateSet], Scorer]:
    """Stages 1 to 4 only: the candidates of each anchor, and the training encoder's scorer."""
    run = EagleRun(experiment, workdir)
    run.prepare_world()
    return run.propose_candidates(), run.scorers[TRAIN]


class EagleRun(Run):
    """The stages of one experiment: their names and what each one reads."""

    experiment_name = "eagle"

    def __init__(self, experiment: EagleExperiment, workdir: Path):
        super().__init__(
            workdir,
            {"prompts": experiment.prompts, "experiment_seed": experiment.seed},
            models=experiment.models,
            mesh=experiment.mesh,
            remote=experiment.remote_models(),
        )
        self.experiment = experiment
        self.book = PROMPT_BOOKS[experiment.prompts]

    def run(self) -> Path:
        self.prepare_world()
        self.design(self.propose_candidates())
        references, agents, preference_agents = {}, defaultdict(dict), defaultdict(dict)
        preference = self.experiment.preference_agent
        calls = {}
        for kind in self.experiment.design.kinds:
            reference = self.reference(kind)
            references[kind] = dict.fromkeys(self.experiment.evaluation.seeds, reference)
            for seed in self.experiment.agent.seeds:
                agents[kind][seed] = self.agent(kind, seed, reference, None)
                if preference is not None:
                    agent = self.agent(kind, seed, reference, preference)
                    preference_agents[kind][seed] = agent
            spent = [
                self.stages[f"agent_{kind}_{seed}"].read_json("facts.json")["environment_calls"]
                for seed in self.experiment.agent.seeds
            ]
            calls[kind] = sum(spent) / max(len(spent), 1)
        policies = {REFERENCE: references, EAGLE: agents, DPO: preference_agents}
        writers = {} if self.experiment.elm_baseline is None else {ELM_DECODER: self._elm_writers()}
        self._evaluate(Contestants(policies, writers, calls))
        html, _ = make_report(
            self.workdir,
            self.experiment,
            self.catalogue,
            self.stages,
            self.scorers[TRAIN],
            self.seconds(),
            self.usage(),
        )
        return html

    def prepare_world(self) -> None:
        """Stages 1 to 3: ratings, encoders, profiles."""
        settings = self.experiment
        self.catalogue, load_report = load_catalogue(settings.catalogue)
        self.split = split_catalogue(self.catalogue, settings.split)
        with self.stage(
            "catalogue", data=fingerprint(self.catalogue), split=settings.split, wals=settings.wals
        ) as stage:
            seed = derive_seed(settings.seed, 1)
            self.wals = run_catalogue_stage(stage, self.catalogue, load_report, self.split, settings.wals, seed)
        models = {TRAIN: settings.models.features, HELD_OUT: settings.models.held_out_features}
        heads = {TRAIN: settings.domain_encoder, HELD_OUT: settings.held_out_domain_encoder}
        features = {
            name: load_features(model, settings.models.batch_size, settings.models.dtype, settings.mesh)
            for name, model in models.items()
        }
        with self.stage(
            "encoders", "catalogue", heads=heads, models={name: encoder.name for name, encoder in features.items()}
        ) as stage:
            self.scorers = run_encoder_stage(
                stage,
                self.catalogue,
                self.split,
                self.wals,
                features,
                heads,
                settings.utility,
                derive_seed(settings.seed, 2),
            )
        writer = self.generator(settings.models.generator)
        with self.stage("profiles", "encoders", profiles=settings.profiles, model=writer.name) as stage:
            self.profiles = run_profile_stage(
                stage,
                self.catalogue,
                self.split,
                writer,
                self.book,
                settings.profiles,
                features[TRAIN],
                self.scorers[TRAIN].user_embeddings,
                settings.domain_encoder,
                derive_seed(settings.seed, 3),
            )

    def propose_candidates(self) -> list[CandidateSet]:
        """Stage 4: candidate actions and what each makes of its anchor."""
        settings = self.experiment
        self.environment = self._environment(settings.models.environment)
        context = ProposalContext(
            self.generator(settings.models.generator),
            self.book,
            self.catalogue.entity_format,
            settings.candidates.sampling,
            [self.profiles[int(user)] for user in self.split.users["train"]],
        )
        with self.stage(
            "candidates",
            "profiles",
            candidates=settings.candidates,
            utility=settings.utility,
            environment=settings.environment,
            generator=context.generator.name,
            environment_model=self.environment.generator.name,
        ) as stage:
            return run_candidate_stage(
                stage,
                self.catalogue,
                self.split,
                self.profiles,
                context,
                self.environment,
                self.scorers[TRAIN],
                settings.candidates,
                derive_seed(settings.seed, 4),
            )

    def design(self, proposed: list[CandidateSet]) -> None:
        """Stage 5: which candidates each kind of reference distribution keeps."""
        settings = self.experiment
        self.candidates = usable_sets(proposed, settings.design.num_kept)
        with self.stage("design", "candidates", design=settings.design) as stage:
            self.kept = run_design_stage(
                stage,
                self.catalogue,
                self.candidates,
                self.scorers[TRAIN],
                settings.design,
                derive_seed(settings.seed, 5),
            )
        self.episodes = Episodes(
            self.catalogue,
            self.book,
            self.environment,
            self.profiles,
            self.scorers[TRAIN],
            self.split.entities,
            self.split.users,
        )

    def reference(self, kind: str) -> LanguageModel:
        """Stage 6, for one kind of reference distribution."""
        settings = self.experiment.reference
        pairs = reference_pairs(self.catalogue, self.book, self.profiles, self.candidates, self.kept[kind])
        policy, training = self.experiment.models.policy, self.experiment.policy_training
        with self.stage(
            f"reference_{kind}",
            "design",
            kind=kind,
            reference=settings,
            policy=self.generator(policy, dtype=training.dtype).name,
            policy_training=training,
        ) as stage:
            seed = derive_seed(self.experiment.seed, 6)
            return run_reference_stage(stage, policy, self.experiment.mesh, pairs, settings, training, seed)

    def agent(
        self, kind: str, seed: int, reference: LanguageModel, preference: PreferenceAgentSettings | None
    ) -> LanguageModel:
        """Stage 7, for one kind of reference policy and one seed: by REINFORCE, or by DPO where
        `preference` has its settings; both start and are validated alike."""
        settings = self.experiment.agent
        shared = {"training": settings.training, "num_validation_starts": settings.num_validation_starts}
        name = f"agent_{kind}_{seed}"
        if preference is not None:
            name, shared = f"preference_{name}", shared | {"preference_agent": preference}
        with self.stage(name, f"reference_{kind}", seed=seed, **shared) as stage:
            agent_seed = derive_seed(self.experiment.seed, 7, seed)
            return run_agent_stage(
                stage,
                reference,
                self.experiment.models.policy,
                self.experiment.mesh,
                self.episodes,
                settings,
                preference,
                self.experiment.policy_training,
                agent_seed,
            )

    def _elm_writers(self) -> dict[int, ElmWriter]:
        """ELM as the baseline: a decoder for each seed, and where all of them are asked."""
        experiment, settings = self.experiment, self.experiment.elm_baseline
        base = load_model(settings.decoder.reader, mesh=experiment.mesh)
        embeddings = np.asarray(self.wals.item_embeddings)
        decoders = {}
        for seed in settings.seeds:
            with self.stage(
                f"elm_{seed}", "encoders", decoder=settings.decoder, seed=seed, reader=identity(base)
            ) as stage:
                decoders[seed] = run_elm_decoder_stage(
                    stage,
                    base,
                    self.catalogue,
                    self.split,
                    embeddings,
                    self.book,
                    self.scorers[TRAIN],
                    experiment.models,
                    settings.decoder,
                    derive_seed(experiment.seed, 9, seed),
                )
        of_seeds = [f"elm_{seed}" for seed in decoders]
        bootstrap = experiment.evaluation.bootstrap
        with self.stage(
            "elm_search", "profiles", *of_seeds, search=settings.search, utility=experiment.utility, bootstrap=bootstrap
        ) as stage:
            return run_elm_search_stage(
                stage,
                self.episodes,
                embeddings,
                decoders,
                self.scorers,
                settings.search,
                bootstrap,
                derive_seed(experiment.seed, 10),
            )

    def evaluation(self, transfer: LLMEnvironment | None, rater: TextGenerator | None) -> Evaluation:
        """What stage 8 plays, with another environment and a rater where there are any."""
        settings = self.experiment
        return Evaluation(
            self.episodes,
            self.scorers,
            settings.models,
            settings.agent.training,
            settings.evaluation,
            transfer,
            rater,
            derive_seed(settings.seed, 8),
        )

    def _evaluate(self, contestants: Contestants) -> None:
        """Stage 8: in the training environment and, where asked for, another one; then rated."""
        settings = self.experiment
        other = settings.evaluation.transfer_environment
        transfer = None if other is None else self._environment(other)
        asked = settings.evaluation.rater is not None
        rater = self.generator(settings.models.rater) if asked else None
        of_policies = ("agent_", "preference_agent_", "reference_", "elm_search")
        before = [name for name in self.stages if name.startswith(of_policies)]
        with self.stage(
            "evaluation",
            *before,
            evaluation=settings.evaluation,
            rater=None if rater is None else rater.name,
            transfer=None if transfer is None else transfer.generator.name,
        ) as stage:
            run_evaluation_stage(stage, self.evaluation(transfer, rater), contestants)

    def _environment(self, name: str) -> LLMEnvironment:
        """The environment that a model plays."""
        return LLMEnvironment(
            generator=self.generator(name, mesh=self.experiment.environment_mesh),
            book=self.book,
            entity_format=self.catalogue.entity_format,
            sampling=self.experiment.environment,
        )
