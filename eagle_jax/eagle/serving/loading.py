"""From the work directory of a finished run to its best agent; nothing is written into its stages."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from eagle_jax.base.errors import UserError
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

    agent: the name of its stage, as agent_g_optimal_0, or action_head: the head over the listed actions of a run that
    has a list; None: the stage whose best checkpoint had the largest mean gain in U on its validation starts. Raises
    `UserError` where the folder is of something else, or the run is not finished.
    """
    return load_with_reference(workdir, agent)[0]


def load_with_reference(workdir: str | Path, agent: str | None = None) -> tuple[Agent, TextGenerator]:
    """As `load_agent`, with the reference policy that the agent's training began from."""
    run = _FinishedRun(read_experiment(Path(workdir)), Path(workdir))
    trained = run.agents()
    names = [*trained, *([ACTION_HEAD] if run.experiment.listed_actions is not None else [])]
    if agent is not None and agent not in names:
        raise UserError(f"{workdir}: has no agent {agent!r}{meant(agent, names)}; it has {', '.join(names)}")
    if agent == ACTION_HEAD:
        return run.load(next(iter(trained.values())), has_head=True)
    return run.load(trained[agent or max(trained, key=run.validation_gain)])


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

    def validation_gain(self, name: str) -> float:
        """Of the checkpoint that was kept; raises `UserError` where there is none."""
        gain = validation_gain(self.workdir / name)
        if gain is None:
            raise UserError(f"{self.workdir / name}: has no validation, so its run is not finished: {AGAIN}")
        return gain

    def load(self, chosen: _Trained, has_head: bool = False) -> tuple[Agent, LocalGenerator]:
        """The agent with all that it needs, and its reference policy; has_head: with the head over listed actions in
        its policy's place."""
        settings = self.experiment
        self.prepare_world()
        candidates, kept = self.design(self.propose_candidates())
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
        agent = Agent(
            name=ACTION_HEAD if has_head else chosen.name,
            catalogue=catalogue,
            policy=LocalGenerator(policy, models.batch_size, models.length_multiple),
            policy_sampling=settings.agent.training.policy,
            environment=world.environment,
            horizon=settings.agent.training.horizon,
            batch_size=models.batch_size,
            scorers={encoder: world.scorers[encoder] for encoder in (TRAIN, HELD_OUT)},  # others know no new users
            quality=world.quality,
            head=self.action_head(candidates) if has_head else None,
            ratings=ratings,
            users=UserDirectory(
                catalogue=catalogue,
                space=self.user_space,
                profiles=world.profiles,
                profile_settings=settings.profiles,
                data_profiles=settings.data_profiles,
                profile_writer=self.generator(models.generator),
                book=world.book,
            ),
            evaluated=[(catalogue.entities[start.entity_index].entity_id, names[start.user_index]) for start in starts],
            facts=facts,
        )
        return agent, LocalGenerator(reference, models.batch_size, models.length_multiple)
