"""The page of a sweep: what each run came to, and the tables of all runs' reports row by row."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eagle_jax.base.metrics import read_metrics
from eagle_jax.base.provenance import provenance
from eagle_jax.reports.figures import Panel, curves_figure
from eagle_jax.reports.markdown import Column, table
from eagle_jax.reports.pages import Report, write_pages
from eagle_jax.reports.results import RESULTS_JSON
from eagle_jax.stages.sharing import TAKEN_OVER
from eagle_jax.studies.sweep.grid import GridPoint

_CURVE = "validation/reward"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to: its exit code, seconds of its last process, the last line it said."""

    point: GridPoint
    folder: Path
    code: int
    seconds: float
    told: str

    @property
    def reused(self) -> list[str]:
        """Stages that were taken over from another run."""
        return sorted(path.parent.name for path in self.folder.glob(f"*/{TAKEN_OVER}"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepReport(Report):
    """runs: a row for each; rows: {row of the reports' first table, columns, of [run, cells]} of those that ended."""

    experiment: str
    runs: Sequence[dict[str, Any]]
    rows: Sequence[dict[str, Any]]
    curves: Sequence[dict[str, Any]]


def write_sweep_report(workdir: Path, experiment: str, outcomes: Sequence[Outcome]) -> tuple[Path, Path]:
    """report.html and report.md of the sweep; their paths."""
    keys = [key for key, _ in outcomes[0].point.settings]
    data = SweepReport(
        title=f"Sweep of {experiment}",
        settings={key: list(dict.fromkeys(dict(o.point.settings)[key] for o in outcomes)) for key in keys},
        provenance=provenance(),
        experiment=experiment,
        runs=[_told(outcome) for outcome in outcomes],
        rows=_joined([outcome for outcome in outcomes if outcome.code == 0]),
        curves=[curve for outcome in outcomes if outcome.code == 0 for curve in _curves(outcome)],
    )
    drawn = {
        "curves": curves_figure(data.curves, panels={_CURVE: Panel("reward on validation")}) if data.curves else None
    }
    context = {
        "data": data,
        "runs": table(data.runs, [_column(name) for name in data.runs[0]]),
        "rows": [(row["row"], table(row["runs"], [_column(name) for name in row["runs"][0]])) for row in data.rows],
    }
    return write_pages(workdir, "studies/sweep/report", context, drawn)


def _column(name: str) -> Column:
    return Column(name, lambda row: row.get(name, ""))


def _told(outcome: Outcome) -> dict[str, Any]:
    ended = "done" if outcome.code == 0 else f"failed with code {outcome.code}: {outcome.told}"
    settings = dict(outcome.point.settings)
    reused = ", ".join(outcome.reused) or "none"
    minutes = f"{outcome.seconds / 60:.1f}"
    return {"run": outcome.point.name, **settings, "outcome": ended, "minutes": minutes, "stages taken over": reused}


def _joined(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The rows of the first tables of the runs' reports, each with its cells in every run that has it."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for outcome in outcomes:
        tables = json.loads((outcome.folder / RESULTS_JSON).read_text())["tables"]
        first = next((told for told in tables if told["rows"]), None)
        for name, *cells in first["rows"] if first else ():
            found = dict(zip(first["columns"][1:], cells, strict=True))
            rows.setdefault(name, []).append({"run": outcome.point.name, **dict(outcome.point.settings), **found})
    return [{"row": name, "runs": of_runs} for name, of_runs in rows.items()]


def _curves(outcome: Outcome) -> list[dict[str, Any]]:
    """The validation reward of every agent that the run trained."""
    curves = []
    for file in sorted(outcome.folder.glob("agent_*/metrics/metrics.jsonl")):
        points = [(row["step"], row[_CURVE]) for row in read_metrics(file) if _CURVE in row]
        if points:
            steps, values = zip(*points, strict=True)
            metrics = {_CURVE: {"step": list(steps), "value": list(values)}}
            curves.append({"row": f"{outcome.point.name}: {outcome.point.told}", "seed": 0, "metrics": metrics})
    return curves
