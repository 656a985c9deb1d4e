"""The EAGLE experiment: ratings to report, stage by stage, in one work directory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import say
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.candidate_stage import CandidateSet
from eagle_jax.eagle.ceiling.report import ceiling_sentences, make_ceiling_report
from eagle_jax.eagle.ceiling.stage import is_above_noise
from eagle_jax.eagle.dpo.update import PreferenceAgentSettings
from eagle_jax.eagle.elm_baseline.decoder import run_elm_decoder_stage
from eagle_jax.eagle.elm_baseline.search import ElmWriter, run_elm_search_stage
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.eagle.evaluation.rows import Contestants, Evaluation
from eagle_jax.eagle.evaluation.stage import run_evaluation_stage
from eagle_jax.eagle.evaluation.systems import DPO, EAGLE, ELM_DECODER, EXPERT, HEAD, PLANNER, REFERENCE
from eagle_jax.eagle.expert.stage import run_expert_stage
from eagle_jax.eagle.planner.dynamics import planner_chooser
from eagle_jax.eagle.planner.stage import run_planner_stage
from eagle_jax.eagle.policy import make_policy_fn
from eagle_jax.eagle.policy_stages import (
    check_actions_fit,
    reference_pairs,
    run_agent_stage,
    run_design_stage,
    usable_sets,
)
from eagle_jax.eagle.profile_stage import read_off_profiles
from eagle_jax.eagle.report import make_report
from eagle_jax.eagle.roles.action_choice import Chooser
from eagle_jax.eagle.roles.action_head import fit_action_head, head_chooser
from eagle_jax.eagle.roles.listed_actions import ActionList
from eagle_jax.eagle.screen import key_figure, leaving_lines, planned_stages, result_lines
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.eagle.world_run import CEILING, WorldRun
from eagle_jax.embeddings.scorer import TRAIN, Scorer
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.generation import TextGenerator
from eagle_jax.language_model.sampling.local import LocalGenerator, identity
from eagle_jax.stages.models import load_model
from eagle_jax.stages.supervised import run_reference_stage


def run_eagle(experiment: EagleExperiment, workdir: Path, stop_after: str | None = None) -> Path:
    """Runs what is not done yet and returns the path of report.html.

    stop_after: CEILING, the only stage that has a page of its own. Raises `UserError` where the settings ask for none.
    """
    if stop_after == CEILING and experiment.ceiling is None:
        raise UserError("--stop_after=ceiling: config.ceiling is None; give it the settings of this stage")
    return EagleRun(experiment, workdir).run(stop_after)


def run_to_candidates(experiment: EagleExperiment, workdir: Path) -> tuple[list[CandidateSet], Scorer]:
    """Stages 1 to 4 only: the candidates of each anchor, and the training encoder's scorer."""
    run = WorldRun(experiment, workdir)
    run.prepare_world()
    return run.propose_candidates(), run.world.scorer


def _expert(kind: str, seed: int) -> str:
    return f"expert_{kind}_{seed}"


def _planner(seed: int) -> str:
    return f"planner_{seed}"


