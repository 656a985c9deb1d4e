"""What a study of preference pairs says in short, in sentences made from its rows.

Other numbers give other sentences. RunRows are those of `RealReport`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from eagle_jax.real.evaluation.claims import ACCURACY, Finding
from eagle_jax.real.evaluation.table import BASELINE, RunRows, seed_means
from eagle_jax.reports.markdown import share
from eagle_jax.reports.statistics import Interval, t_interval
from eagle_jax.reports.verdicts import FAILS, HOLDS, MIN_SEEDS, UNDECIDED

_MIN_PAIRS = 200  # of random's, to compare the most with the least similar quarter


def verdict(
    runs: RunRows,
    pairs: RunRows,
    real: Sequence[Finding],
    contrary: Sequence[Finding],
    *,
    num_labels: int,
    confidence: float,
) -> Iterator[str]:
    """What the numbers say: extent, claims, order of the strategies, wrong labels.

    real, contrary: what `claims` found, REAL's claims and those against them.
    """
    means = {
        (cell.strategy, cell.metric): value
        for cell, value in seed_means(runs, confidence).items()
        if cell.num_labels == num_labels
    }
    yield _extent(runs, num_labels)
    yield from _tallies("REAL", real)
    for metric, title in (
        (ACCURACY, "Accuracy on held-out pairs (chance: 0.5)"),
        ("win_rate_true", "Win rate by true utility (a draw: 0.5)"),
        ("win_rate_rater", "Win rate by the rater (a draw: 0.5)"),
    ):
        if ranking := _ranking(means, metric):
            yield f"{title}, highest first: {ranking}."
    yield from _own_pairs(means)
    yield from _wrong_labels(means, pairs, confidence)
    yield from _tallies("the contrary paper", contrary)


def _extent(runs: RunRows, num_labels: int) -> str:
    strategies, budgets, seeds = (sorted({run[name] for run in runs}) for name in ("strategy", "num_labels", "seed"))
    said = (
        f"{len(runs)} models were trained: strategies {', '.join(strategies)}; labels "
        f"{', '.join(map(str, budgets))}; seeds: {len(seeds)}. Claims are judged with {num_labels} "
        "labels."
    )
    few = len(seeds) < MIN_SEEDS
    return f"{said} Fewer than {MIN_SEEDS} seeds decide nothing." if few else said


def _tallies(who: str, findings: Sequence[Finding]) -> Iterator[str]:
    """A sentence for each subject: of what the claim holds, does not hold, is not decided."""
    for subject in dict.fromkeys(finding.subject for finding in findings):
        judged = [f for f in findings if f.subject == subject and f.found]
        if not judged:
            yield f"What {who} claims of {subject} was not measured in this run."
            continue
        parts = []
        for outcome, said in ((HOLDS, HOLDS), (FAILS, FAILS), (UNDECIDED, f"is {UNDECIDED}")):
            shorts = [finding.short for finding in judged if finding.verdict == outcome]
            if shorts:
                parts.append(f"{said} for {', '.join(shorts)}")
        yield f"What {who} claims of {subject} {'; '.join(parts)}."


def _ranking(means: Mapping[tuple[str, str], Any], metric: str) -> str:
    """Strategies that have the metric with their means, the highest first; "" without any."""
    scores = {strategy: value.mean for (strategy, name), value in means.items() if name == metric}
    return ", ".join(f"{strategy} {scores[strategy]:.3f}" for strategy in sorted(scores, key=scores.get, reverse=True))


def _own_pairs(means: Mapping[tuple[str, str], Any]) -> Iterator[str]:
    """Margins flatter whoever chose pairs that are easy to tell apart."""
    trained_on, held_out = (_ranking(means, f"{part}/rewards/margin") for part in ("train", "held_out"))
    if trained_on and held_out:
        yield (
            f"Margin on the own pairs of each strategy in its last epoch, highest first: {trained_on}; "
            f"on the held-out pairs, the same for all: {held_out}."
        )


def _wrong_labels(means: Mapping[tuple[str, str], Any], pairs: RunRows, confidence: float) -> Iterator[str]:
    """Does similarity tell which labels are wrong? By random's pairs, which show all pairs."""
    if ranking := _ranking(means, "label_error_rate"):
        yield f"Share of wrong labels, highest first: {ranking}."
    judged = judged_pairs(pairs, BASELINE)
    if len(judged) < _MIN_PAIRS:
        return
    bins = similarity_bins(judged, 4, confidence)
    least, most = bins[0]["error"], bins[-1]["error"]
    if least.high < most.low:
        said = "dissimilar pairs are easier to label"
    elif most.high < least.low:
        said = "dissimilar pairs are harder to label"
    else:
        said = "no difference is shown"
    yield (
        f"Of {BASELINE}'s {len(judged)} pairs, the least similar quarter has {_interval(least)} "
        f"wrong labels, the most similar {_interval(most)}: {said}."
    )


def _interval(value: Interval) -> str:
    return f"{share(value.mean)} [{share(value.low)}, {share(value.high)}]"


def judged_pairs(pairs: RunRows, strategy: str) -> RunRows:
    """The strategy's pairs of which it is known whether the label is wrong."""
    return [p for p in pairs if p["strategy"] == strategy and p["is_error"] is not None]


def similarity_bins(pairs: RunRows, num_bins: int, confidence: float) -> list[dict[str, Any]]:
    """Pairs in order of similarity, in parts of equal size: mean similarity, wrong labels, gaps.

    "error": share of wrong labels with Wilson's interval, "gap": mean gap in true utility with
    Student's; None where some pair has none.
    """
    pairs = sorted(pairs, key=lambda pair: pair["similarity"])
    bins = []
    for part in np.array_split(np.arange(len(pairs)), num_bins):
        bin_pairs = [pairs[place] for place in part]
        num_pairs = len(bin_pairs)
        num_errors = sum(bool(pair["is_error"]) for pair in bin_pairs)
        wilson = stats.binomtest(num_errors, num_pairs).proportion_ci(confidence, "wilson")
        error = Interval(
            mean=num_errors / num_pairs,
            low=float(wilson.low),
            high=float(wilson.high),
            num_values=num_pairs,
            num_clusters=num_pairs,
        )
        gaps = [pair["true_gap"] for pair in bin_pairs]
        bins.append(
            {
                "similarity": float(np.mean([pair["similarity"] for pair in bin_pairs])),
                "error": error,
                "gap": None if None in gaps else t_interval(gaps, confidence),
            }
        )
    return bins
