"""Last stage of a REAL experiment: the report, made from what the other stages wrote."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.base.metrics import read_metrics
from eagle_jax.base.provenance import provenance
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.real.labels import summarize_pairs
from eagle_jax.real.report import RealReport, write_real_report
from eagle_jax.real.settings import TEACHER, RealExperiment
from eagle_jax.real.task import Task
from eagle_jax.real.training.runs import RunPlan, Start, stability_rows

NOT_REPRODUCED = (
    "The paper's scale: its policies are phi-1.5, pythia-2.8b and llama-2-7b.",
    "Human annotators, and GPT-4 as the judge of win rates: nobody was asked.",
)
_CURVES = ("loss", "rewards/margin", "rewards/accuracy")


def make_real_report(
    folder: Path,
    experiment: RealExperiment,
    task: Task,
    stages: Mapping[str, StageFolder],
    plans: Sequence[RunPlan],
    start: Start,
) -> tuple[Path, Path]:
    """Writes report.html and report.md into `folder`; `stages` are the finished ones by name."""
    own = {plan.stage_name: stages[plan.stage_name] for plan in plans}
    history = {
        name: read_metrics(stage.path / "metrics" / "metrics.jsonl") for name, stage in own.items()
    }
    largest = [plan for plan in plans if plan.num_labels == experiment.num_labels[-1]]
    data = RealReport(
        title=experiment.title,
        task=_task(experiment, task),
        labels=_labels(experiment),
        opponent="the policy before any label" if experiment.supervised is None
        else "the supervised start",
        rater=_rater(experiment),
        confidence=experiment.evaluation.confidence,
        claim_num_labels=experiment.num_labels[-1],
        runs=[own[plan.stage_name].read_json("run.json") for plan in plans],
        curves=[_curve(plan, history[plan.stage_name]) for plan in largest],
        stability=[
            row for plan in largest for row in stability_rows(plan, history[plan.stage_name])
        ],
        selection=_selection(largest),
        pairs=[
            {
                "strategy": plan.strategy,
                "similarity": pair.similarity,
                "true_gap": pair.true_gap,
                "is_error": pair.is_error,
            }
            for plan in largest
            for pair in plan.pairs
        ],
        embeddings=_encoders(experiment, stages),
        samples=_samples(experiment, task, own, largest, start),
        stages=_facts(task, experiment.seeds, stages),
        left_out=list(_left_out(experiment, task)),
        not_reproduced=NOT_REPRODUCED,
        settings=json.loads(json.dumps(dataclasses.asdict(experiment))),
        provenance=provenance(),
    )  # fmt: skip
    return write_real_report(folder, data)


def _task(experiment: RealExperiment, task: Task) -> str:
    counts = (
        f"{len(task.prompts['train'])} prompts to label responses of, "
        f"{len(task.prompts['test'])} held out"
    )
    if experiment.minilens is not None:
        told = (
            "A user of MiniLens, told by a profile, asks for a film. The true preference is the "
            "world's own affinity of the film for the user"
        )
    else:
        told = (
            f"Prompts and responses of {', '.join(Path(p).name for p in experiment.files.paths)}. "
            "The true preference is what their labels or scores say"
        )
    scope = {
        "within": "a pair of the responses to each prompt",
        "across": "the prompts, each with one pair of responses",
    }[experiment.selection.scope]
    return (
        f"{told}; {counts}. Strategies select {scope}, by the embedding "
        f"{experiment.selection.embedding!r}. The policy is {experiment.models.policy}."
    )


def _labels(experiment: RealExperiment) -> str:
    return {
        "data": "The data's own labels or scores are the labels.",
        "simulated": "A simulated annotator: prefers the better response with probability "
        f"sigmoid(gap in true utility / {experiment.labels.temperature:g}), so that errors grow "
        "as pairs become ambiguous.",
        "rater": "A rater labels, asked in both orders; pairs on which it contradicts itself get "
        "no label.",
    }[experiment.labels.source]


def _rater(experiment: RealExperiment) -> str | None:
    if experiment.rater is None:
        return None
    if experiment.rater.model == TEACHER:
        return (
            "The grammar's teacher: it reads the user's profile and both films and counts the "
            "values that the profile names; it knows nothing of the true utility. No people, no "
            "language model."
        )
    return f"The language model {experiment.rater.model}. No people were asked."


def _left_out(experiment: RealExperiment, task: Task):
    if not task.has_utility:
        yield "True utility of what policies write: only a synthetic world knows it."
    if experiment.rater is None:
        yield "Win rates by a rater: config.rater is None."


def _curve(plan: RunPlan, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    logged = [row for row in rows if "loss" in row]
    return {
        **plan.place,
        "step": [row["step"] for row in logged],
        "metrics": {name: [row[name] for row in logged] for name in _CURVES},
    }


def _selection(plans: Sequence[RunPlan]) -> list[dict[str, Any]]:
    """Over the pairs of all seeds."""
    names = dict.fromkeys(plan.strategy for plan in plans)
    return [
        {
            "strategy": name,
            **summarize_pairs([p for plan in plans if plan.strategy == name for p in plan.pairs]),
        }
        for name in names
    ]


def _encoders(
    experiment: RealExperiment, stages: Mapping[str, StageFolder]
) -> list[dict[str, Any]]:
    """What every encoder would select, with the first seed; one alone has nothing beside it."""
    rows = stages[f"pairs_{experiment.seeds[0]}"].read_json("encoders.json")
    return rows if len(experiment.embeddings) > 1 else []


def _samples(
    experiment: RealExperiment,
    task: Task,
    stages: Mapping[str, StageFolder],
    plans: Sequence[RunPlan],
    start: Start,
) -> list[dict[str, Any]]:
    """Responses of the first seed to evenly spaced held-out prompts."""
    texts = {"before any label": start.texts}
    for plan in plans:
        if plan.seed == experiment.seeds[0]:
            texts[plan.strategy] = stages[plan.stage_name].read_json("texts.json")
    prompts = [prompt.text for prompt in task.prompts["test"]]
    count = min(experiment.evaluation.num_told_prompts, len(prompts))
    return [
        {
            "prompt": prompts[place],
            "rows": [
                {
                    "strategy": name,
                    "text": own[place],
                    "true_utility": task.utility(prompts[place], own[place])
                    if task.has_utility
                    else None,
                }
                for name, own in texts.items()
            ],
        }
        for place in np.linspace(0, len(prompts) - 1, count).round().astype(int)
    ]


def _facts(
    task: Task, seeds: Sequence[int], stages: Mapping[str, StageFolder]
) -> list[dict[str, Any]]:
    groups = []
    if task.facts:
        groups.append({"title": "What was read", "facts": task.facts})
    if written := stages["responses"].read_json("facts.json"):
        facts = [
            {"name": name, "value": count, "meaning": "of the responses that were generated"}
            for name, count in written.items()
        ]
        groups.append({"title": "Responses", "facts": facts})
    if rated := stages[f"pairs_{seeds[0]}"].read_json("facts.json"):
        groups.append({"title": f"The rater's labels, seed {seeds[0]}", "facts": rated})
    if "supervised" in stages:
        facts = [
            {"name": name, "value": value, "meaning": "prompts with a completion"}
            for name, value in stages["supervised"].read_json("facts.json").items()
        ]
        groups.append({"title": "Supervised start", "facts": facts})
    return groups
