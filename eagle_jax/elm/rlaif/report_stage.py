"""From the results of RLAIF to its report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from eagle_jax.base.metrics import read_metrics
from eagle_jax.base.provenance import provenance
from eagle_jax.elm.rlaif.report import RlaifReport, write_rlaif_report
from eagle_jax.elm.rlaif.run import RlaifRun
from eagle_jax.elm.rlaif.settings import SC, START
from eagle_jax.reports.figures import learning_curve

_CURVES = ("reward", "validation/reward", "policy/kl", "policy/entropy")


def report_rlaif(run: RlaifRun) -> Path:
    """Writes report.html and report.md of a finished run, returns the path of the first."""
    settings, results, root = run.rlaif, run.stages["rlaif_results"], run.workdir.root
    stages = {policy: run.stages[run.training_stage(*policy)] for policy in run.policies}
    facts = {"start": run.start.name, "seconds": run.times.seconds()}
    data = RlaifReport(
        title=settings.title,
        task=_task(run),
        measure=settings.reward,
        start=START,
        unit="films" if settings.reward == SC else "users",
        confidence=settings.evaluation.bootstrap.confidence,
        tables=results.read_json("tables.json"),
        curves=[
            learning_curve(
                name, seed, read_metrics(stage.path / "metrics" / "metrics.jsonl"), _CURVES
            )
            for (name, seed), stage in stages.items()
        ],
        samples=results.read_jsonl("samples.jsonl"),
        facts=facts,
        settings=json.loads(json.dumps(dataclasses.asdict(settings))),
        provenance=provenance(),
    )
    return write_rlaif_report(root, data)


def _task(run: RlaifRun) -> str:
    start, settings = run.experiment, run.rlaif
    steps = start.elm.training.stage2.num_steps
    tasks = ", ".join(task.replace("_", " ") for task in settings.tasks)
    return (
        f"MiniLens with {start.catalogue.num_films} films and {start.catalogue.num_users} users. "
        f"The start is one ELM, {start.models.reader} after {steps} steps on the teacher's texts "
        f"of all tasks; each training goes on from it with {len(settings.seeds)} seeds. Asked: "
        f"{tasks}. A text that cannot be read or was cut short is rewarded with "
        f"{settings.malformed_reward:g}."
    )
