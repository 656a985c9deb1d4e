"""Figures of the study of kept subsets, in the manner of `figures`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from eagle_jax.reports.figures import COLORS, MARKERS, STYLE, new_figure
from eagle_jax.studies.design_study.measures import ALL, EXCHANGE, RANDOM, TOP_K, subsample_rule
from eagle_jax.studies.design_study.verdict import StudyCell


def acceptance_figure(cells: Sequence[StudyCell]) -> Figure:
    """Share of accepted draws against k / (C n), one panel for each C, a mark for each cell."""
    constants = [row["subsample_factor"] for row in cells[0]["paper"]]
    families = _families(cells)
    columns = min(2, len(constants))
    lines = -(-len(constants) // columns)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(lines, columns, width=7.4, height=0.5 + 2.3 * lines)
        for place, (axis, constant) in enumerate(zip(axes, constants, strict=False)):
            axis.axvline(1.0, color="#8a8a8a", lw=1, ls="--")
            for kind, name in enumerate(families):
                family_cells = [c for c in cells if _family(c) == name]
                axis.plot(
                    [c["num_kept"] / (constant * c["width"]) for c in family_cells],
                    [c["paper"][place]["accepted"] for c in family_cells],
                    MARKERS[kind],
                    color=COLORS[kind],
                    ms=5,
                    alpha=0.6,
                    mew=0,
                    label=name,
                )
            _make_log(axis.set_xscale, axis.xaxis)
            axis.set_title(f"C = {constant:g}", fontsize=9)
            axis.set_xlabel("k / (C n)")
            axis.set_ylabel("share of draws accepted")
            axis.set_ylim(-0.05, 1.05)
            axis.grid()
        for axis in axes[len(constants) :]:
            axis.set_axis_off()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(families))
        return figure


def leverage_figure(cells: Sequence[StudyCell]) -> Figure:
    """Largest leverage of a draw over n, smallest to largest and median, against k / n."""
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = new_figure(1, 1, width=7.4, height=3.8)
        ratios = np.array(sorted({c["num_kept"] / c["width"] for c in cells}))
        axis.axhline(1.0, color="#8a8a8a", lw=1, ls="--", label="n: what C = 1 allows")
        axis.plot(ratios, ratios, color="#8a8a8a", lw=1, ls=":", label="k: the largest possible")
        for kind, name in enumerate(_families(cells)):
            family_cells = [c for c in cells if _family(c) == name]
            # A little apart, so that sets at the same k / n do not hide each other.
            at = np.array([c["num_kept"] / c["width"] for c in family_cells]) * 1.06 ** (kind - 1.5)
            ranges = [c["largest_kept_leverage_over_n"] for c in family_cells]
            axis.vlines(
                at,
                [r["smallest"] for r in ranges],
                [r["largest"] for r in ranges],
                color=COLORS[kind],
                lw=1.2,
                alpha=0.7,
            )
            medians = [r["median"] for r in ranges]
            axis.plot(at, medians, MARKERS[kind], color=COLORS[kind], ms=5, label=name)
        _make_log(axis.set_xscale, axis.xaxis)
        _make_log(axis.set_yscale, axis.yaxis)
        axis.set_xlabel("k / n")
        axis.set_ylabel("largest leverage of the kept / n")
        axis.grid()
        figure.legend(loc="outside upper center", ncols=3)
        return figure


def factor_figure(cells: Sequence[StudyCell]) -> Figure:
    """Median factor of each rule's subsets against k / rank, where it is finite."""
    largest = cells[0]["paper"][-1]["subsample_factor"]
    # The first four as in the other figure.
    rules = (RANDOM, subsample_rule(1.0), TOP_K, EXCHANGE, subsample_rule(largest))
    families = _families(cells)
    columns = min(2, len(families))
    lines = -(-len(families) // columns)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(lines, columns, width=7.4, height=0.6 + 2.5 * lines)
        for axis, name in zip(axes, families, strict=False):
            family_cells = [c for c in cells if _family(c) == name]
            for kind, rule in enumerate(dict.fromkeys(rules)):
                points = [
                    (c["num_kept"] / c["rank"] * 1.05 ** (kind - 2), median)
                    for c in family_cells
                    if (median := c["rules"][rule]["median_factor"]) is not None
                ]
                axis.plot(
                    *(zip(*points, strict=True) if points else ((), ())),
                    MARKERS[kind],
                    color=COLORS[kind],
                    ms=5,
                    alpha=0.75,
                    mew=0,
                    label=rule,
                )
            _make_log(axis.set_xscale, axis.xaxis)
            _make_log(axis.set_yscale, axis.yaxis)
            axis.set_title(name, fontsize=9)
            axis.set_xlabel("k / rank")
            axis.set_ylabel("median factor")
            axis.grid()
        for axis in axes[len(families) :]:
            axis.set_axis_off()
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=3)
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
                    axis.plot(
                        value["mean"], line, MARKERS[kind], color=COLORS[kind], ms=4, label=rule if place == 0 else None
                    )
            labels = [f"{cell['set']}\n{cell['footing']}" for cell in cells]
            axis.set_yticks(range(len(cells)), labels)
            axis.set_ylim(len(cells) - 0.5, -0.5)
            axis.grid(axis="x")
            axis.set_title(title, fontsize=9)
        for axis in (axes[1], axes[3]):
            axis.set_yticklabels([])
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=3)
        return figure


def _make_log(set_scale: Callable[[str], None], axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade: the style draws no math."""
    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _family(cell: StudyCell) -> str:
    """What kind of set it is: the part of its name before the first comma."""
    return cell["set"].split(",")[0]


def _families(cells: Sequence[StudyCell]) -> list[str]:
    return list(dict.fromkeys(_family(c) for c in cells))
