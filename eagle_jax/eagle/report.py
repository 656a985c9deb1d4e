"""The report of a run: report.html, which needs nothing beside it, and report.md with its figures.

Everything comes from `EagleReport`, so a report can be made again from the artifacts of a run.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.base.metrics import read_metrics
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.ceiling.report import ceiling_facts
from eagle_jax.eagle.dpo.training import pair_facts
from eagle_jax.eagle.elm_baseline.facts import SEARCH, elm_facts, sweep
from eagle_jax.eagle.encoder_stage import encoder_facts
from eagle_jax.eagle.evaluation import report_tables
from eagle_jax.eagle.evaluation.break_even import pays_sentences
from eagle_jax.eagle.evaluation.reachable import reachable_facts
from eagle_jax.eagle.evaluation.stage import with_names
from eagle_jax.eagle.evaluation.story import habit_facts, story
from eagle_jax.eagle.evaluation.systems import DPO, EAGLE, HOME, PLANNER, EvalRow
from eagle_jax.eagle.evaluation.table import RATER_MEASURES, REACHABLE_SHARE
from eagle_jax.eagle.evaluation.verdict import row_meanings, steering_sentences, verdict_sentences
from eagle_jax.eagle.expert.stage import expert_facts
from eagle_jax.eagle.planner.stage import planner_facts
from eagle_jax.eagle.policy_stages import design_facts
from eagle_jax.eagle.profile_stage import profile_facts
from eagle_jax.eagle.quality.stage import quality_facts
from eagle_jax.eagle.reliability import CANDIDATES, FILMS, reliability_facts, trust_sentences
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN, Scorer
from eagle_jax.reports import figures
from eagle_jax.reports.figures import Panel, embedding_picture, learning_curve
from eagle_jax.reports.markdown import fact, table, used_measures
from eagle_jax.reports.pages import Report, refuse_non_finite, shared_fields, write_pages
from eagle_jax.stages.catalogue import catalogue_facts

WITHOUT_ELM = "The ELM decoder as a baseline (the first row of the paper's table)."
NOT_REPRODUCED = (
    "Human raters: no people were asked.",
    "The paper's scale: its policy has 3 billion parameters, its catalogue 62 thousand films.",
    WITHOUT_ELM,
    "Macro actions, the combined action space and the Amazon catalogue.",
)
_JUDGED = f"validation/{HELD_OUT}"
_CURVES = {
    "validation/reward": Panel("reward on validation starts", "U"),
    _JUDGED: Panel("U there by the held-out encoder", "U"),
    "gain": Panel("gain while training"),
    "policy/kl": Panel("KL to where it began, nats an action"),
    "malformed_actions": Panel("share of malformed actions", least=0.1),
}
_PREFERENCE = "preference_"  # what the names of stages of DPO agents begin with


@dataclasses.dataclass(frozen=True, kw_only=True)
class EagleReport(Report):
    """All that a report says."""

    table: Sequence[Mapping[str, Any]]  # evaluation.table.summarize
    comparisons: Sequence[Mapping[str, Any]]  # evaluation.table.compare
    malformed: Mapping[str, Mapping[str, Any]]  # evaluation.table.malformed_counts
    episodes: Sequence[Mapping[str, Any]]  # evaluation.stage.with_names, the ones to be told
    curves: Sequence[Mapping[str, Any]]  # of `figures.learning_curve`
    embedding_picture: Mapping[str, Any]  # of `figures.embedding_picture`
    # [{"title", "facts": [{"name", "value", "meaning"}]}], one group for each stage
    stages: Sequence[Mapping[str, Any]]
    rater: str  # a sentence or two: who answered the rater form
    remote: Sequence[Mapping[str, Any]]  # RemoteGenerator.usage and a name, for each remote model
    # evaluation.table.summarize with metric, radius, length, point_utility and chosen: the ELM
    # decoder on validation pairs; empty without one
    decoder_sweep: Sequence[Mapping[str, Any]]
    # eagle.reliability: texts -> what two halves of the films agree on there; empty without halves
    reliability: Mapping[str, Mapping[str, Any] | None] = dataclasses.field(default_factory=dict)
    # evaluation.break_even; empty where best-of-N had no more calls than an agent
    break_even: Sequence[Mapping[str, Any]] = ()
    not_reproduced: Sequence[str]
    is_crossed: bool = False  # evaluation.table.Resampling
    num_reachable: int | None = None  # starts that the column of what can be reached is over


def make_report(
    folder: Path,
    experiment: EagleExperiment,
    world: EagleWorld,
    stages: Mapping[str, StageFolder],
    seconds: Mapping[str, float],
    remote: Sequence[Mapping[str, Any]],
) -> tuple[Path, Path]:
    """Writes the report of finished stages, by name, into `folder`; `remote` is the usage of remote
    models."""
    evaluation = stages["evaluation"]
    rows, records = evaluation.read_json("table.json"), evaluation.read_jsonl("records.jsonl")
    reachable = evaluation.read_json("reachable.json")
    for row in rows:
        row["cells"][REACHABLE_SHARE] = reachable.get("share", {}).get(row["row"])
    kind = (*experiment.evaluation.extra_kinds, *experiment.design.kinds)[0]
    shown = [
        with_names(episode, world.catalogue)
        for episode in _told_episodes(records, kind, experiment.evaluation.num_told_episodes)
    ]
    data = EagleReport(
        **shared_fields(experiment),
        confidence=experiment.evaluation.bootstrap.confidence,
        is_crossed=experiment.evaluation.resampled == "anchors_and_users",
        table=rows,
        comparisons=evaluation.read_json("comparisons.json"),
        malformed=evaluation.read_json("malformed.json"),
        num_reachable=reachable.get("num_starts"),
        # Evaluations of earlier versions have none.
        break_even=evaluation.read_json("break_even.json") if (evaluation.path / "break_even.json").exists() else (),
        episodes=shown,
        curves=_curves(experiment, stages),
        embedding_picture=_picture(world.scorer, shown),
        stages=_stage_facts(stages, records, reachable, seconds),
        rater=_rater(experiment),
        remote=remote,
        decoder_sweep=sweep(stages),
        reliability=_reliability(stages),
        not_reproduced=[line for line in NOT_REPRODUCED if line != WITHOUT_ELM or SEARCH not in stages],
    )
    return write_report(folder, data)


def write_report(folder: Path, data: EagleReport) -> tuple[Path, Path]:
    """Writes report.html and report.md with its figures into `folder`, returns the two paths.

    Raises ValueError naming row and column if the table holds a number that is not finite.
    """
    for row in data.table:
        refuse_non_finite(f"row {row['row']!r}", row["cells"])
    drawn = {
        "utility": figures.interval_figure(data.table, report_tables.utility_panels(data.table), "U", part=0),
        "curves": figures.curves_figure(data.curves, panels=_CURVES) if data.curves else None,
        "embedding": figures.embedding_figure(data.embedding_picture),
    }
    rated = bool(used_measures(RATER_MEASURES, data.table))
    context = {
        "data": data,
        "steering": steering_sentences(data.table),
        "verdict": list(verdict_sentences(data.table, data.comparisons)),
        "rows": list(row_meanings(data.table)),
        "trust": trust_sentences(data.reliability),
        "tables": report_tables.result_tables(data.table, data.num_reachable),
        "comparisons": table(data.comparisons, report_tables.COMPARISON_COLUMNS),
        "pays": list(pays_sentences(data.break_even, report_tables.ENCODERS)),
        "break_even": table(data.break_even, report_tables.break_even_columns(data.break_even)),
        "paper": report_tables.paper_table(data.table),
        "sweep": table(data.decoder_sweep, report_tables.SWEEP_COLUMNS),
        "episodes": [story(episode) for episode in data.episodes],
        "rated": rated,
        "malformed": table(data.malformed.items(), report_tables.malformed_columns(data.malformed, rated)),
        "remote": table(data.remote, report_tables.REMOTE_COLUMNS),
    }
    return write_pages(folder, "eagle/report", context, drawn)


def _reliability(stages: Mapping[str, StageFolder]) -> dict[str, Mapping[str, Any] | None]:
    """What the finished stages found, over films and over candidate texts."""
    if "reliability" not in stages:
        return {}
    return {
        FILMS: stages["encoders"].read_json("facts.json")["reliability"],
        CANDIDATES: stages["reliability"].read_json("facts.json"),
    }


def _rater(experiment: EagleExperiment) -> str:
    """Who answered the rater form, and what it has in common with the encoders."""
    models = experiment.models
    if experiment.evaluation.rater is None:
        return "Here nobody answers it."
    sentence = f"Here the language model {models.rater} does: it "
    if models.rater in (models.features, models.held_out_features):
        sentence += "is also behind an encoder"
    else:
        sentence += "shares nothing with the encoders"
    if models.rater.startswith(f"{experiment.catalogue.source}/"):
        sentence += ", but it is small and was pretrained on the same world"
    return f"{sentence}. No people were asked."


def _curves(experiment: EagleExperiment, stages: Mapping[str, StageFolder]) -> list[dict[str, Any]]:
    """A DPO agent's rounds stand where REINFORCE has taken as many actions."""
    curves = []
    training = experiment.agent.training
    runs = itertools.product(experiment.design.kinds, experiment.agent.seeds, (EAGLE, DPO))
    for kind, seed, system in runs:
        name = f"{_PREFERENCE if system == DPO else ''}agent_{kind}_{seed}"
        if name not in stages:
            continue
        rows = read_metrics(stages[name].path / "metrics" / "metrics.jsonl")
        if system == DPO:
            rounds = experiment.preference_agent.num_rounds(training)
            rows = [r | {"step": r["step"] * training.num_iterations / rounds} for r in rows]
        # The held-out encoder did not judge agents of earlier versions.
        names = [name for name in _CURVES if name != _JUDGED or any(name in row for row in rows)]
        curves.append(learning_curve(EvalRow(system=system, kind=kind).title, seed, rows, names))
    return curves


