"""Means with intervals: bootstrap (plain, clustered, crossed, paired), and Student's t for a few seeds.

Axis letters: N values, C clusters, R resamples.
"""

import dataclasses
import functools
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.special import stdtrit

from eagle_jax.base.settings import setting, settings

# Resamples are drawn in blocks of at most this many entries, to bound the memory.
_BLOCK_ENTRIES = 2_000_000


@settings
class BootstrapSettings:
    """Bootstrap intervals."""

    num_resamples: int = setting("R, resamples of each interval.", at_least=1)
    confidence: float = setting("Of the interval, e.g. 0.95.", above=0, below=1)
    seed: int = setting("Of the resampling.", at_least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its interval, and how many values and independent clusters it rests on."""

    mean: float
    low: float
    high: float
    num_values: int
    num_clusters: int

    def as_cell(self) -> dict[str, float]:
        """As the rows of tables hold it in JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def bootstrap_interval(
    values: Sequence[float], settings: BootstrapSettings, *, clusters: Sequence[Hashable] | None = None
) -> Interval:
    """Percentile bootstrap interval of the mean (Efron and Tibshirani 1993, chapters 8 and 13).

    With `clusters` whole clusters are resampled, and the mean is over the values of the drawn
    clusters: give the (anchor, user) pair of each episode when several seeds share a pair. Else
    the episodes of one pair count as independent and the interval is too narrow.

    Args:
      values: [N].
      clusters: [N] labels, or None: every value on its own.

    Raises:
      ValueError: a value that is not finite, labels of another length, fewer than two clusters.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise ValueError(f"values must have one axis, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} values are not finite")
    sums, counts = _cluster_sums(values, clusters)
    num_clusters = len(sums)
    if num_clusters < 2:
        raise ValueError(f"an interval needs at least two independent values, got {num_clusters}")
    rng = np.random.default_rng(settings.seed)
    means = np.empty(settings.num_resamples)
    block = max(1, _BLOCK_ENTRIES // num_clusters)
    for start in range(0, settings.num_resamples, block):
        stop = min(start + block, settings.num_resamples)
        drawn = rng.integers(num_clusters, size=(stop - start, num_clusters))
        means[start:stop] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1.0 - settings.confidence) / 2.0
    low, high = np.quantile(means, (tail, 1.0 - tail))
    return Interval(
        mean=float(values.mean()), low=float(low), high=float(high), num_values=len(values), num_clusters=num_clusters
    )


def crossed_interval(values: Sequence[float], settings: BootstrapSettings, *factors: Sequence[Hashable]) -> Interval:
    """Percentile bootstrap interval of a mean over several factors, all resampled at once.

    A value counts as often as the levels of all its factors were drawn, multiplied: the pigeonhole
    bootstrap (Owen 2007, The pigeonhole bootstrap, section 3), for values that share films with one
    another and users with others. It errs on the wide side. Resamples that hold no value are drawn
    again, which takes cells that are missing.

    Args:
      values: [N].
      factors: labels [N] of each, as films, users, seeds.

    Raises:
      ValueError: a value that is not finite, labels of another length, a factor with fewer than two levels.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} values are not finite")
    places = []
    for labels in factors:
        if len(labels) != len(values):
            raise ValueError(f"{len(labels)} labels for {len(values)} values")
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        places.append(np.array([numbers[label] for label in labels], np.int64))
    counts = [int(of_factor.max(initial=-1)) + 1 for of_factor in places]
    if min(counts, default=0) < 2:
        raise ValueError(f"an interval needs at least two levels of every factor, got {counts}")
    means = np.empty(0)
    size, block = min(settings.num_resamples, max(1, _BLOCK_ENTRIES // len(values))), 0
    while len(means) < settings.num_resamples:
        weights = np.ones((size, 1))
        for of_factor, drawn in zip(places, _drawn_levels(tuple(counts), size, settings.seed, block), strict=True):
            weights = weights * drawn[:, of_factor]
        totals = weights.sum(axis=1)
        has_any = totals > 0
        means = np.append(means, (weights[has_any] @ values) / totals[has_any])
        block += 1
    means = means[: settings.num_resamples]
    tail = (1.0 - settings.confidence) / 2.0
    low, high = np.quantile(means, (tail, 1.0 - tail))
    return Interval(
        mean=float(values.mean()), low=float(low), high=float(high), num_values=len(values), num_clusters=min(counts)
    )


@functools.lru_cache(maxsize=8)
def _drawn_levels(counts: tuple[int, ...], size: int, seed: int, block: int) -> list[np.ndarray]:
    """How often each level of each factor is drawn [size, count]; a table asks for the same again for every cell."""
    rng = np.random.default_rng(seed if block == 0 else (seed, block))
    return [rng.multinomial(count, np.full(count, 1 / count), size=size) for count in counts]


def _cluster_sums(values, clusters):
    """Sum and number of values of each cluster, in order of first appearance."""
    if clusters is None:
        return values, np.ones(len(values))
    if len(clusters) != len(values):
        raise ValueError(f"{len(clusters)} cluster labels for {len(values)} values")
    numbers: dict[Hashable, int] = {}
    cluster_index = np.array([numbers.setdefault(label, len(numbers)) for label in clusters], np.int64)
    return np.bincount(cluster_index, values), np.bincount(cluster_index).astype(np.float64)


def paired_difference(
    values: Sequence[float],
    baseline: Sequence[float],
    settings: BootstrapSettings,
    *,
    clusters: Sequence[Hashable] | None = None,
) -> Interval:
    """Interval of mean(values - baseline), entry i of both from the same episode start.

    Pairing removes what the starts have in common; an interval above 0 means an improvement.
    """
    values, baseline = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    if values.shape != baseline.shape:
        raise ValueError(f"pairs need equal shapes, got {values.shape} and {baseline.shape}")
    return bootstrap_interval(values - baseline, settings, clusters=clusters)


def t_interval(values: Sequence[float], confidence: float) -> Interval:
    """mean +- t * s / sqrt(N), with t of N - 1 degrees of freedom: for a few independent runs.

    Fewer than ten or so values are too few to resample: a bootstrap interval of theirs is too
    narrow. values: [N]. Raises ValueError for fewer than two values or one that is not finite.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two independent values, got {len(values)}")
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} values are not finite")
    quantile = stdtrit(len(values) - 1, (1.0 + confidence) / 2.0)
    half = quantile * values.std(ddof=1) / np.sqrt(len(values))
    mean = values.mean()
    return Interval(
        mean=float(mean),
        low=float(mean - half),
        high=float(mean + half),
        num_values=len(values),
        num_clusters=len(values),
    )


def separated(better: Interval, worse: Interval) -> bool:
    """Whether `better` lies above `worse` with no overlap; stricter than a paired difference."""
    return better.low > worse.high
