"""From the work directory of a finished run to its best agent; nothing is written into its stages."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

from eagle_jax.base.errors import UserError
from eagle_jax.eagle.evaluation.systems import HEAD
from eagle_jax.eagle.policy_stages import validation_gain
from eagle_jax.eagle.run import EagleRun
from eagle_jax.eagle.serving.agent import Agent
from eagle_jax.eagle.serving.rating_intervals import fit_rating_predictor
from eagle_jax.eagle.serving.users import UserDirectory, meant
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN
from eagle_jax.language_model.generation import TextGenerator
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.stages.finished_run import AGAIN, FinishedStages, finished_settings

ACTION_HEAD = "action_head"  # the agent that no stage trained


def load_agent(workdir: str | Path, agent: str | None = None) -> Agent:
    """The agent of a finished run of experiments.eagle, ready to `propose`.

    agent: the name of its stage, as agent_g_optimal_0 or planner_0, or action_head: the head over the listed actions of
    a run that has a list; None: the planner of the largest gain in its last round, and in a run without planners the
    agent whose best checkpoint had the largest mean gain in U on its validation starts. Raises `UserError` where the
    folder is of something else, or the run is not finished.
    """
    return load_with_reference(workdir, agent)[0]


def load_with_reference(workdir: str | Path, agent: str | None = None) -> tuple[Agent, TextGenerator]:
    """As `load_agent`, with the reference policy that the agent's training began from."""
    run = _FinishedRun(read_experiment(Path(workdir)), Path(workdir))
    trained, choosing = run.agents(), run.named_choosers()
    names = [*trained, *choosing]
    if agent is not None and agent not in names:
        raise UserError(f"{workdir}: has no agent {agent!r}{meant(agent, names)}; it has {', '.join(names)}")
    planners = [name for name in choosing if name != ACTION_HEAD]
    if agent is None:
        agent = max(planners, key=run.last_gain) if planners else max(trained, key=run.validation_gain)
    if agent in choosing:
        return run.load(next(iter(trained.values())), agent)
    return run.load(trained[agent])


def read_experiment(workdir: Path) -> EagleExperiment:
    """The settings that a finished run was made with, from its results.json."""
    return finished_settings(workdir, "eagle", EagleExperiment)


class _Trained(NamedTuple):
    """Which of a run's agents."""

    name: str
    kind: str
    seed: int
    by_preferences: bool


class _FinishedRun(FinishedStages, EagleRun):
    """Reads what a run made, and makes nothing."""

    answers_file = "proposals.sqlite"  # what proposals cost is not what the run did

    def agents(self) -> dict[str, _Trained]:
        """By the names of their stages."""
        experiment = self.experiment
        ways = ("", False), ("preference_", True)
        found = [
            _Trained(f"{prefix}agent_{kind}_{seed}", kind, seed, by_preferences)
            for kind in experiment.design.kinds
            for seed in experiment.agent.seeds
            for prefix, by_preferences in ways[: 1 if experiment.preference_agent is None else 2]
        ]
        return {one.name: one for one in found}

    def named_choosers(self) -> dict[str, tuple[str, int]]:
        """System and seed of those who choose among known actions, by how they are asked for."""
        return {
            ACTION_HEAD if system == HEAD else f"planner_{seed}": (system, seed)
            for system, seeds in self.choosing().items()
            for seed in seeds
        }

    def last_gain(self, planner: str) -> float:
        """Of the episodes of its last round; below all others where it had none."""
        path = self.workdir / planner / "facts.json"
        if not path.is_file():
            raise UserError(f"{path}: is not there, so its run is not finished: {AGAIN}")
        rounds = json.loads(path.read_bytes())["rounds"]
        return rounds[-1]["gain"] if rounds else -math.inf

    def validation_gain(self, name: str) -> float:
        """Of the checkpoint that was kept; raises `UserError` where there is none."""
        gain = validation_gain(self.workdir / name)
        if gain is None:
            raise UserError(f"{self.workdir / name}: has no validation, so its run is not finished: {AGAIN}")
        return gain

    def load(self, chosen: _Trained, choosing: str | None = None) -> tuple[Agent, LocalGenerator]:
        """The agent with all that it needs, and its reference policy; choosing: who acts in its policy's place."""
        settings = self.experiment
        self.prepare_world()
        proposed = self.propose_candidates()
        candidates, kept = self.design(proposed)
        preference = settings.preference_agent if chosen.by_preferences else None
        reference = self.reference(chosen.kind, candidates, kept[chosen.kind])
        start = self.start(chosen.kind, chosen.seed, reference, candidates)
        policy = self.agent(chosen.kind, chosen.seed, start, preference)
        models, world = settings.models, self.world
        ratings, facts = fit_rating_predictor(
            self.user_space.wals, world.scorers[HELD_OUT].catalogue_embeddings, world.split
        )
        catalogue = world.catalogue
        names = catalogue.ratings.user_names
        starts = self.evaluation(None, None).starts()
        chooser = None
        if choosing is not None:
            chooser = self.chooser(*self.named_choosers()[choosing], proposed)
        agent = Agent(
            name=choosing or chosen.name,
            catalogue=catalogue,
            policy=LocalGenerator(policy, models.batch_size, models.length_multiple),
            policy_sampling=settings.agent.training.policy,
            environment=world.environment,
            horizon=settings.agent.training.horizon,
            batch_size=models.batch_size,
            scorers={encoder: world.scorers[encoder] for encoder in (TRAIN, HELD_OUT)},  # others know no new users
            quality=world.quality,
            chooser=chooser,
            ratings=ratings,
            users=UserDirectory(
                catalogue=catalogue,
                space=self.user_space,
                profiles=world.profiles,
                profile_settings=settings.profiles,
                data_profiles=settings.data_profiles,
                profile_writer=self.generator(models.generator),
                book=world.book,
                has_groups=settings.profile_groups is not None,
            ),
            evaluated=[(catalogue.entities[start.entity_index].entity_id, names[start.user_index]) for start in starts],
            facts=facts,
            instructions=sorted({action for of_entity in proposed for action, _ in of_entity.applied()}),
        )
        return agent, LocalGenerator(reference, models.batch_size, models.length_multiple)
