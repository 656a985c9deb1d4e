"""Figures of the report of preference pairs, in the manner of `figures`.

`strategies` gives the order, and with it color and mark of each, the same in all figures. A table
is that of `preference_report`: a row for each strategy and number of labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from eagle_jax.real.evaluation.claims import STABLE_CORRELATION
from eagle_jax.real.evaluation.table import RunRows
from eagle_jax.real.evaluation.verdict import judged_pairs, similarity_bins
from eagle_jax.reports.figures import COLORS, MARKERS, STYLE, curves_figure, new_figure

_PAIRS_PER_BIN = 100  # fewer say little about a share
_MAX_BINS = 8
_MAX_POINTS = 200  # of a training curve: more only fill the page


def budget_figure(table: RunRows, strategies: Sequence[str], titles: Mapping[str, str]) -> Figure:
    """Mean and interval against the number of labels, a panel for each column of `titles`."""
    budgets = sorted({row["num_labels"] for row in table})
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(1, len(titles), width=7.4, height=3.6)
        for axis, (name, title) in zip(axes, titles.items(), strict=True):
            for kind, strategy in enumerate(strategies):
                rows = [r for r in table if r["strategy"] == strategy and r["cells"][name]]
                rows.sort(key=lambda row: row["num_labels"])
                # A little apart, so that strategies do not hide each other's intervals.
                at = [r["num_labels"] * 1.03 ** (kind - (len(strategies) - 1) / 2) for r in rows]
                cells = [r["cells"][name] for r in rows]
                axis.plot(
                    at,
                    [c.mean for c in cells],
                    MARKERS[kind % 7] + "-",
                    color=COLORS[kind % 7],
                    ms=5,
                    lw=1.2,
                    label=strategy,
                )
                for x, cell in zip(at, cells, strict=True):
                    _interval_line(axis.vlines, x, cell, kind, 1.2)
            _count_axis(axis, budgets)
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("labelled pairs")
            axis.grid()
        _legend(figure, axes[0], len(strategies))
        return figure


def _count_axis(axis, budgets: Sequence[int]) -> None:
    """A log axis that names the counts that there are: the style draws no math."""
    axis.set_xscale("log")
    axis.set_xlim(budgets[0] / 1.2, budgets[-1] * 1.2)
    axis.set_xticks(budgets, [str(budget) for budget in budgets])
    axis.minorticks_off()


def _interval_line(draw, at: float, cell: Any, kind: int, width: float) -> None:
    """The interval of a cell that has one: one seed alone has none."""
    if cell.low is not None:
        draw(at, cell.low, cell.high, color=COLORS[kind % 7], lw=width)


def ambiguity_figure(pairs: RunRows, strategies: Sequence[str], confidence: float) -> Figure | None:
    """Label errors, and the true gap, against similarity; None without a bin of enough pairs."""
    binned = {}
    for strategy in strategies:
        judged = judged_pairs(pairs, strategy)
        num_bins = min(_MAX_BINS, len(judged) // _PAIRS_PER_BIN)
        if num_bins:
            binned[strategy] = similarity_bins(judged, num_bins, confidence)
    if not binned:
        return None
    titles = {"error": "share of wrong labels", "gap": "mean gap in true utility"}
    if any(b["gap"] is None for bins in binned.values() for b in bins):
        del titles["gap"]
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(1, len(titles), width=7.4, height=3.6)
        for axis, (name, title) in zip(axes, titles.items(), strict=True):
            for strategy, bins in binned.items():
                kind = strategies.index(strategy)
                axis.plot(
                    [b["similarity"] for b in bins],
                    [b[name].mean for b in bins],
                    MARKERS[kind % 7] + "-",
                    color=COLORS[kind % 7],
                    ms=4,
                    lw=1,
                    label=strategy,
                )
                for b in bins:
                    _interval_line(axis.vlines, b["similarity"], b[name], kind, 1)
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("similarity of the pair")
            axis.set_ylim(bottom=0)
            axis.grid()
        _legend(figure, axes[0], len(binned))
        return figure


def runs_figure(curves: RunRows, strategies: Sequence[str], num_labels: int) -> Figure | None:
    """Means over seeds of the training metrics at one number of labels, a line for a strategy."""
    rows = []
    for strategy in strategies:
        runs = [c for c in curves if (c["strategy"], c["num_labels"]) == (strategy, num_labels)]
        common = set.intersection(*(set(c["step"]) for c in runs)) if runs else ()
        if common:
            metrics = {name: _mean_curve(runs, name, common) for name in runs[0]["metrics"]}
            rows.append({"row": strategy, "metrics": metrics})
    return curves_figure(rows) if rows else None


def _mean_curve(curves: RunRows, name: str, common: Set[int]) -> dict[str, list[float]]:
    """Mean of a metric over the seeds, at the steps that all have, smoothed to few points."""
    values = np.array([[v for s, v in zip(c["step"], c["metrics"][name], strict=True) if s in common] for c in curves])
    blocks = min(_MAX_POINTS, len(common))
    steps = np.array(sorted(common), np.float64)
    return {
        "step": [float(part.mean()) for part in np.array_split(steps, blocks)],
        "value": [float(part.mean()) for part in np.array_split(values.mean(axis=0), blocks)],
    }


def stability_figure(stability: RunRows, strategies: Sequence[str]) -> Figure:
    """Similarities at each checkpoint (bands), and their rank correlation with the start."""
    shown = [s for s in strategies if any(row["strategy"] == s for row in stability)]
    columns = min(3, len(shown) + 1)
    lines = -(-(len(shown) + 1) // columns)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(lines, columns, width=7.4, height=0.6 + 2.2 * lines)
        for kind, (axis, strategy) in enumerate(zip(axes, shown, strict=False)):
            steps, quantiles = _over_seeds(stability, strategy, "quantiles")
            color = COLORS[strategies.index(strategy) % 7]
            axis.fill_between(steps, quantiles[:, 0], quantiles[:, 4], color=color, alpha=0.2, lw=0)
            axis.fill_between(steps, quantiles[:, 1], quantiles[:, 3], color=color, alpha=0.4, lw=0)
            axis.plot(steps, quantiles[:, 2], color=color, lw=1.5)
            axis.set_title(strategy, fontsize=9)
            axis.set_ylim(*_limits(stability))
            if kind % columns == 0:
                axis.set_ylabel("similarity")
        last = axes[len(shown)]
        for strategy in shown:
            kind = strategies.index(strategy)
            steps, correlation = _over_seeds(stability, strategy, "rank_correlation")
            last.plot(steps, correlation, MARKERS[kind % 7] + "-", color=COLORS[kind % 7], ms=3)
        last.axhline(STABLE_CORRELATION, color="#8a8a8a", lw=1, ls="--")
        last.set_ylim(min(0, *(row["rank_correlation"] for row in stability)), 1.05)
        last.set_title("rank correlation with the start", fontsize=9)
        for axis in axes[: len(shown) + 1]:
            axis.set_xlabel("step")
            axis.grid()
        for axis in axes[len(shown) + 1 :]:
            axis.set_axis_off()
        return figure


def _over_seeds(stability: RunRows, strategy: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps that all seeds have, and the mean over seeds of `name` at each."""
    rows = [row for row in stability if row["strategy"] == strategy]
    by_seed = [{r["step"] for r in rows if r["seed"] == seed} for seed in {r["seed"] for r in rows}]
    steps = sorted(set.intersection(*by_seed))
    means = [np.mean([row[name] for row in rows if row["step"] == s], axis=0) for s in steps]
    return np.array(steps), np.array(means)


