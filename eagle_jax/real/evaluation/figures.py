"""Figures of the report of preference pairs, in the manner of `figures`.

`strategies` gives the order, and with it color and mark of each, the same in all figures. A table
is that of the report: a row for each strategy and number of labels.
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
from eagle_jax.reports.figures import COLORS, MARKERS, STYLE, curves_figure, interval_figure, new_figure, new_panels

_PAIRS_PER_BIN = 100  # fewer say little about a share
_MAX_BINS = 8
_MAX_POINTS = 200  # of a training curve: more only fill the page


def budget_figure(table: RunRows, strategies: Sequence[str], titles: Mapping[str, str]) -> Figure | None:
    """Mean and interval against the number of labels, a panel for each column of `titles` that any
    row has; None without one."""
    panels = {}
    for name, title in titles.items():
        for row in table:
            if row["cells"][name]:
                # A little apart, so that strategies do not hide each other's intervals.
                apart = 1.03 ** (strategies.index(row["strategy"]) - (len(strategies) - 1) / 2)
                point = row["num_labels"] * apart, row["cells"][name]
                panels.setdefault(title, {}).setdefault(row["strategy"], []).append(point)
    if not panels:
        return None
    figure = _interval_curves(panels, strategies, "labelled pairs")
    budgets = sorted({row["num_labels"] for row in table})
    for axis in figure.axes:  # log axes that name the counts that there are: the style draws no math
        axis.set_xscale("log")
        axis.set_xlim(budgets[0] / 1.2, budgets[-1] * 1.2)
        axis.set_xticks(budgets, [str(budget) for budget in budgets])
        axis.minorticks_off()
    return figure


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
    panels = {
        title: {strategy: [(b["similarity"], b[name]) for b in bins] for strategy, bins in binned.items()}
        for name, title in titles.items()
    }
    figure = _interval_curves(panels, strategies, "similarity of the pair")
    for axis in figure.axes:
        axis.set_ylim(bottom=0)
    return figure


def _interval_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, Any]]]], strategies: Sequence[str], label: str
) -> Figure:
    """A panel for each title: strategy -> (place, mean with its interval), the line that they make."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(1, len(panels), width=7.4, height=3.6)
        for axis, (title, curves) in zip(axes, panels.items(), strict=True):
            for strategy, points in curves.items():
                kind = strategies.index(strategy) % 7
                means = [cell.mean for _, cell in points]
                axis.plot(
                    [at for at, _ in points],
                    means,
                    MARKERS[kind] + "-",
                    color=COLORS[kind],
                    ms=5,
                    lw=1.2,
                    label=strategy,
                )
                for at, cell in points:
                    if cell.low is not None:  # one seed alone has no interval
                        axis.vlines(at, cell.low, cell.high, color=COLORS[kind], lw=1.2)
            axis.set_title(title, fontsize=9)
            axis.set_xlabel(label)
            axis.grid()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(4, len(strategies)))
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
    with matplotlib.rc_context(STYLE):
        figure, (*axes, last) = new_panels(len(shown) + 1, columns=3, height=2.2)
        for axis, strategy in zip(axes, shown, strict=True):
            kind = strategies.index(strategy) % 7
            steps, quantiles = _over_seeds(stability, strategy, "quantiles")
            for low, high, alpha in ((0, 4, 0.2), (1, 3, 0.4)):
                axis.fill_between(steps, quantiles[:, low], quantiles[:, high], color=COLORS[kind], alpha=alpha, lw=0)
            axis.plot(steps, quantiles[:, 2], color=COLORS[kind], lw=1.5)
            axis.set_title(strategy, fontsize=9)
            axis.set_ylim(*_limits(stability))
            steps, correlation = _over_seeds(stability, strategy, "rank_correlation")
            last.plot(steps, correlation, MARKERS[kind] + "-", color=COLORS[kind], ms=3)
        for axis in axes[::3]:
            axis.set_ylabel("similarity")
        last.axhline(STABLE_CORRELATION, color="#8a8a8a", lw=1, ls="--")
        last.set_ylim(min(0, *(row["rank_correlation"] for row in stability)), 1.05)
        last.set_title("rank correlation with the start", fontsize=9)
        for axis in (*axes, last):
            axis.set_xlabel("step")
            axis.grid()
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


def win_figure(table: RunRows, titles: Mapping[str, str]) -> Figure | None:
    """Win rates and intervals, a panel for each judge (column -> title) that was asked, a line for
    each row; None without one."""
    titles = {name: title for name, title in titles.items() if any(row["cells"][name] for row in table)}
    if not titles:
        return None
    rows = [
        {"row": row["strategy"], "cells": {name: cell and cell._asdict() for name, cell in row["cells"].items()}}
        for row in table
    ]
    figure = interval_figure(rows, titles, "win rate", part=0)
    for axis in figure.axes:
        axis.axvline(0.5, color="#8a8a8a", lw=1, ls="--")
        axis.set_xlim(0, 1)
    return figure
