"""Tables of preference optimisation over seeds: means, differences from random, labels saved.

Rows are JSON-able mappings with "strategy", "num_labels", "seed" and metrics: numbers, None where
there is none, and mappings of such, whose names are joined by "/" ("held_out/rewards/margin").
Texts and lists are no metrics.
"""

from __future__ import annotations

import math
import numbers
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.reports.statistics import t_interval

BASELINE = "random"  # the strategy that the others are compared with

RunRow = Mapping[str, Any]
RunRows = Sequence[RunRow]


class Cell(NamedTuple):
    """What a mean over seeds is of."""

    strategy: str
    num_labels: int
    metric: str


class SeedMean(NamedTuple):
    """Mean over seeds with Student's interval; one seed alone has no interval."""

    mean: float
    low: float | None
    high: float | None
    num_seeds: int


class LabelsSaved(NamedTuple):
    """What a strategy needs for the value that the baseline has at its largest budget.

    num_needed, share_saved: of the curves' means over seeds; None where it is not reached.
    by_seed: seed -> share saved by the curves of this seed alone, None where it is not reached.
    """

    num_needed: float | None
    share_saved: float | None
    by_seed: Mapping[int, float | None]


def seed_mean(values: Sequence[float], confidence: float) -> SeedMean:
    """Of one value for each seed."""
    if len(values) == 1:
        return SeedMean(values[0], None, None, 1)
    interval = t_interval(values, confidence)
    return SeedMean(interval.mean, interval.low, interval.high, interval.num_values)


def seed_means(rows: RunRows, confidence: float) -> dict[Cell, SeedMean]:
    """Mean over seeds of every metric of every strategy and number of labels, with Student's interval.

    A metric that some seeds do not have (None) is the mean of the others: see num_seeds. Raises
    ValueError that names strategy, number of labels, seed and metric for a number that is not finite and for
    two rows of the same run.
    """
    return {cell: seed_mean(list(by_seed.values()), confidence) for cell, by_seed in _by_cell(rows).items()}


def paired_differences(rows: RunRows, confidence: float, baseline: str = BASELINE) -> dict[Cell, SeedMean]:
    """Mean over seeds of (strategy - baseline) at the same number of labels and seed, with its interval.

    A metric that the baseline does not have is left out. Raises as `seed_means`, and ValueError for
    runs whose seed or number of labels the baseline was not run with.
    """
    runs = {(row["strategy"], row["num_labels"], row["seed"]) for row in rows}
    for strategy, count, seed in sorted(runs):
        if (baseline, count, seed) not in runs:
            raise ValueError(
                f"strategy {strategy!r}, num_labels {count}, seed {seed}: there is no run of "
                f"{baseline!r} to compare it with"
            )
    values = _by_cell(rows)
    differences = {}
    for cell, by_seed in values.items():
        other = values.get(cell._replace(strategy=baseline), {})
        paired = [value - other[seed] for seed, value in by_seed.items() if seed in other]
        if cell.strategy != baseline and paired:
            differences[cell] = seed_mean(paired, confidence)
    return differences


def labels_to_reach(curve: Mapping[int, float], target: float) -> float | None:
    """Labels at which a curve first reaches the target, linear between budgets; None if never.

    curve: number of labels -> value, higher is better. One that begins at or above the target gives
    its smallest budget: fewer were not tried.
    """
    budgets = sorted(curve)
    values = np.array([curve[budget] for budget in budgets])
    reached = np.flatnonzero(values >= target)
    if not len(reached):
        return None
    around = slice(max(reached[0] - 1, 0), reached[0] + 1)
    return float(np.interp(target, values[around], budgets[around]))


def labels_saved(runs: RunRows, metric: str) -> dict[str, LabelsSaved]:
    """Strategy -> what it needs for the value of `metric` that `random` has at its largest budget.

    The share saved is 1 - needed / that budget (REAL's "up to 65 %"). Random's own row is the
    control: it is above 0 where its curve is no longer rising or noisy. Raises as `seed_means`, and
    ValueError where `random` does not have the metric.
    """
    curves: dict[str, dict[int, dict[int, float]]] = defaultdict(dict)
    for cell, by_seed in _by_cell(runs).items():
        if cell.metric == metric:
            curves[cell.strategy][cell.num_labels] = by_seed
    if BASELINE not in curves:
        raise ValueError(f"no run of {BASELINE!r} has the metric {metric!r}")
    largest = max(curves[BASELINE])

    def share(num_needed: float | None) -> float | None:
        return None if num_needed is None else 1.0 - num_needed / largest

    def mean(by_seed: Mapping[int, float]) -> float:
        return float(np.mean(list(by_seed.values())))

    targets = curves[BASELINE][largest]
    saved = {}
    for strategy, curve in curves.items():
        num_needed = labels_to_reach({budget: mean(values) for budget, values in curve.items()}, mean(targets))
        by_seed = {}
        for seed, target in targets.items():
            of_seed = {budget: values[seed] for budget, values in curve.items() if seed in values}
            by_seed[seed] = share(labels_to_reach(of_seed, target))
        saved[strategy] = LabelsSaved(num_needed, share(num_needed), by_seed)
    return saved


def _by_cell(rows: RunRows) -> dict[Cell, dict[int, float]]:
    """Cell -> seed -> value."""
    values: dict[Cell, dict[int, float]] = defaultdict(dict)
    for row in rows:
        strategy, count, seed = row["strategy"], row["num_labels"], row["seed"]
        for metric, value in _metrics(row):
            if metric in ("seed", "num_labels"):
                continue
            where = f"strategy {strategy!r}, num_labels {count}, seed {seed}, metric {metric!r}"
            if not math.isfinite(value):
                raise ValueError(f"{where}: {value} is not finite")
            by_seed = values[Cell(strategy, count, metric)]
            if seed in by_seed:
                raise ValueError(f"{where}: two rows of the same run")
            by_seed[seed] = float(value)
    return dict(values)


def _metrics(row: RunRow, prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _metrics(value, f"{prefix}{name}/")
        elif isinstance(value, numbers.Real):
            yield prefix + name, value
