"""Tables of preference optimisation over seeds: means, differences from random, labels saved.

Rows are JSON-able mappings with "strategy", "seed", a place on an axis ("num_labels" of a trained
model, "step" of a checkpoint) and metrics: numbers, None where there is none, and mappings of such,
whose names are joined by "/" ("held_out/rewards/margin"). Texts and lists are no metrics.
Axis letter: B budgets of labels.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from eagle_jax.reports.statistics import t_interval

BASELINE = "random"  # the strategy that the others are compared with

RunRow = Mapping[str, Any]
RunRows = Sequence[RunRow]
Axis = Literal["num_labels", "step"]


class Cell(NamedTuple):
    """What a mean over seeds is of; place: the number of labels, or the step."""

    strategy: str
    place: int
    metric: str


class SeedMean(NamedTuple):
    """Mean over seeds with Student's interval; one seed alone has no interval."""

    mean: float
    low: float | None
    high: float | None
    num_seeds: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelsSaved:
    """What a strategy needs for the value that the baseline has at its largest budget.

    target, num_needed, share_saved: of the curves' means over seeds; None where it is not reached.
    by_seed: seed -> share saved by the curves of this seed alone, None where it is not reached.
    """

    target: float
    num_needed: float | None
    share_saved: float | None
    by_seed: Mapping[int, float | None]


def seed_means(rows: RunRows, axis: Axis, confidence: float) -> dict[Cell, SeedMean]:
    """Mean over seeds of every metric of every strategy at every place, with Student's interval.

    A metric that some seeds do not have (None) is the mean of the others: see num_seeds. Raises
    ValueError that names strategy, place, seed and metric for a number that is not finite and for
    two rows of the same run.
    """
    return {cell: _seed_mean(list(by_seed.values()), confidence) for cell, by_seed in _by_cell(rows, axis).items()}


def paired_differences(rows: RunRows, axis: Axis, confidence: float, baseline: str = BASELINE) -> dict[Cell, SeedMean]:
    """Mean over seeds of (strategy - baseline) at the same place and seed, with its interval.

    A metric that the baseline does not have is left out. Raises as `seed_means`, and ValueError for
    runs whose seed or place the baseline was not run with.
    """
    runs = {(row["strategy"], row[axis], row["seed"]) for row in rows}
    for strategy, place, seed in sorted(runs):
        if (baseline, place, seed) not in runs:
            raise ValueError(
                f"strategy {strategy!r}, {axis} {place}, seed {seed}: there is no run of "
                f"{baseline!r} to compare it with"
            )
    values = _by_cell(rows, axis)
    differences = {}
    for cell, by_seed in values.items():
        other = values.get(cell._replace(strategy=baseline), {})
        paired = [value - other[seed] for seed, value in by_seed.items() if seed in other]
        if cell.strategy != baseline and paired:
            differences[cell] = _seed_mean(paired, confidence)
    return differences


def labels_to_reach(budgets: Sequence[float], values: Sequence[float], target: float) -> float | None:
    """Labels at which the curve first reaches the target, linear between budgets; None if never.

    A curve that begins at or above the target gives its smallest budget: fewer were not tried.
    Raises ValueError for budgets that do not increase and for a number that is not finite.

    Args:
      budgets: [B] numbers of labels, increasing. values: [B], higher is better.
    """
    budgets, values = np.asarray(budgets, np.float64), np.asarray(values, np.float64)
    if not np.isfinite([*budgets, *values, target]).all() or not (np.diff(budgets) > 0).all():
        raise ValueError(
            f"budgets must increase and all numbers be finite, got budgets {budgets.tolist()}, "
            f"values {values.tolist()}, target {target}"
        )
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
    for cell, by_seed in _by_cell(runs, "num_labels").items():
        if cell.metric == metric:
            curves[cell.strategy][cell.place] = by_seed
    if BASELINE not in curves:
        raise ValueError(f"no run of {BASELINE!r} has the metric {metric!r}")
    largest = max(curves[BASELINE])
    targets = curves[BASELINE][largest]
    target = float(np.mean(list(targets.values())))
    saved = {}
    for strategy, curve in curves.items():
        means = {budget: float(np.mean(list(values.values()))) for budget, values in curve.items()}
        num_needed = _needed(means, target)
        by_seed = {}
        for seed, own_target in targets.items():
            scores = {budget: values[seed] for budget, values in curve.items() if seed in values}
            by_seed[seed] = _share(_needed(scores, own_target), largest)
        saved[strategy] = LabelsSaved(
            target=target, num_needed=num_needed, share_saved=_share(num_needed, largest), by_seed=by_seed
        )
    return saved


def _needed(curve: Mapping[int, float], target: float) -> float | None:
    budgets = sorted(curve)
    return labels_to_reach(budgets, [curve[budget] for budget in budgets], target)


def _share(num_needed: float | None, largest: int) -> float | None:
    return None if num_needed is None else 1.0 - num_needed / largest


def _by_cell(rows: RunRows, axis: Axis) -> dict[Cell, dict[int, float]]:
    """Cell -> seed -> value."""
    values: dict[Cell, dict[int, float]] = defaultdict(dict)
    for row in rows:
        strategy, place, seed = row["strategy"], row[axis], row["seed"]
        for metric, value in _metrics(row):
            if metric in ("seed", axis):
                continue
            where = f"strategy {strategy!r}, {axis} {place}, seed {seed}, metric {metric!r}"
            if not math.isfinite(value):
                raise ValueError(f"{where}: {value} is not finite")
            by_seed = values[Cell(strategy, place, metric)]
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


def _seed_mean(values: Sequence[float], confidence: float) -> SeedMean:
    if len(values) == 1:
        return SeedMean(values[0], None, None, 1)
    interval = t_interval(values, confidence)
    return SeedMean(interval.mean, interval.low, interval.high, interval.num_values)
