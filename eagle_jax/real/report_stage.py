"""Last stage of a REAL experiment: the report, made from what the other stages wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.base.metrics import read_metrics
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.real.labels import summarize_pairs
from eagle_jax.real.report import RealReport, write_real_report
from eagle_jax.real.settings import RealExperiment
from eagle_jax.real.task import RealTask
from eagle_jax.real.training.runs import RunPlan, StartMeasures, stability_rows
from eagle_jax.reports.markdown import fact
from eagle_jax.reports.pages import shared_fields

_CURVES = ("loss", "rewards/margin", "rewards/accuracy")


def make_real_report(
    folder: Path,
    experiment: RealExperiment,
    task: RealTask,
    stages: Mapping[str, StageFolder],
    plans: Sequence[RunPlan],
    start: StartMeasures,
) -> Path:
    """Writes report.html, whose path it returns, and report.md into `folder`; `stages` are the
    finished ones by name."""
    first_pairs = stages[f"pairs_{experiment.seeds[0]}"]
    run_stages = {plan.stage_name: stages[plan.stage_name] for plan in plans}
    history = {name: read_metrics(stage.path / "metrics" / "metrics.jsonl") for name, stage in run_stages.items()}
    largest = [plan for plan in plans if plan.num_labels == experiment.num_labels[-1]]
    data = RealReport(
        **shared_fields(experiment),
        confidence=experiment.evaluation.confidence,
        num_prompts={part: len(prompts) for part, prompts in task.prompts.items()},
        runs=[run_stages[plan.stage_name].read_json("run.json") for plan in plans],
        curves=[_curve(plan, history[plan.stage_name]) for plan in largest],
        stability=[row for plan in largest for row in stability_rows(plan, history[plan.stage_name])],
        selection=[
            {"strategy": name, **summarize_pairs([p for plan in largest if plan.strategy == name for p in plan.pairs])}
            for name in dict.fromkeys(plan.strategy for plan in largest)
        ],
        pairs=[
            {"strategy": plan.strategy} | {name: getattr(pair, name) for name in ("similarity", "true_gap", "is_error")}
            for plan in largest
            for pair in plan.pairs
        ],
        # What every encoder would select, with the first seed; one alone has nothing beside it.
        embeddings=first_pairs.read_json("encoders.json") if len(experiment.embeddings) > 1 else [],
        samples=_samples(experiment, task, run_stages, largest, start),
        stages=_facts(task, experiment.seeds[0], stages),
    )
    return write_real_report(folder, data)[0]


def _curve(plan: RunPlan, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    logged = [row for row in rows if "loss" in row]
    return {
        **plan.place,
        "step": [row["step"] for row in logged],
        "metrics": {name: [row[name] for row in logged] for name in _CURVES},
    }


def _samples(
    experiment: RealExperiment,
    task: RealTask,
    stages: Mapping[str, StageFolder],
    plans: Sequence[RunPlan],
    start: StartMeasures,
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
                    "text": strategy_texts[place],
                    "true_utility": task.utility(prompts[place], strategy_texts[place]) if task.has_utility else None,
                }
                for name, strategy_texts in texts.items()
            ],
        }
        for place in np.linspace(0, len(prompts) - 1, count).round().astype(int)
    ]


def _facts(task: RealTask, seed: int, stages: Mapping[str, StageFolder]) -> list[dict[str, Any]]:
    groups = []
    if task.facts:
        groups.append({"title": "What was read", "facts": task.facts})
    if written := stages["responses"].read_json("facts.json"):
        meaning = "of the responses to choose from"
        facts = [fact(name, count, meaning) for name, count in written.items()]
        groups.append({"title": "Responses", "facts": facts})
    if rated := stages[f"pairs_{seed}"].read_json("facts.json"):
        groups.append({"title": f"The rater's labels, seed {seed}", "facts": rated})
    if "supervised" in stages:
        counts = stages["supervised"].read_json("facts.json").items()
        facts = [fact(name, value, "prompts with a completion") for name, value in counts]
        groups.append({"title": "Supervised start", "facts": facts})
    return groups
