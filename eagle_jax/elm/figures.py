"""Figures of ELM's report, in the manner of `figures`: tasks, paths through the space, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from eagle_jax.elm.verdict import MEASURE_NAMES, PAPER_MEASURES, SYSTEM_NAMES, Rows, find_cell, paper_score
from eagle_jax.reports.figures import COLORS, MARKERS, STYLE, new_figure

_LINES = {
    "sc/point": "SC with the point",
    "sc/first": "with the first end",
    "sc/second": "with the second end",
    "sc/start": "with the start",
    "has_tag": "share that names the tag",
    "bc/ndcg": "BC (NDCG)",
    "bc/spearman": "BC (Spearman)",
}
_COLUMNS = 3


def task_figure(rows: Rows, tasks: Sequence[str]) -> Figure | None:
    """Each task's SC and BC by system, with intervals, and the paper's (x); None without any."""
    panels = [
        measure for measure in PAPER_MEASURES if any(measure in row["cells"] for row in rows if row["group"] in tasks)
    ]
    if not panels:
        return None
    systems = _systems(rows, tasks)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(1, len(panels), width=7.4, height=1.0 + 0.27 * len(tasks))
        for axis, measure in zip(axes, panels, strict=True):
            for place, task in enumerate(tasks):
                for kind, system in enumerate(systems):
                    cell = find_cell(rows, task, system, measure)
                    if cell is None:
                        continue
                    at = place + 0.16 * (kind - (len(systems) - 1) / 2)
                    color = COLORS[kind % 7]
                    axis.plot([cell["low"], cell["high"]], [at] * 2, color=color, lw=1.2)
                    axis.plot(cell["mean"], at, MARKERS[kind % 7], color=color, ms=3.5)
                if (score := paper_score((task,), measure)) is not None:
                    axis.plot(score, place, "x", color="#8a8a8a", ms=6)
            axis.set_yticks(range(len(tasks)), [task.replace("_", " ") for task in tasks])
            axis.set_ylim(len(tasks) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            axis.grid(axis="x")
            axis.set_title(MEASURE_NAMES[measure], fontsize=9)
        for axis in axes[1:]:
            axis.set_yticklabels([])
        marks = [*((MARKERS[k % 7], COLORS[k % 7]) for k in range(len(systems))), ("x", "#8a8a8a")]
        _legend(figure, axes[0], marks, [*(SYSTEM_NAMES[s] for s in systems), "the paper's ELM"])
        return figure


def _systems(rows: Rows, tasks: Sequence[str]) -> list[str]:
    known = {row["system"] for row in rows if row["group"] in tasks}
    return [system for system in SYSTEM_NAMES if system in known]


def paths_figure(curves: Rows) -> Figure | None:
    """A panel for each path: its measures by alpha or step, bands: intervals; dotted: chance;
    dashed: the teacher's own profiles at step 0 (figure 5's ground truth)."""
    if not curves:
        return None
    measures = [m for m in _LINES if any(m in row["cells"] for c in curves for row in c["rows"])]
    columns = min(_COLUMNS, len(curves))
    lines = -(-len(curves) // columns)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(lines, columns, width=7.4, height=0.7 + 2.2 * lines)
        for axis, curve in zip(axes, curves, strict=False):
            for kind, measure in enumerate(measures):
                _draw_line(axis, curve, measure, kind)
            axis.set_title(curve["name"], fontsize=8)
            axis.set_xlabel("alpha" if curve["path"] == "interpolation" else "step (spreads)")
            axis.grid()
        for axis in axes[len(curves) :]:
            axis.set_axis_off()
        marks = [(MARKERS[k % 7] + "-", COLORS[k % 7]) for k in range(len(measures))]
        _legend(figure, axes[0], marks, [_LINES[measure] for measure in measures])
        return figure


def _draw_line(axis, curve: Mapping[str, Any], measure: str, kind: int) -> None:
    points = [row for row in curve["rows"] if measure in row["cells"]]
    color = COLORS[kind % 7]
    at = [row["position"] for row in points]
    cells = [row["cells"][measure] for row in points]
    axis.plot(at, [c["mean"] for c in cells], MARKERS[kind % 7] + "-", color=color, ms=3, lw=1.2)
    axis.fill_between(at, [c["low"] for c in cells], [c["high"] for c in cells], color=color, alpha=0.2, lw=0)
    for line, style in (("chance", ":"), ("truth", "--")):
        level = curve.get(line, {}).get(measure)
        if points and level is not None:
            axis.axhline(level, color=color, lw=1, ls=style)


def training_figure(training: Rows) -> Figure | None:
    """Loss of each stage's steps; None where nothing was logged."""
    stages = list(dict.fromkeys(row["stage"] for row in training))
    if not stages:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(1, len(stages), width=7.4, height=2.6)
        for axis, stage in zip(axes, stages, strict=True):
            rows = [row for row in training if row["stage"] == stage]
            axis.plot([r["step"] for r in rows], [r["loss"] for r in rows], color=COLORS[0], lw=1.2)
            axis.set_title(stage, fontsize=9)
            axis.set_xlabel("step")
            axis.grid()
        axes[0].set_ylabel("loss (nats per token)")
        return figure


def _legend(figure: Figure, axis, marks: Sequence[tuple[str, str]], names: Sequence[str]) -> None:
    handles = [axis.plot([], [], mark, color=color)[0] for mark, color in marks]
    figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(names)))
