"""Stage 8: every row of the table on the same held-out starts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.agent.state import EagleSettings
from eagle_jax.eagle.environment import LLMEnvironment, Start, Step
from eagle_jax.eagle.episodes import Episodes
from eagle_jax.eagle.evaluation.episodes import (
    EpisodeRecord,
    equal_call_episodes,
    evaluate_anchor,
    evaluate_best_of_n,
    evaluate_policy,
    evaluate_texts,
)
from eagle_jax.eagle.evaluation.rater import rate_episodes
from eagle_jax.eagle.evaluation.reachable import best_reachable_utility
from eagle_jax.eagle.evaluation.table import compare, malformed_counts, summarize
from eagle_jax.eagle.policy import make_policy_fn
from eagle_jax.eagle.rollout import PolicyFn
from eagle_jax.eagle.settings import EvaluationSettings, ModelSettings
from eagle_jax.embeddings.scorer import TRAIN, Scorer
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.generation import TextGenerator
from eagle_jax.language_model.sampling.local import LocalGenerator

ANCHOR = "anchor"
ELM = "ELM decoder"
EAGLE, DPO = "EAGLE, ", "DPO, "  # what begins the names of agents' rows
TRANSFER = ", other environment"  # what ends the names of rows that the agent did not train in

# (starts, seed) -> their texts; the anchor where malformed.
WriterFn = Callable[[Sequence[Start], int], list[Step]]


@dataclasses.dataclass(frozen=True)
class Contestants:
    """References by kind, agents by kind and seed, and what their training cost.

    agents: by REINFORCE, preference_agents: by DPO, if there are any. elm_writers: ELM as the
    baseline, by seed, if it is asked for.
    """

    references: Mapping[str, LanguageModel]
    agents: Mapping[str, Mapping[int, LanguageModel]]
    preference_agents: Mapping[str, Mapping[int, LanguageModel]]
    training_calls: Mapping[str, float]  # environment calls per agent, mean over seeds
    elm_writers: Mapping[int, WriterFn]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Runs the rows; each (row, seed) is one resumable chunk of the stage."""

    episodes: Episodes
    scorers: Mapping[str, Scorer]
    models: ModelSettings
    agent: EagleSettings
    settings: EvaluationSettings
    transfer_environment: LLMEnvironment | None
    rater: TextGenerator | None
    seed: int

    def starts(self) -> list[Start]:
        """The same held-out (anchor, user) pairs for all rows."""
        rng = np.random.default_rng(derive_seed(self.seed, 0))
        return self.episodes.draw_starts("test", rng, self.settings.num_starts)

    def rows(
        self, contestants: Contestants
    ) -> dict[str, dict[int, Callable[[], list[EpisodeRecord]]]]:
        """Row name -> seed -> how to get its records; names as in the paper's table."""
        starts, seeds = self.starts(), self.settings.seeds
        shared = {
            "score_fns": {name: scorer.score for name, scorer in self.scorers.items()},
            "embed_fn": self.scorers[TRAIN].embed,
            "starts": starts,
        }
        played = {"batch_size": self.models.batch_size, **shared}
        home = self.episodes.environment

        def policy_row(row: str, models: Mapping[int, LanguageModel], environment: LLMEnvironment):
            return {
                seed: lambda seed=seed, model=model: evaluate_policy(
                    row,
                    self._policy(model),
                    environment,
                    horizon=self.agent.horizon,
                    seed=derive_seed(self.seed, 1, seed),
                    **played,
                )
                for seed, model in models.items()
            }

        def best_of_row(row: str, model: LanguageModel, horizon: int, count: int):
            return {
                seed: lambda seed=seed: evaluate_best_of_n(
                    row,
                    self._policy(model),
                    home,
                    horizon=horizon,
                    num_episodes=count,
                    seed=derive_seed(self.seed, 2, seed),
                    **played,
                )
                for seed in seeds
            }

        rows = {ANCHOR: {0: lambda: evaluate_anchor(ANCHOR, seed=0, **shared)}}
        if contestants.elm_writers:
            rows[ELM] = {
                seed: lambda seed=seed, write=write: evaluate_texts(
                    ELM, texts=write(starts, derive_seed(self.seed, 4, seed)), seed=seed, **shared
                )
                for seed, write in contestants.elm_writers.items()
            }
        environments = {"": home}
        if self.transfer_environment is not None:
            environments[TRANSFER] = self.transfer_environment
        for suffix, environment in environments.items():
            for kind, reference in contestants.references.items():
                if suffix and kind not in self.settings.extra_kinds:
                    continue
                row, own = f"reference policy, {kind}{suffix}", dict.fromkeys(seeds, reference)
                rows[row] = policy_row(row, own, environment)
                row = f"{EAGLE}{kind}{suffix}"
                rows[row] = policy_row(row, contestants.agents[kind], environment)
                if kind in contestants.preference_agents:
                    row = f"{DPO}{kind}{suffix}"
                    rows[row] = policy_row(row, contestants.preference_agents[kind], environment)
        for kind in self.settings.extra_kinds:
            for budget in self.settings.best_of_n:
                horizon, count = self._budget(budget, contestants.training_calls[kind])
                row = f"best of {count} x {horizon} steps ({budget}), {kind}"
                rows[row] = best_of_row(row, contestants.references[kind], horizon, count)
        return rows

    def rated(
        self, records: Sequence[EpisodeRecord], seed: int
    ) -> tuple[list[EpisodeRecord], Counter[str]]:
        """The records of one row and seed with the rater's scores, and its malformed answers.

        The places of the texts are those of the other rows: rows are compared start by start.
        """
        if self.rater is None:
            return list(records), Counter()
        scores, malformed = rate_episodes(
            records,
            self.rater,
            self.episodes.book,
            self.settings.rater,
            derive_seed(self.seed, 3, seed),
        )
        told = [None if score is None else dataclasses.asdict(score) for score in scores]
        rated = [
            dataclasses.replace(record, rater=score)
            for record, score in zip(records, told, strict=True)
        ]
        return rated, malformed

    def _policy(self, model: LanguageModel) -> PolicyFn:
        generator = LocalGenerator(model, self.models.batch_size, self.models.length_multiple)
        return make_policy_fn(
            generator, self.episodes.book, self.episodes.entity_format, self.agent.policy
        )

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


