"""The report of RLAIF: each training beside the ELM that it started from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from eagle_jax.base.metrics import read_metrics
from eagle_jax.elm.report import sample_tables
from eagle_jax.elm.rlaif.run import RlaifRun
from eagle_jax.elm.rlaif.settings import SC, START
from eagle_jax.elm.verdict import MEASURE_NAMES
from eagle_jax.reports import figures
from eagle_jax.reports.figures import Panel
from eagle_jax.reports.markdown import LEFT, Column, format_interval, table
from eagle_jax.reports.pages import Report, refuse_non_finite, shared_fields, write_pages
from eagle_jax.reports.verdicts import MIN_SEEDS

_CURVES = {
    "reward": Panel("reward while training", "reward"),
    "validation/reward": Panel("reward on validation", "reward"),
    "policy/kl": Panel("KL to the start, nats a text"),
    "policy/entropy": Panel("entropy, nats a token"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RlaifReport(Report):
    """settings: of a `RlaifExperiment`.

    tables: [{"temperature", "rows": of `summarize_consistency` with the group "all tasks",
    "comparisons": of `compare_to_start`, "kl": {system: nats} or None}], that of the trainings'
    temperature first. curves: of `figures.learning_curve`. samples: of the first temperature, as in
    `ElmReport`.
    """

    tables: Sequence[Mapping[str, Any]]
    curves: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any]

    @property
    def unit(self) -> str:
        """What is resampled."""
        return "films" if self.settings["reward"] == SC else "users"


def report_rlaif(run: RlaifRun) -> Path:
    """Writes report.html and report.md of a finished run, returns the path of the first."""
    settings, results = run.rlaif, run.stages["rlaif_results"]
    metrics = {
        policy: run.stages[run.training_stage(*policy)].path / "metrics" / "metrics.jsonl" for policy in run.policies
    }
    data = RlaifReport(
        **shared_fields(settings),
        confidence=settings.evaluation.bootstrap.confidence,
        tables=results.read_json("tables.json"),
        curves=[
            figures.learning_curve(name, seed, read_metrics(file), _CURVES) for (name, seed), file in metrics.items()
        ],
        samples=results.read_jsonl("samples.jsonl"),
        facts={"start": run.start.name, "world": run.spaces.world, "seconds": run.seconds()},
    )
    return write_rlaif_report(run.workdir, data)


def write_rlaif_report(folder: Path, data: RlaifReport) -> Path:
    """Writes report.html, report.md and its figure into `folder`, returns the first path.

    Raises ValueError for a number that is not finite.
    """
    for name in ("tables", "samples", "facts"):
        refuse_non_finite(name, getattr(data, name))
    first, *others = data.tables
    context = {
        "data": data,
        "verdicts": verdicts(data),
        "measure": MEASURE_NAMES[data.settings["reward"]],
        "temperature": first["temperature"],
        "results": _table(data, first, [Column("Raises it", "verdict", LEFT)]),
        "others": [(results["temperature"], _table(data, results, [])) for results in others],
        "samples": sample_tables(data.samples, tell),
    }
    drawn = {"curves": figures.curves_figure(data.curves, panels=_CURVES)}
    return write_pages(folder, "elm/rlaif/report", context, drawn)[0]


def verdicts(data: RlaifReport) -> Iterator[str]:
    """A sentence for each training: whether it raises the reward over its start."""
    first = data.tables[0]
    reward = data.settings["reward"]
    before = _row(first, START)["cells"][reward]["mean"]
    for row in first["comparisons"]:
        after = _row(first, row["system"])["cells"][reward]["mean"]
        number = len(row["by_seed"])
        sentence = (
            f"{tell(row['system'])} raises {reward.upper()} over its start: {row['verdict']}. From "
            f"{before:.3f} to {after:.3f}, {format_interval(row['difference'], signed=True)} over "
            f"{data.unit}"
        )
        if row["over_seeds"] is not None:
            over_seeds = format_interval(row["over_seeds"], signed=True)
            sentence += f", {over_seeds} over {number} seeds"
        yield sentence + ("." if number >= MIN_SEEDS else f"; {number} of {MIN_SEEDS} seeds.")


def tell(system: str) -> str:
    return system.replace("_", " ").capitalize()


def _row(results: Mapping[str, Any], system: str) -> Mapping[str, Any]:
    return next(row for row in results["rows"] if (row["system"], row["group"]) == (system, "all tasks"))


def _table(data: RlaifReport, results: Mapping[str, Any], more: Sequence[Column]) -> Markup:
    """A line for each system; of the trained ones with their differences to the start."""
    compared = {row["system"]: row for row in results["comparisons"]}
    nothing = {"difference": None, "over_seeds": None, "by_seed": (), "verdict": None}
    lines = [
        {**_row(results, system), **compared.get(system, nothing), "kl": (results["kl"] or {}).get(system)}
        for system in (START, *compared)
    ]
    columns = [
        Column("ELM", lambda line: tell(line["system"]), LEFT),
        *(
            Column(heading, lambda line, name=name: line["cells"][name])
            for name, heading in MEASURE_NAMES.items()
            if name in lines[0]["cells"]
        ),
        Column(f"Difference of the reward, {data.unit}", lambda line: format_interval(line["difference"], signed=True)),
        Column("over seeds", lambda line: format_interval(line["over_seeds"], signed=True)),
        Column("of each seed", lambda line: _by_seed(line["by_seed"])),
        Column("KL", lambda line: None if line["kl"] is None else f"{line['kl']:.2f}"),
        Column("Malformed", lambda line: f"{sum(line['malformed'].values())} of {line['num_outputs']}"),
        *more,
    ]
    return table(lines, columns)


def _by_seed(rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    differences = [format_interval(row["difference"], signed=True) for row in rows]
    return Markup(", ").join(differences) if rows else None
