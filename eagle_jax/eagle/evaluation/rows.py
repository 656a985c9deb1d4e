"""The rows of the evaluation: who plays which episodes on the same held-out starts."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.film_fields import with_fields_of
from eagle_jax.eagle.agent.state import EagleSettings
from eagle_jax.eagle.environment import LLMEnvironment, Start, Step
from eagle_jax.eagle.evaluation.episodes import (
    EpisodeRecord,
    Judging,
    equal_call_episodes,
    evaluate_played,
    evaluate_policy,
)
from eagle_jax.eagle.evaluation.other_users import other_users, with_profiles_of, with_profiles_of_others
from eagle_jax.eagle.evaluation.rater import rate_episodes
from eagle_jax.eagle.evaluation.search import search_greedily, searched_records
from eagle_jax.eagle.evaluation.systems import (
    ANCHOR,
    BEST_OF_N,
    EAGLE,
    FIELD_CHANGES,
    FOR_OTHERS,
    GREEDY_SEARCH,
    HOME,
    ONE_FOR_ALL,
    REFERENCE,
    TRANSFER,
    EvalRow,
    by_profile,
    for_others,
)
from eagle_jax.eagle.evaluation.untrained import best_field_changes, listed_policy
from eagle_jax.eagle.policy import make_policy_fn
from eagle_jax.eagle.roles.action_choice import Chooser
from eagle_jax.eagle.rollout import PolicyFn
from eagle_jax.eagle.settings import EvaluationSettings, ModelSettings
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.generation import SamplingSettings, TextGenerator
from eagle_jax.language_model.sampling.local import LocalGenerator

# (starts, seed) -> their texts; the anchor where malformed.
WriterFn = Callable[[Sequence[Start], int], list[Step]]
PlayFn = Callable[[], list[EpisodeRecord]]
_EQUAL_CALLS = {"test_calls": "equal calls", "all_calls": "equal calls with training"}


@dataclasses.dataclass(frozen=True)
class Contestants:
    """Who is evaluated, and what the agents' training cost.

    policies: system -> kind of reference policy (None: of none) -> seed -> model. writers: of texts
    without an environment, system -> seed -> function. instructions: of the ceiling, the best for all
    of its pairs first; empty: it was not asked for. choosers: system -> seed -> who chooses among known actions.
    read_off_profiles: z_u as profiles tell it [U, d], which only choosers are told.
    """

    policies: Mapping[str, Mapping[str | None, Mapping[int, LanguageModel]]]
    writers: Mapping[str, Mapping[int, WriterFn]]
    training_calls: Mapping[str, Mapping[str | None, float]]  # system -> kind -> environment calls, mean over seeds
    instructions: Sequence[str] = ()
    choosers: Mapping[str, Mapping[int, Chooser]] = dataclasses.field(default_factory=dict)
    read_off_profiles: Callable[[], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Runs the rows; each (row, seed) is one resumable chunk of the stage."""

    world: EagleWorld
    models: ModelSettings
    agent: EagleSettings
    settings: EvaluationSettings
    transfer_environment: LLMEnvironment | None
    rater: TextGenerator | None
    seed: int

    def starts(self) -> list[Start]:
        """The same held-out (anchor, user) pairs for all rows."""
        rng = np.random.default_rng(derive_seed(self.seed, 0))
        return self.world.draw_starts("test", rng, self.settings.num_starts)

    def rows(self, contestants: Contestants) -> dict[EvalRow, dict[int, PlayFn]]:
        """Row -> seed -> how to get its records."""
        starts, judging = self.starts(), self.judging
        rows: dict[EvalRow, dict[int, PlayFn]] = {
            EvalRow(system=ANCHOR, environment=None): {
                0: lambda: evaluate_played(judging, starts, 0, [()] * len(starts))
            }
        }
        for system, writers in contestants.writers.items():
            rows[EvalRow(system=system)] = {
                seed: lambda seed=seed, write=write: evaluate_played(
                    judging, starts, seed, [(text,) for text in write(starts, derive_seed(self.seed, 4, seed))]
                )
                for seed, write in writers.items()
            }
        rows |= self._untrained(contestants.instructions, starts)
        environments = {HOME: self.world.environment}
        if self.transfer_environment is not None:
            environments[TRANSFER] = self.transfer_environment
        kinds = dict.fromkeys(kind for models in contestants.policies.values() for kind in models)
        for place, environment in environments.items():
            for kind in kinds if place == HOME else self.settings.extra_kinds:
                for system, models in contestants.policies.items():
                    if kind in models:
                        rows[EvalRow(system=system, kind=kind, environment=place)] = self._played(
                            self._policies(models[kind]), starts, environment, self.agent.horizon
                        )
        for kind in self.settings.extra_kinds:
            if agents := contestants.policies[EAGLE].get(kind):
                of_others = self._played(
                    self._policies(agents), with_profiles_of_others(starts), environments[HOME], self.agent.horizon
                )
                rows[EvalRow(system=FOR_OTHERS, kind=kind)] = {
                    seed: lambda play=play: with_profiles_of(starts, play()) for seed, play in of_others.items()
                }
            for budget in self.settings.best_of_n:
                horizon, count = self._budget(budget, contestants.training_calls[EAGLE][kind])
                words = f"{count} x {horizon} {'step' if horizon == 1 else 'steps'} ({_EQUAL_CALLS[budget]})"
                for system, models in contestants.policies.items():
                    # With as many calls as its training took, an agent may be served as its reference policy is.
                    if system != REFERENCE and (budget != "all_calls" or kind not in models):
                        continue
                    policy = None if system == REFERENCE else system
                    rows[EvalRow(system=BEST_OF_N, kind=kind, budget=words, policy=policy)] = self._played(
                        self._policies(models[kind], self.settings.best_of_n_sampling),
                        starts,
                        environments[HOME],
                        horizon,
                        best_of=count,
                    )
            for system, models in contestants.policies.items():
                if kind in models:
                    row = EvalRow(system=GREEDY_SEARCH, kind=kind, policy=None if system == REFERENCE else system)
                    policies = self._policies(models[kind], self.settings.best_of_n_sampling)
                    rows |= self._searches(row, policies, contestants.training_calls, starts)
        return rows | self._choosing(contestants, starts)

    def _choosing(self, contestants: Contestants, starts: Sequence[Start]) -> dict[EvalRow, dict[int, PlayFn]]:
        """Who chooses among known actions, told of its users, of others and by profiles, and greedy search with it."""
        rows: dict[EvalRow, dict[int, PlayFn]] = {}
        home, horizon = self.world.environment, self.agent.horizon
        own, others = self.world.scorer.user_embeddings, other_users(starts)
        of_others = own.copy()
        of_others[[*others]] = own[[*others.values()]]

        def acting(system: str, embeddings: np.ndarray) -> dict[int, PolicyFn]:
            return {seed: choose(embeddings) for seed, choose in contestants.choosers[system].items()}

        for system in contestants.choosers:
            policies = acting(system, own)
            rows[EvalRow(system=system)] = self._played(policies, starts, home, horizon)
            row = EvalRow(system=for_others(system))
            rows[row] = self._played(acting(system, of_others), starts, home, horizon)
            row = EvalRow(system=GREEDY_SEARCH, policy=system)
            rows |= self._searches(row, policies, contestants.training_calls, starts)
        # Behind all others: chunks of an evaluation that was begun before these were played stay theirs.
        told = contestants.read_off_profiles() if contestants.choosers else own
        for system in contestants.choosers:
            rows[EvalRow(system=by_profile(system))] = self._played(acting(system, told), starts, home, horizon)
        return rows

    def _searches(
        self,
        row: EvalRow,
        policies: Mapping[int, PolicyFn],
        training_calls: Mapping[str, Mapping[str | None, float]],
        starts: Sequence[Start],
    ) -> dict[EvalRow, dict[int, PlayFn]]:
        """Greedy search of as many actions as are asked for, and with as many calls in all as best-of-N of all calls
        has, those of training included; what serves no kind has as many as that of the kind with the most."""
        kinds = self.settings.extra_kinds if row.kind is None else (row.kind,)
        horizon, count = self._budget("all_calls", max((training_calls[EAGLE][kind] for kind in kinds), default=0))
        spent, part = training_calls.get(row.policy, {}).get(row.kind, 0), 6 if row.kind is None else 5
        widths = {"": self.settings.search_actions}
        if "all_calls" in self.settings.best_of_n:
            widths[f" ({_EQUAL_CALLS['all_calls']})"] = int(count - spent / (horizon * self.settings.num_starts))
        rows = {}
        for budget, width in widths.items():
            if width < 2:
                continue  # one action a state is an episode
            words = f"{width} actions x {horizon} steps{budget}"
            rows[dataclasses.replace(row, budget=words)] = {
                seed: functools.partial(self._searched, policy, starts, derive_seed(self.seed, part, seed), width)
                for seed, policy in policies.items()
            }
        return rows

    def _searched(self, policy_fn: PolicyFn, starts: Sequence[Start], seed: int, width: int) -> list[EpisodeRecord]:
        searched = search_greedily(
            self.judging,
            starts,
            seed,
            policy_fn,
            self.world.environment,
            width=width,
            horizon=self.agent.horizon,
            batch_size=self.models.batch_size,
        )
        return searched_records(self.judging, starts, seed, searched)

    @property
    def judging(self) -> Judging:
        """By all encoders; where they read fields of texts, also with these held at the anchor's."""
        return Judging(self.world.scorers, self.world.quality, with_fields_of if self.models.fields else None)

    def _untrained(self, instructions: Sequence[str], starts: Sequence[Start]) -> dict[EvalRow, dict[int, PlayFn]]:
        """Rows of instructions, and of a rule where encoders read what it changes."""
        rows: dict[EvalRow, dict[int, PlayFn]] = {}
        if instructions:
            count, home = len(instructions), self.world.environment
            rows[EvalRow(system=ONE_FOR_ALL)] = self._played({0: listed_policy(instructions[:1])}, starts, home, 1)
            rows[EvalRow(system=BEST_OF_N, budget=f"{count} instructions at random")] = self._played(
                {0: listed_policy(instructions)}, starts, home, 1, best_of=count
            )
        if self.models.fields:
            rows[EvalRow(system=FIELD_CHANGES)] = {
                0: lambda: evaluate_played(
                    self.judging,
                    starts,
                    0,
                    [(step,) for step in best_field_changes(self.world, starts, self.agent.horizon)],
                )
            }
        return rows

    def _policies(
        self, models: Mapping[int, LanguageModel], sampling: SamplingSettings | None = None
    ) -> dict[int, PolicyFn]:
        return {seed: self._policy(model, sampling or self.agent.policy) for seed, model in models.items()}

    def _played(
        self,
        policies: Mapping[int, PolicyFn],
        starts: Sequence[Start],
        environment: LLMEnvironment,
        horizon: int,
        best_of: int | None = None,
    ) -> dict[int, PlayFn]:
        """Seed -> episodes of that seed's policy."""
        part = 1 if best_of is None else 2
        return {
            seed: lambda seed=seed, policy=policy: evaluate_policy(
                self.judging,
                starts,
                derive_seed(self.seed, part, seed),
                policy,
                environment,
                horizon,
                self.models.batch_size,
                best_of,
            )
            for seed, policy in policies.items()
        }

    def rated(self, records: Sequence[EpisodeRecord], seed: int) -> tuple[list[EpisodeRecord], Counter[str]]:
        """The records of one row and seed with the rater's scores, and its malformed answers.

        The places of the texts are those of the other rows: rows are compared start by start.
        """
        if self.rater is None:
            return list(records), Counter()
        scores, malformed = rate_episodes(
            records, self.rater, self.world.book, self.settings.rater, derive_seed(self.seed, 3, seed)
        )
        rated = [
            dataclasses.replace(record, rater=score and dataclasses.asdict(score))
            for record, score in zip(records, scores, strict=True)
        ]
        return rated, malformed

    def _policy(self, model: LanguageModel, sampling: SamplingSettings) -> PolicyFn:
        generator = LocalGenerator(model, self.models.batch_size, self.models.length_multiple)
        return make_policy_fn(generator, self.world.book, self.world.entity_format, sampling)

    def _budget(self, budget: str, training_calls: float) -> tuple[int, int]:
        """Steps and number of episodes: single edits at test-time equality, else whole episodes."""
        whole = self.agent.horizon
        test_only = budget == "test_calls"
        horizon = 1 if test_only else whole
        count = equal_call_episodes(
            calls_per_episode=whole,
            training_calls=0 if test_only else round(training_calls),
            num_evaluated=self.settings.num_starts,
            best_of_n_horizon=horizon,
        )
        return horizon, count