def run_evaluation_stage(
    stage: StageFolder, evaluation: Evaluation, contestants: Contestants
) -> None:
    """Plays all rows; writes records.jsonl, table.json, comparisons.json, malformed.json."""
    if stage.is_complete():
        return
    rows = evaluation.rows(contestants)
    jobs = [(row, seed, play) for row, seeds in rows.items() for seed, play in seeds.items()]
    chunks = [
        stage.chunk(index, lambda seed=seed, play=play: _chunk(evaluation, seed, play))
        for index, (_, seed, play) in enumerate(progress(jobs, len(jobs), "evaluation", "row"))
    ]
    records: dict[str, list[EpisodeRecord]] = {row: [] for row in rows}
    malformed_answers: dict[str, Counter[str]] = {row: Counter() for row in rows}
    for (row, seed, _), chunk in zip(jobs, chunks, strict=True):
        # The seed of a record is the row's own, so that tables can average seeds inside a pair.
        own = [EpisodeRecord.from_json(value | {"seed": seed}) for value in chunk["records"]]
        records[row] += own
        malformed_answers[row].update(chunk["malformed_answers"])
    bootstrap = evaluation.settings.bootstrap
    oracle = evaluation.episodes.catalogue.oracle
    table = summarize(records, bootstrap, oracle=oracle)
    stage.write_json("table.json", table)
    stage.write_json("reachable.json", _reachable(stage, evaluation, records, len(jobs)))
    stage.write_json(
        "comparisons.json", compare(records, comparison_pairs(list(rows)), bootstrap)
    )
    stage.write_json("malformed.json", malformed_counts(records, malformed_answers))
    stage.write_jsonl(
        "records.jsonl", (record.to_json() for of_row in records.values() for record in of_row)
    )
    stage.finish()


def _chunk(
    evaluation: Evaluation, seed: int, play: Callable[[], list[EpisodeRecord]]
) -> dict[str, Any]:
    """One row and seed, played and rated."""
    records, malformed = evaluation.rated(play(), seed)
    return {
        "records": [record.to_json() for record in records],
        "malformed_answers": dict(malformed),
    }


def _reachable(
    stage: StageFolder,
    evaluation: Evaluation,
    records: Mapping[str, Sequence[EpisodeRecord]],
    chunk: int,
) -> dict[str, Any]:
    """Best reachable utility of the first starts, and each row's share of the best gain there."""
    oracle, settings = evaluation.episodes.catalogue.oracle, evaluation.settings
    if oracle is None or not settings.num_reachable:
        return {}
    starts = evaluation.starts()[: settings.num_reachable]
    best = stage.chunk(
        chunk,
        lambda: best_reachable_utility(
            [start.description for start in starts],
            np.array([start.user_index for start in starts]),
            oracle,
            evaluation.scorers[TRAIN].score,
            evaluation.agent.horizon,
            settings.beam_width,
        ).tolist(),
    )
    by_pair = {(s.entity_index, s.user_index): u for s, u in zip(starts, best, strict=True)}
    subset = {
        row: [record for record in of_row if record.pair in by_pair]
        for row, of_row in records.items()
    }
    rows = summarize(subset, settings.bootstrap, by_pair)
    return {
        "best_utility": float(np.mean(best)),
        "num_starts": len(starts),
        "share": {row["row"]: row["cells"]["train/reachable_share"] for row in rows},
    }


def comparison_pairs(rows: Sequence[str]) -> list[tuple[str, str]]:
    """EAGLE against its anchor, its own reference, best-of-N and ELM; g_optimal against the others;
    DPO against its anchor, its own reference and EAGLE; ELM against its anchor."""
    pairs = [(ELM, ANCHOR)] if ELM in rows else []
    for row in rows:
        if not row.startswith((EAGLE, DPO)):
            continue
        kind = row.removeprefix(EAGLE).removeprefix(DPO)
        pairs += [(row, ANCHOR), (row, f"reference policy, {kind}")]
        if row.startswith(DPO):
            pairs.append((row, f"{EAGLE}{kind}"))
            continue
        pairs += [(row, other) for other in rows if other.startswith("best of ")
                  and other.endswith(f", {kind}")]  # fmt: skip
        if ELM in rows and not row.endswith(TRANSFER):
            pairs.append((row, ELM))
        if kind == "g_optimal":
            others = [r for r in rows if r.startswith(EAGLE) and not r.endswith(TRANSFER)]
            pairs += [(row, other) for other in others if other != row]
    return pairs
