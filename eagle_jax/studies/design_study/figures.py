"""Figures of the study of kept subsets, in the manner of `figures`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from eagle_jax.reports.figures import COLORS, MARKERS, STYLE, new_figure, new_panels
from eagle_jax.studies.design_study.measures import ALL, EXCHANGE, RANDOM, TOP_K, subsample_rule
from eagle_jax.studies.design_study.verdict import StudyCell


def acceptance_figure(cells: Sequence[StudyCell]) -> Figure:
    """Share of accepted draws against k / (C n), one panel for each C, a mark for each cell."""
    constants = [row["subsample_factor"] for row in cells[0]["paper"]]
    with matplotlib.rc_context(STYLE):
        figure, axes = new_panels(len(constants), height=2.3)
        for place, (axis, constant) in enumerate(zip(axes, constants, strict=True)):
            axis.axvline(1.0, color="#8a8a8a", lw=1, ls="--")
            for kind, (name, family_cells) in enumerate(_families(cells).items()):
                points = [
                    (c["num_kept"] / (constant * c["width"]), c["paper"][place]["accepted"]) for c in family_cells
                ]
                _mark(axis, points, kind, name)
            _make_log(axis.set_xscale, axis.xaxis)
            axis.set_title(f"C = {constant:g}", fontsize=9)
            axis.set_xlabel("k / (C n)")
            axis.set_ylabel("share of draws accepted")
            axis.set_ylim(-0.05, 1.05)
            axis.grid()
        _legend(figure, axes[0])
        return figure


def leverage_figure(cells: Sequence[StudyCell]) -> Figure:
    """Largest leverage of a draw over n, smallest to largest and median, against k / n."""
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = new_figure(1, 1, width=7.4, height=3.8)
        ratios = np.array(sorted({c["num_kept"] / c["width"] for c in cells}))
        axis.axhline(1.0, color="#8a8a8a", lw=1, ls="--", label="n: what C = 1 allows")
        axis.plot(ratios, ratios, color="#8a8a8a", lw=1, ls=":", label="k: the largest possible")
        for kind, (name, family_cells) in enumerate(_families(cells).items()):
            # A little apart, so that sets at the same k / n do not hide each other.
            at = [c["num_kept"] / c["width"] * 1.06 ** (kind - 1.5) for c in family_cells]
            ranges = [c["largest_kept_leverage_over_n"] for c in family_cells]
            low, high = ([r[name] for r in ranges] for name in ("smallest", "largest"))
            axis.vlines(at, low, high, color=COLORS[kind], lw=1.2, alpha=0.7)
            _mark(axis, [(x, r["median"]) for x, r in zip(at, ranges, strict=True)], kind, name)
        _make_log(axis.set_xscale, axis.xaxis)
        _make_log(axis.set_yscale, axis.yaxis)
        axis.set_xlabel("k / n")
        axis.set_ylabel("largest leverage of the kept / n")
        axis.grid()
        _legend(figure, axis)
        return figure


def factor_figure(cells: Sequence[StudyCell]) -> Figure:
    """Median factor of each rule's subsets against k / rank, where it is finite."""
    largest = cells[0]["paper"][-1]["subsample_factor"]
    # The first four as in the other figure.
    rules = dict.fromkeys((RANDOM, subsample_rule(1.0), TOP_K, EXCHANGE, subsample_rule(largest)))
    families = _families(cells)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_panels(len(families), height=2.5)
        for axis, (name, family_cells) in zip(axes, families.items(), strict=True):
            for kind, rule in enumerate(rules):
                points = [
                    (c["num_kept"] / c["rank"] * 1.05 ** (kind - 2), median)
                    for c in family_cells
                    if (median := c["rules"][rule]["median_factor"]) is not None
                ]
                _mark(axis, points, kind, rule)
            _make_log(axis.set_xscale, axis.xaxis)
            _make_log(axis.set_yscale, axis.yaxis)
            axis.set_title(name, fontsize=9)
            axis.set_xlabel("k / rank")
            axis.set_ylabel("median factor")
            axis.grid()
        _legend(figure, axes[0])
        return figure


def exploration_figure(cells: Sequence[StudyCell]) -> Figure:
    """Mean and interval of four measures, a line for each set and rule."""
    measures = {
        "volume": "volume / that of all candidates",
        "weakest_direction": "weakest direction / that of all",
        "utility_deviation": "standard deviation of U",
        "best_gain": "best U - U(anchor)",
    }
    rules = (RANDOM, subsample_rule(1.0), TOP_K, EXCHANGE, ALL)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(2, 2, width=7.4, height=1.4 + 1.3 * len(cells))
        for axis, (name, title) in zip(axes, measures.items(), strict=True):
            for place, cell in enumerate(cells):
                for kind, rule in enumerate(rules):
                    value = cell["rules"][rule]["measures"][name]
                    line = place + 0.15 * (kind - 2)
                    axis.plot([value["low"], value["high"]], [line] * 2, color=COLORS[kind], lw=1.5)
                    _mark(axis, [(value["mean"], line)], kind, rule if place == 0 else None)
            axis.set_yticks(range(len(cells)), [f"{cell['set']}\n{cell['footing']}" for cell in cells])
            axis.set_ylim(len(cells) - 0.5, -0.5)
            axis.grid(axis="x")
            axis.set_title(title, fontsize=9)
        for axis in (axes[1], axes[3]):
            axis.set_yticklabels([])
        _legend(figure, axes[0])
        return figure


def _mark(axis: Axes, points: Sequence[tuple[float, float]], kind: int, label: str | None) -> None:
    at, values = zip(*points, strict=True) if points else ((), ())
    axis.plot(at, values, MARKERS[kind], color=COLORS[kind], ms=5, alpha=0.75, mew=0, label=label)


def _legend(figure: Figure, axis: Axes) -> None:
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=3)


def _make_log(set_scale: Callable[[str], None], axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade: the style draws no math."""
    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _families(cells: Sequence[StudyCell]) -> dict[str, list[StudyCell]]:
    """By what kind of set they are of: the part of its name before the first comma."""
    families: dict[str, list[StudyCell]] = {}
    for cell in cells:
        families.setdefault(cell["set"].split(",")[0], []).append(cell)
    return families
