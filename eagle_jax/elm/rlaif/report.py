"""The report of RLAIF: report.html, which stands alone, and report.md with its figure.

Everything comes from `RlaifReport`, plain JSON-able values. What language models wrote is
untrusted: it is escaped, always.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_jax.base.metrics import read_metrics
from eagle_jax.base.provenance import provenance
from eagle_jax.elm.rlaif.run import RlaifRun
from eagle_jax.elm.rlaif.settings import SC, START
from eagle_jax.elm.verdict import FAILS, HOLDS, MEASURE_NAMES, MIN_SEEDS
from eagle_jax.reports import figures
from eagle_jax.reports.pages import write_pages
from eagle_jax.reports.two_templates import flatten_settings

_CURVES = ("reward", "validation/reward", "policy/kl", "policy/entropy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RlaifReport:
    """measure: the reward, as in `elm_verdict.MEASURE_NAMES`; start: what the start is called.

    tables: [{"temperature", "rows": of `summarize_consistency` with the group "all tasks",
    "comparisons": of `compare_to_start`, "kl": {system: nats} or None}], that of the trainings'
    temperature first. curves: of `report.learning_curve`. samples: of the first temperature,
    [{"system", "task", "items", "user", "text", "malformed", "target", "scores"}].
    """

    title: str
    task: str  # a few sentences: what was trained, on what
    measure: str
    start: str
    unit: str  # what is resampled: films or users
    confidence: float
    tables: Sequence[Mapping[str, Any]]
    curves: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]


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
            figures.learning_curve(
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


def write_rlaif_report(folder: Path, data: RlaifReport) -> Path:
    """Writes report.html, report.md and its figure into `folder`, returns the first path.

    Raises ValueError for a number that is not finite.
    """
    json.dumps([data.tables, data.samples, data.facts], allow_nan=False)
    curves = figures.curves_figure(data.curves)
    return write_pages(folder, "elm/rlaif/report", _context(data), {"curves": curves})[0]


def verdicts(data: RlaifReport) -> Iterator[str]:
    """A sentence for each training: whether it raises the reward over its start."""
    first = data.tables[0]
    before = _row(first, data.start)["cells"][data.measure]["mean"]
    for row in first["comparisons"]:
        after = _row(first, row["system"])["cells"][data.measure]["mean"]
        number = len(row["by_seed"])
        said = (
            f"{tell(row['system'])} raises {data.measure.upper()} over its start: "
            f"{row['verdict']}. From {before:.3f} to {after:.3f}, {_signed(row['difference'])} "
            f"over {data.unit}"
        )
        if row["over_seeds"] is not None:
            said += f", {_signed(row['over_seeds'])} over {number} seeds"
        yield f"{said}." if number >= MIN_SEEDS else f"{said}; {number} of {MIN_SEEDS} seeds."


def tell(system: str) -> str:
    return system.replace("_", " ").capitalize()


def _signed(cell: Mapping[str, float]) -> str:
    return f"{cell['mean']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]"


def _row(table: Mapping[str, Any], system: str, group: str = "all tasks") -> Mapping[str, Any]:
    return next(r for r in table["rows"] if (r["system"], r["group"]) == (system, group))


def _context(data: RlaifReport) -> dict[str, Any]:
    """What the page reads."""
    measures = [name for name in MEASURE_NAMES if name in _row(data.tables[0], data.start)["cells"]]
    return {
        "data": data,
        "level": f"{data.confidence:.0%}".replace("%", " %"),
        "min_seeds": MIN_SEEDS, "holds": HOLDS, "fails": FAILS,
        "verdicts": list(verdicts(data)),
        "measures": [(name, MEASURE_NAMES[name]) for name in measures],
        "measure_name": MEASURE_NAMES[data.measure],
        "tables": [_table(data, table) for table in data.tables],
        "samples": _samples(data),
        "facts": list(flatten_settings(data.facts)),
    }  # fmt: skip


def _table(data: RlaifReport, table: Mapping[str, Any]) -> dict[str, Any]:
    """A line for each system; of the trained ones with their differences to the start."""
    compared = {row["system"]: row for row in table["comparisons"]}
    lines = []
    for system in (data.start, *compared):
        row = _row(table, system)
        lines.append(
            {
                "system": tell(system), "cells": row["cells"], "compared": compared.get(system),
                "malformed": sum(row["malformed"].values()), "num_outputs": row["num_outputs"],
                "reasons": row["malformed"], "kl": (table["kl"] or {}).get(system),
            }
        )  # fmt: skip
    return {"temperature": table["temperature"], "lines": lines}


def _samples(data: RlaifReport) -> list[dict[str, Any]]:
    """What was written about the same film or user, together."""
    by_subject: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for sample in data.samples:
        subject = sample["task"], tuple(sample["items"]), sample["user"]
        by_subject.setdefault(subject, []).append(sample)
    return [
        {
            "task": task.replace("_", " "),
            "about": user if user is not None else " / ".join(items),
            "target": own[0]["target"],
            "rows": [{**row, "system": tell(row["system"])} for row in own],
        }
        for (task, items, user), own in by_subject.items()
    ]