class EagleRun(WorldRun):
    """All stages of one experiment: those of its world, then policies and their evaluation."""

    def run(self, stop_after: str | None = None) -> Path:
        self.announce(planned_stages(self.experiment, stop_after))
        for line in leaving_lines(self.experiment):
            say(line)
        self.prepare_world()
        if self.experiment.ceiling is not None:
            found = self._measure_ceiling()
            stops = self.experiment.ceiling.stops and not is_above_noise(found)
            if stops:
                logging.warning("%s config.ceiling.stops=False goes on all the same.", ceiling_sentences(found)[0])
            if stops or stop_after == CEILING:
                stage = self.stages[CEILING]
                return make_ceiling_report(self.workdir, self.experiment, self.world, stage)[0]
        proposed = self.propose_candidates()
        if self.experiment.user_space.halves:
            self._measure_reliability()
        candidates, kept = self.design(proposed)
        agents, dpo = self.experiment.agent, self.experiment.preference_agent
        references, trained = {}, {system: defaultdict(dict) for system in (EXPERT, EAGLE, DPO)}
        for kind in self.experiment.design.kinds:
            reference = self.reference(kind, candidates, kept[kind])
            references[kind] = dict.fromkeys(self.experiment.evaluation.seeds, reference)
            for seed in agents.seeds:
                start = self.start(kind, seed, reference, candidates)
                if self.experiment.expert is not None:
                    trained[EXPERT][kind][seed] = start
                trained[EAGLE][kind][seed] = self.agent(kind, seed, start, None)
                if dpo is not None:
                    trained[DPO][kind][seed] = self.agent(kind, seed, start, dpo)
        writers = {} if self.experiment.elm_baseline is None else {ELM_DECODER: self._elm_writers()}
        instructions = self.stages[CEILING].read_json("facts.json")["instructions"] if CEILING in self.stages else ()
        calls = {system: {kind: self._training_calls(system, kind) for kind in references} for system in trained}
        policies = {REFERENCE: references, **trained}
        choosers = {
            system: {seed: self.chooser(system, seed, proposed) for seed in seeds}
            for system, seeds in self.choosing().items()
        }
        if PLANNER in choosers:
            calls[PLANNER] = {None: self._mean_calls([_planner(seed) for seed in choosers[PLANNER]])}
        self._evaluate(Contestants(policies, writers, calls, instructions, choosers, self._read_off_profiles))
        html, _ = make_report(self.workdir, self.experiment, self.world, self.stages, self.seconds(), self.usage())
        for line in result_lines(self.stages["evaluation"].read_json("table.json")):
            say(line)
        return html

    def key_figure(self, stage: StageFolder) -> str:
        return key_figure(stage)

    def design(self, proposed: list[CandidateSet]) -> tuple[list[CandidateSet], dict[str, list[list[int]]]]:
        """Stage 5: the candidates that can be used, and which each kind of reference distribution
        keeps of them."""
        settings = self.experiment.design
        usable = usable_sets(proposed, settings.num_kept)
        with self.stage("design", "candidates", design=settings) as stage:
            return usable, run_design_stage(stage, self.world, usable, settings, self._seed(5))

    def reference(self, kind: str, candidates: list[CandidateSet], kept: list[list[int]]) -> LanguageModel:
        """Stage 6, for one kind of reference distribution and what it keeps of each set."""
        settings, policy = self.experiment.reference, self.experiment.policy_model
        pairs, pretrained = reference_pairs(self.world, candidates, kept), policy.pretrained()
        check_actions_fit(pretrained.tokenizer, pairs, self.experiment.agent.training.policy.max_new_tokens)
        with self.stage(
            f"reference_{kind}",
            "design",
            kind=kind,
            reference=settings,
            policy=identity(pretrained),
            policy_training=policy.training,
        ) as stage:
            return run_reference_stage(stage, policy, pairs, settings, self._seed(6))

    def start(self, kind: str, seed: int, reference: LanguageModel, candidates: list[CandidateSet]) -> LanguageModel:
        """Stage 7a, where the agents of a kind and seed begin: as the reference policy, or after it has imitated
        chosen actions."""
        settings, models = self.experiment.expert, self.experiment.models
        if settings is None:
            return reference
        horizon, world = self.experiment.agent.training.horizon, self.world
        generator = LocalGenerator(reference, models.batch_size, models.length_multiple)
        policy_fn = make_policy_fn(generator, world.book, world.entity_format, settings.sampling)
        with self.stage(_expert(kind, seed), f"reference_{kind}", seed=seed, expert=settings, horizon=horizon) as stage:
            return run_expert_stage(
                stage,
                world,
                self.experiment.policy_model,
                reference,
                policy_fn,
                candidates,
                horizon,
                settings,
                self._seed(14, seed),
            )

    def agent(
        self, kind: str, seed: int, start: LanguageModel, preference: PreferenceAgentSettings | None
    ) -> LanguageModel:
        """Stage 7, for one kind of reference policy and one seed: by REINFORCE, or by DPO where
        `preference` has its settings; both start and are validated alike."""
        settings = self.experiment.agent
        shared = {"training": settings.training, "num_validation_starts": settings.num_validation_starts}
        name = f"agent_{kind}_{seed}"
        if preference is not None:
            name, shared = f"preference_{name}", shared | {"preference_agent": preference}
        policy = self.experiment.policy_model
        before = f"reference_{kind}" if self.experiment.expert is None else _expert(kind, seed)
        with self.stage(name, before, seed=seed, **shared) as stage:
            return run_agent_stage(stage, self.world, start, policy, settings, preference, self._seed(7, seed))

    def choosing(self) -> dict[str, Sequence[int]]:
        """Who chooses among known actions, with their seeds: the head where there is a list, planners where they are
        asked for."""
        settings, found = self.experiment, {}
        if settings.listed_actions is not None:
            found[HEAD] = (0,)
        if settings.planner is not None:
            found[PLANNER] = settings.agent.seeds
        return found

    def chooser(self, system: str, seed: int, candidates: list[CandidateSet]) -> Chooser:
        """One of `choosing`."""
        if system == PLANNER:
            return self._train_planner(seed, candidates)
        listed = ActionList.read(self.experiment.listed_actions, self.world.entity_format)
        head = fit_action_head(self.world, candidates, {action for _, action in listed.actions})
        return head_chooser(head, self.world.environment.field_changes)

    def _train_planner(self, seed: int, candidates: list[CandidateSet]) -> Chooser:
        """Stage 7b, for one seed."""
        settings, horizon = self.experiment.planner, self.experiment.agent.training.horizon
        batch_size = self.experiment.models.batch_size
        with self.stage(_planner(seed), "candidates", seed=seed, planner=settings, horizon=horizon) as stage:
            dynamics = run_planner_stage(
                stage, self.world, candidates, horizon, batch_size, settings, self._seed(15, seed)
            )
        return planner_chooser(dynamics)

    def _read_off_profiles(self) -> np.ndarray:
        """Embeddings of users as their profiles tell them [U, d]."""
        world, features = self.world, self.features[TRAIN]
        users, probe = world.scorer.user_embeddings, self.experiment.domain_encoder
        return read_off_profiles(world.profiles, world.split, features, users, probe, self._seed(3))

    def _training_calls(self, system: str, kind: str) -> float:
        """Environment calls of a system's training, imitation included, mean over seeds; 0: it was not trained."""
        stages = {EXPERT: (), EAGLE: (f"agent_{kind}_",), DPO: (f"preference_agent_{kind}_",)}[system]
        seeds = self.experiment.agent.seeds
        names = [_expert(kind, seed) for seed in seeds] + [f"{stage}{seed}" for stage in stages for seed in seeds]
        return self._mean_calls([name for name in names if name in self.stages])

    def _mean_calls(self, names: Sequence[str]) -> float:
        """Environment calls that these stages count, for each of the agents' seeds."""
        found = [self.stages[name].read_json("facts.json")["environment_calls"] for name in names]
        return sum(found) / len(self.experiment.agent.seeds)

    def _elm_writers(self) -> dict[int, ElmWriter]:
        """ELM as the baseline: a decoder for each seed, and where all of them are asked."""
        experiment, settings = self.experiment, self.experiment.elm_baseline
        base = load_model(settings.decoder.reader, mesh=experiment.mesh)
        embeddings = np.asarray(self.user_space.wals.item_embeddings)
        decoders = {}
        for seed in settings.seeds:
            with self.stage(
                f"elm_{seed}", "encoders", decoder=settings.decoder, seed=seed, reader=identity(base)
            ) as stage:
                decoders[seed] = run_elm_decoder_stage(
                    stage, self.world, base, embeddings, experiment.models, settings.decoder, self._seed(9, seed)
                )
        of_seeds = [f"elm_{seed}" for seed in decoders]
        bootstrap = experiment.evaluation.bootstrap
        with self.stage(
            "elm_search", "profiles", *of_seeds, search=settings.search, utility=experiment.utility, bootstrap=bootstrap
        ) as stage:
            return run_elm_search_stage(
                stage, self.world, embeddings, decoders, settings.search, bootstrap, self._seed(10)
            )

    def evaluation(self, transfer: LLMEnvironment | None, rater: TextGenerator | None) -> Evaluation:
        """What stage 8 plays, with another environment and a rater where there are any."""
        settings = self.experiment
        return Evaluation(
            self.world, settings.models, settings.agent.training, settings.evaluation, transfer, rater, self._seed(8)
        )

    def _evaluate(self, contestants: Contestants) -> None:
        """Stage 8: in the training environment and, where asked for, another one; then rated."""
        settings = self.experiment.evaluation
        other = settings.transfer_environment
        transfer = None if other is None else self._environment(other)
        rater = None if settings.rater is None else self.generator(self.experiment.models.rater)
        of_policies = ("agent_", "preference_agent_", "expert_", "planner_", "reference_", "elm_search")
        before = [name for name in self.stages if name.startswith(of_policies) or name == CEILING]
        with self.stage(
            "evaluation",
            *before,
            evaluation=settings,
            rater=None if rater is None else rater.name,
            transfer=None if transfer is None else transfer.generator.name,
        ) as stage:
            run_evaluation_stage(stage, self.evaluation(transfer, rater), contestants)