def _limits(stability: RunRows) -> tuple[float, float]:
    """The same range for all panels, with some air."""
    low = min(row["quantiles"][0] for row in stability)
    high = max(row["quantiles"][4] for row in stability)
    air = 0.05 * (high - low or 1.0)
    return low - air, high + air


def win_figure(table: RunRows, strategies: Sequence[str], titles: Mapping[str, str]) -> Figure:
    """Win rates and intervals, a panel for each judge (column -> title), a line for each row."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(1, len(titles), width=7.4, height=1.0 + 0.3 * len(table))
        for axis, (name, title) in zip(axes, titles.items(), strict=True):
            axis.axvline(0.5, color="#8a8a8a", lw=1, ls="--")
            for place, row in enumerate(table):
                cell = row["cells"][name]
                kind = strategies.index(row["strategy"])
                if cell is not None:
                    axis.barh(place, cell.mean, height=0.6, color=COLORS[kind % 7], alpha=0.35)
                    _interval_line(axis.hlines, place, cell, kind, 3)
            axis.set_yticks(range(len(table)), [row["strategy"] for row in table])
            axis.set_ylim(len(table) - 0.5, -0.5)
            axis.set_xlim(0, 1)
            axis.tick_params(axis="y", length=0)
            axis.set_title(title, fontsize=9)
            axis.grid(axis="x")
        for axis in axes[1:]:
            axis.set_yticklabels([])
        return figure


def _legend(figure: Figure, axis, count: int) -> None:
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=min(4, count))