def _told_episodes(records: Sequence[Mapping[str, Any]], kind: str, count: int) -> list[dict[str, Any]]:
    """Episodes at the quantiles of the gain of the planner, or EAGLE's where there is none, from best to worst: no
    cherry-picking."""

    def played(*wanted: str | None) -> list[Mapping[str, Any]]:
        return [record for record in records if (record["system"], record["kind"], record["environment"]) == wanted]

    episodes = played(PLANNER, None, HOME) or played(EAGLE, kind, HOME)
    path = [record["scores"][TRAIN] for record in episodes]
    gains = np.array([scores[-1]["utility"] - scores[0]["utility"] for scores in path])
    order = np.argsort(-gains, kind="stable")
    places = np.linspace(0, len(order) - 1, count).round().astype(int)
    return [episodes[order[place]] for place in places]


def _picture(scorer: Scorer, episodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    trajectories = {}
    for number, episode in enumerate(episodes, start=1):
        texts = [episode["anchor"], *(step["description"] for step in episode["steps"])]
        trajectories[f"episode {number}"] = scorer.embed(texts)
    return embedding_picture(scorer.catalogue_embeddings, trajectories)


def _stage_facts(
    stages: Mapping[str, StageFolder],
    records: Sequence[Mapping[str, Any]],
    reachable: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> list[dict[str, Any]]:
    """What each stage found out about itself, with the meaning of every number; `records` are of the evaluation."""
    groups = {
        "Ratings and behavioural embeddings": catalogue_facts(stages["catalogue"]),
        "Domain encoders": encoder_facts(stages["encoders"]),
        "How far U can be trusted": reliability_facts(_reliability(stages)),
        "Quality: what texts must be like": quality_facts(stages["quality"]) if "quality" in stages else [],
        "User profiles": profile_facts(stages["profiles"]),
        "The ceiling": ceiling_facts(stages["ceiling"]) if "ceiling" in stages else [],
        "Candidate actions and design": design_facts(stages["candidates"], stages["design"]),
        "What agents imitate before they are rewarded": expert_facts(
            stage for name, stage in stages.items() if name.startswith("expert_")
        ),
        "The planner's model": planner_facts(stage for name, stage in stages.items() if name.startswith("planner_")),
        "Pairs of the DPO agents": pair_facts(
            row
            for name, stage in stages.items()
            if name.startswith(_PREFERENCE)
            for row in read_metrics(stage.path / "metrics" / "metrics.jsonl")
        ),
        "The ELM decoder": elm_facts(stages) if SEARCH in stages else [],
        "What could be reached": reachable_facts(reachable),
        "What agents ask for": habit_facts(records),
        "Time of each stage (all runs of this work directory)": [
            fact(name, f"{value:.0f} s", "wall-clock time") for name, value in seconds.items()
        ],
    }
    return [{"title": title, "facts": facts} for title, facts in groups.items() if facts]
