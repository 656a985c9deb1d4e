"""The report's figures, drawn with matplotlib on the Agg backend; no display is needed.

Axis letters: `N` entities, `d` domain width, `T` texts of a trajectory. Colors are Okabe and Ito's,
which color-blind readers can tell apart; markers and line styles say the same once more.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eagle_jax.reports.principal_plane import fit_principal_plane

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a8a8a")
MARKERS = ("o", "D", "s", "^", "v", "P", "X")
_MAX_DOTS = 1000  # of the catalogue, evenly spaced in it: more only fill the page
_INK = "#1f2329"  # stands for the text color until the page's own color replaces it
STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#8a8a8a",
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "eagle_jax",  # the same figure gives the same file
    "text.parse_math": False,
}


def interval_figure(rows: Sequence[Mapping[str, Any]], panels: Mapping[str, str], label: str, part: int) -> Figure:
    """Mean and interval of every row, one panel for each of `panels` (name of the cell -> title), on one scale.

    label: of what is measured, in all panels; part: which part of a row's name, between commas, tells its kind.
    """
    kinds = [row["row"].split(",")[part] for row in rows]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(1, len(panels), width=7.4, height=0.9 + 0.3 * len(rows))
        for axis, (name, title) in zip(axes, panels.items(), strict=True):
            for place, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
                cell = row["cells"][name]
                number = numbers[kind] % len(COLORS)
                if cell is None:
                    continue
                axis.plot([cell["low"], cell["high"]], [place] * 2, color=COLORS[number], lw=2)
                axis.plot(cell["mean"], place, MARKERS[number], color=COLORS[number], ms=6)
            axis.set_yticks(range(len(rows)), [row["row"] for row in rows])
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            axis.grid(axis="x")
            axis.set_title(title, fontsize=9)
            axis.set_xlabel(label)
        limits = np.array([axis.get_xlim() for axis in axes])
        for axis in axes:
            axis.set_xlim(limits[:, 0].min(), limits[:, 1].max())
        for axis in axes[1:]:
            axis.set_yticklabels([])
        return figure


class Panel(NamedTuple):
    """How curves of a metric are shown.

    title: above them. quantity: panels of the same one have one axis; None: an axis of its own. least: what the axis
    spans at least.
    """

    title: str
    quantity: str | None = None
    least: float = 0.0


def curves_figure(
    curves: Sequence[Mapping[str, Any]], label: str = "iteration", panels: Mapping[str, Panel] | None = None
) -> Figure:
    """One panel for each metric, by its name or as `panels` has it; one color for each row, one line for each seed;
    label: of the steps."""
    names = list(dict.fromkeys(name for curve in curves for name in curve["metrics"]))
    rows = list(dict.fromkeys(curve["row"] for curve in curves))
    with matplotlib.rc_context(STYLE):
        figure, axes = new_panels(len(names), height=1.9)
        for axis, name in zip(axes, names, strict=True):
            for curve in curves:
                if name not in curve["metrics"]:
                    continue
                kind = rows.index(curve["row"]) % len(COLORS)
                axis.plot(
                    curve["metrics"][name]["step"],
                    curve["metrics"][name]["value"],
                    color=COLORS[kind],
                    ls=("-", "--", "-.", ":")[kind % 4],
                    lw=1.2,
                    alpha=0.85,
                )
            axis.grid()
        shown = [(panels or {}).get(name) or Panel(name) for name in names]
        for axis, panel in zip(axes, shown, strict=True):
            axis.set_title(panel.title, fontsize=9)
        _set_frames(axes, shown)
        for axis in axes[-2:]:
            axis.set_xlabel(label)
        handles = [
            axes[0].plot([], [], color=COLORS[i % 7], ls=("-", "--", "-.", ":")[i % 4])[0] for i in range(len(rows))
        ]
        figure.legend(handles, rows, loc="outside upper center", ncols=min(3, len(rows)))
        figure.get_layout_engine().set(h_pad=0.1)
        return figure


def _set_frames(axes: Sequence[Any], panels: Sequence[Panel]) -> None:
    """One range for panels of one quantity, drawn apart to a fifth of its larger end, and upwards to what it spans at
    least: a curve that hardly moves does not fill its frame."""
    ends = np.array([axis.get_ylim() for axis in axes])
    for place, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        alike = [n for n, other in enumerate(panels) if n == place or panel.quantity == other.quantity is not None]
        low, high = ends[alike, 0].min(), ends[alike, 1].max()
        missing = max(0.0, 0.2 * max(abs(low), abs(high)) - (high - low))
        low, high = low - missing / 2, high + missing / 2
        axis.set_ylim(low, max(high, low + panel.least))


def embedding_figure(picture: Mapping[str, Any]) -> Figure:
    """What exists as dots, and the way of some episodes from anchor (ring) to last text (mark)."""
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = new_figure(1, 1, width=7.4, height=5.6)
        axis.set_aspect("equal", adjustable="datalim")
        catalogue = np.asarray(picture["catalogue"])
        axis.scatter(*catalogue.T, s=7, color="#8a8a8a", alpha=0.35, lw=0, label="existing")
        for kind, trajectory in enumerate(picture["trajectories"]):
            color = COLORS[kind % 6]
            points = np.asarray(trajectory["points"])
            for start, end in zip(points[:-1], points[1:], strict=True):
                arrow = {"arrowstyle": "-|>", "color": color, "lw": 1.3, "shrinkA": 0, "shrinkB": 0}
                axis.annotate("", xy=end, xytext=start, arrowprops=arrow)
            axis.plot(*points[0], "o", mfc="none", mec=color, mew=1.6, ms=9)
            axis.plot(*points[-1], MARKERS[kind % 7], color=color, ms=7, label=trajectory["label"])
        first, second = picture["explained_variance"]
        axis.set_xlabel(f"first principal direction ({first:.0%} of the variance)")
        axis.set_ylabel(f"second ({second:.0%})")
        figure.legend(loc="outside upper center", ncols=4)
        return figure


def embedding_picture(catalogue_embeddings: np.ndarray, trajectories: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """JSON-able plane of the catalogue's two leading principal directions.

    The directions are those of all entities; at most `_MAX_DOTS` of them are kept as dots.

    Args:
      catalogue_embeddings: [N, d].
      trajectories: label -> embeddings of an episode's texts [T, d], its anchor first.
    """
    plane = fit_principal_plane(catalogue_embeddings)
    shown = catalogue_embeddings[:: -(-len(catalogue_embeddings) // _MAX_DOTS)]
    return {
        "catalogue": plane.project(shown).tolist(),
        "trajectories": [
            {"label": label, "points": plane.project(points).tolist()} for label, points in trajectories.items()
        ],
        "explained_variance": plane.explained_variance.tolist(),
    }


def to_inline_svg(figure: Figure, name: str) -> str:
    """SVG for an HTML page: in the page's text color, its ids made unique by `name`."""
    file = io.StringIO()
    with matplotlib.rc_context(STYLE):
        _lay_out(figure)
        empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=empty)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor").replace("xlink:href", "href")
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(?<=\sid=")', f"{name}-", svg)
    svg = re.sub(r'(?<=href="#)', f"{name}-", svg)
    svg = re.sub(r"(?<=url\(#)", f"{name}-", svg)
    return re.sub(r'\s(?:width|height)="[\d.]+pt"', "", svg, count=2)


def to_png(figure: Figure) -> bytes:
    """PNG on white, for viewers that do not know the page's colors."""
    file = io.BytesIO()
    _lay_out(figure)
    figure.savefig(file, format="png", dpi=150, facecolor="white")
    return file.getvalue()


def _lay_out(figure: Figure) -> None:
    """Once for all pictures of a figure: it takes as long as drawing one."""
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def new_figure(lines: int, columns: int, *, width: float, height: float):
    """A figure that belongs to no global state, with its axes as a flat list."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False)
    return figure, list(axes.flat)


def new_panels(count: int, *, columns: int = 2, height: float):
    """A figure of `count` panels in so many columns or fewer, each `height` inches high, and their axes."""
    columns = min(columns, count)
    lines = -(-count // columns)
    figure, axes = new_figure(lines, columns, width=7.4, height=0.6 + height * lines)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def learning_curve(
    row: str, seed: int, metric_rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, Any]:
    """The metrics `names` of one training run, each at the steps where it was written."""
    metrics = {}
    for name in names:
        present = [(r["step"], r[name]) for r in metric_rows if name in r]
        if not present:
            raise ValueError(f"metric {name!r} of row {row!r}, seed {seed} was never written")
        steps, values = zip(*present, strict=True)
        metrics[name] = {"step": list(steps), "value": list(values)}
    return {"row": row, "seed": seed, "metrics": metrics}
