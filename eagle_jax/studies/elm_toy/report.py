"""The report of ELM's toy: report.html, which stands alone, and report.md with its figure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from eagle_jax.reports import figures
from eagle_jax.reports.markdown import LEFT, Column, table
from eagle_jax.reports.pages import Report, write_pages

CHANCE_NATS = math.log(2)  # nats, the least that a model can have that does not look at the vector
_FLOOR = 1e-7  # of nats in the figure: float32 rounds smaller ones to 0
CONVERGED = 0.1  # nats of the right text: it has a probability of 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyData(Report):
    """runs: [{"training", "condition", "seed", "curve": [{"step", "nats", "accuracy"}]}]."""

    model: str
    texts: Sequence[str]
    num_steps: int
    adapter_steps: int
    runs: Sequence[Mapping[str, Any]]


def summarize_toy(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each training and condition: what its seeds came to.

    steps: of each seed, the first logged step from which on nats stay below `CONVERGED`, None if
    they do not; constant: seeds that end without telling the vectors apart (one of two is right, or
    none, and the nats are no better than chance).
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        names = {name: run[name] for name in ("training", "condition")}
        row = rows.setdefault(
            tuple(names.values()), {**names, "nats": [], "accuracy": [], "steps": [], "num_constant": 0}
        )
        last = run["curve"][-1]
        row["nats"].append(last["nats"])
        row["accuracy"].append(last["accuracy"])
        row["steps"].append(_first_step_below(run["curve"]))
        row["num_constant"] += last["nats"] >= 0.9 * CHANCE_NATS and last["accuracy"] <= 0.5
    return list(rows.values())


def _first_step_below(curve: Sequence[Mapping[str, float]]) -> int | None:
    above = [place for place, point in enumerate(curve) if point["nats"] >= CONVERGED]
    following = above[-1] + 1 if above else 0
    return int(curve[following]["step"]) if following < len(curve) else None


def toy_verdict(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What happened, a sentence for each training and one that compares with the paper."""
    converged = dict.fromkeys((row["training"] for row in rows), 0)
    counts = {row["condition"]: dict(converged) for row in rows}
    for training in converged:
        training_rows = [row for row in rows if row["training"] == training]
        for row in training_rows:
            counts[row["condition"]][training] += sum(step is not None for step in row["steps"])
        steps = [step for row in training_rows for step in row["steps"]]
        done = [step for step in steps if step is not None]
        converged[training] = len(done)
        when = f", after {min(done)} to {max(done)} steps" if done else ""
        constant = sum(row["num_constant"] for row in training_rows)
        yield (
            f"{training.capitalize()}: {len(done)} of {len(steps)} runs converge{when}; "
            f"{constant} end without telling the two vectors apart."
        )
    if not any(converged.values()):
        yield "No run converges: nothing is learned about stages from this."
        return
    one, two = converged["one stage"], converged["two stages"]
    better = [condition for condition, n in counts.items() if n["two stages"] > n["one stage"]]
    worse = [condition for condition, n in counts.items() if n["two stages"] < n["one stage"]]
    for conditions, said in ((better, "more"), (worse, "fewer")):
        for condition in conditions:
            yield f"{condition}: {said} runs converge with two stages than with one."
    if one == 0:
        yield "As in the paper, one stage never converges."
    elif better:
        yield (
            "The paper's finding that one stage does not converge is seen under "
            f"{len(better)} of {len(counts)} conditions, not under all."
        )
    else:
        yield (
            "The paper's finding that one stage does not converge is not seen here: "
            f"{one} runs converge with one stage, {two} with two."
        )


def toy_figure(data: ToyData) -> Figure:
    """Nats and accuracy against steps: a line of panels for each condition, a line for each seed."""
    curves = []
    for run in data.runs:
        steps = [point["step"] for point in run["curve"]]
        values = {
            "nats": [max(point["nats"], _FLOOR) for point in run["curve"]],
            "accuracy": [point["accuracy"] for point in run["curve"]],
        }
        metrics = {f"{name}, {run['condition']}": {"step": steps, "value": value} for name, value in values.items()}
        curves.append({"row": run["training"], "metrics": metrics})
    figure = figures.curves_figure(curves, "step")
    for axis in figure.axes:
        axis.axvline(data.adapter_steps, color="#8a8a8a", lw=0.8, ls=":")
        if axis.get_title().startswith("nats"):
            axis.set_yscale("log")
            axis.set_ylim(0.5 * _FLOOR, 100)
            axis.set_yticks([1e-6, 1e-4, 1e-2, 1, 100])
            axis.yaxis.set_major_formatter("{x:g}")
            axis.axhline(CHANCE_NATS, color="#8a8a8a", lw=0.8, ls=":")
        else:
            axis.set_ylim(-0.05, 1.05)
    return figure


def write_toy_report(folder: Path, data: ToyData) -> Path:
    """Writes report.html, report.md and its figure into `folder`, returns the first path."""
    rows = summarize_toy(data.runs)
    context = {"data": data, "verdict": toy_verdict(rows), "runs": table(rows, _COLUMNS), "converged": CONVERGED}
    return write_pages(folder, "studies/elm_toy/report", context, {"curves": toy_figure(data)})[0]


def _each(values: Sequence[float | None]) -> str:
    """A number for each seed; "no" where there is none."""
    return ", ".join("no" if value is None else f"{value:.3g}" for value in values)


_COLUMNS = (
    Column("Condition", "condition", LEFT),
    Column("Training", "training", LEFT),
    Column("Nats", lambda row: _each(row["nats"])),
    Column("Accuracy", lambda row: _each(row["accuracy"])),
    Column("Converged after", lambda row: _each(row["steps"])),
    Column("Not told apart", lambda row: f"{row['num_constant']} of {len(row['nats'])}"),
)
