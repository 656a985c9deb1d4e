"""REAL's claims (arXiv 2409.17169), and contrary ones, each beside what was found.

Other numbers give other verdicts. RunRows are those of `RealReport`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.real.evaluation.table import (
    BASELINE,
    LabelsSaved,
    RunRows,
    SeedMean,
    labels_saved,
    paired_differences,
    seed_mean,
    seed_means,
)
from eagle_jax.reports.markdown import format_interval, share
from eagle_jax.reports.verdicts import FAILS, HOLDS, MIN_SEEDS, UNDECIDED, side

EASY, HARD, CENTROID = "easy", "hard", "centroid"
SMALL_GAP, LARGE_GAP = "implicit_reward_gap_small", "implicit_reward_gap_large"
ACCURACY = "held_out/rewards/accuracy"
# Rank correlation with the start from which similarities count as stable: our threshold. REAL shows
# distributions and names none.
STABLE_CORRELATION = 0.9
PAPER_SHARE_SAVED = 0.65  # REAL's "up to"


class Claim(NamedTuple):
    """`metric` is larger (direction 1) or smaller (-1) for `better` than for each of `worse`.

    short: what the claim is about, in a word or two.
    """

    sentence: str
    short: str
    metric: str
    direction: int
    better: str
    worse: tuple[str, ...]


class Finding(NamedTuple):
    """A claim about `subject`, what was found (a line for each comparison), and the verdict.

    found is empty where the run did not measure it.
    """

    claim: str
    subject: str
    short: str
    found: list[str]
    verdict: str


_WINS = (
    ("better win rate by true utility", "wins by true utility", "win_rate_true", 1),
    ("better win rate by the rater", "wins by the rater", "win_rate_rater", 1),
)
_OUTCOMES = (
    ("larger margin on held-out pairs", "margin", "held_out/rewards/margin", 1),
    ("lower loss on held-out pairs", "loss", "held_out/loss", -1),
    *_WINS,
)
REAL_CLAIMS = (
    *(
        Claim(f"{strategy}: {outcome}", *measured, strategy, (BASELINE, HARD))
        for outcome, *measured in (*_OUTCOMES, ("fewer wrong labels", "wrong labels", "label_error_rate", -1))
        for strategy in (EASY, CENTROID)
    ),
    *(
        Claim(
            f"{CENTROID} is best of all: {outcome}", f"best of all in {short}", *rest, CENTROID, (BASELINE, HARD, EASY)
        )
        for outcome, short, *rest in _WINS
    ),
)
CONTRARY_CLAIMS = tuple(
    Claim(f"{SMALL_GAP}: {outcome}", *measured, SMALL_GAP, (BASELINE, LARGE_GAP, EASY))
    for outcome, *measured in (("better accuracy on held-out pairs", "accuracy", ACCURACY, 1), *_OUTCOMES)
)


def judge(differences: Sequence[SeedMean | None], direction: int) -> str:
    """HOLDS: every interval on the claimed side of 0; FAILS: one on the other; else UNDECIDED.

    None (not measured) and a difference over fewer than `MIN_SEEDS` decide nothing.
    """
    sides = [direction * side(None if d is None or d.num_seeds < MIN_SEEDS else d) for d in differences]
    if -1 in sides:
        return FAILS
    return HOLDS if sides and set(sides) == {1} else UNDECIDED


def findings(claims: Sequence[Claim], runs: RunRows, num_labels: int, confidence: float) -> list[Finding]:
    """Each claim beside the differences that were measured, at one number of labels."""
    found = []
    for claim in claims:
        differences = {
            other: difference(runs, claim.metric, claim.better, other, num_labels, confidence) for other in claim.worse
        }
        lines = [
            f"{claim.better} − {other}: {'not measured' if d is None else signed(d)}"
            for other, d in differences.items()
        ]
        outcome = judge(list(differences.values()), claim.direction)
        is_measured = any(differences.values())
        found.append(Finding(claim.sentence, claim.better, claim.short, lines if is_measured else [], outcome))
    return found


def difference(
    runs: RunRows, metric: str, strategy: str, other: str, num_labels: int, confidence: float
) -> SeedMean | None:
    """Mean over seeds of strategy - other; None where one of both was not run or not measured."""
    rows = [run for run in runs if run["strategy"] in (strategy, other) and run["num_labels"] == num_labels]
    if {run["strategy"] for run in rows} != {strategy, other}:
        return None
    return paired_differences(rows, confidence, baseline=other).get((strategy, num_labels, metric))


def signed(value: SeedMean) -> str:
    """A difference with its interval, or the reason why it has none."""
    interval = format_interval(value, signed=True)
    return f"{interval} (one seed, no interval)" if value.low is None else str(interval)


class Saving(NamedTuple):
    """Differences are from random: of the share saved, of the accuracy at its largest budget."""

    sentence: str
    share_difference: SeedMean | None
    accuracy_difference: SeedMean | None


def savings(runs: RunRows, confidence: float) -> dict[str, Saving]:
    """Labels saved by each strategy; empty without random or with fewer than two budgets.

    The control is random itself, whose own curve can reach its last value early by chance. A seed
    on which the value is not reached saves nothing.
    """
    budgets = {run["num_labels"] for run in runs if run["strategy"] == BASELINE}
    measured = {cell.metric for cell in seed_means(runs, confidence) if cell.strategy == BASELINE}
    if len(budgets) < 2 or ACCURACY not in measured:
        return {}
    largest = max(budgets)
    saved = labels_saved(runs, ACCURACY)
    rows = [
        {"strategy": strategy, "seed": seed, "num_labels": largest, "share": value or 0.0}
        for strategy, what in saved.items()
        for seed, value in what.by_seed.items()
    ]
    beyond = paired_differences(rows, confidence)
    return {
        strategy: Saving(
            _labels_needed(what, largest),
            beyond.get((strategy, largest, "share")),
            difference(runs, ACCURACY, strategy, BASELINE, largest, confidence),
        )
        for strategy, what in saved.items()
    }


def _labels_needed(saved: LabelsSaved, largest: int) -> str:
    reached = sum(value is not None for value in saved.by_seed.values())
    needed = f"not reached with {largest} labels"
    if saved.num_needed is not None:
        needed = f"{saved.num_needed:.0f} of {largest} labels, {share(saved.share_saved)} saved"
    return f"{needed}; reached on {reached} of {len(saved.by_seed)} seeds"


def saving_findings(saved: Mapping[str, Saving]) -> list[Finding]:
    """ "Up to 65 % of the annotation saved", for easy and for centroid.

    A strategy that is less accurate than random with equally many labels saves none.
    """
    rows = []
    for strategy in (EASY, CENTROID):
        claim = (
            f"{strategy}: fewer labels for equal accuracy (up to {share(PAPER_SHARE_SAVED)} saved)",
            strategy,
            "labels saved",
        )
        if strategy not in saved:
            rows.append(Finding(*claim, [], UNDECIDED))
            continue
        sentence, more_saved, more_accurate = saved[strategy]
        differences = {"share saved": more_saved, "accuracy at the end": more_accurate}
        found = [
            f"{strategy}: {sentence}",
            f"{BASELINE}, as control: {saved[BASELINE].sentence}",
            *(f"{name}, {strategy} − {BASELINE}: {signed(d)}" for name, d in differences.items() if d),
        ]
        is_behind = judge([more_accurate], 1) == FAILS
        rows.append(Finding(*claim, found, FAILS if is_behind else judge([more_saved], 1)))
    return rows


def stability_table(rows: RunRows, confidence: float) -> list[dict[str, Any]]:
    """What became of the similarities by the last checkpoint of each seed."""
    table = []
    for strategy in dict.fromkeys(row["strategy"] for row in rows):
        by_step = sorted((row for row in rows if row["strategy"] == strategy), key=lambda row: row["step"])
        # Seeds may end a few steps apart: the last checkpoints stand for one place.
        first, last = ({row["seed"]: row for row in order}.values() for order in (by_step[::-1], by_step))
        correlations = [row["rank_correlation"] for row in last]
        overlaps = [row["easy_overlap"] for row in last if row["easy_overlap"] is not None]
        table.append(
            {
                "strategy": strategy,
                "step": by_step[-1]["step"],
                "num_seeds": len(last),
                "first_median": float(np.mean([row["quantiles"][2] for row in first])),
                "last_median": float(np.mean([row["quantiles"][2] for row in last])),
                "rank_correlation": seed_mean(correlations, confidence),
                "above_bar": seed_mean([value - STABLE_CORRELATION for value in correlations], confidence),
                "easy_overlap": seed_mean(overlaps, confidence) if overlaps else None,
            }
        )
    return table


def stability_finding(table: Sequence[Mapping[str, Any]]) -> Finding:
    """Do similarities keep their order while the policy is trained?"""
    found = [
        f"{row['strategy']}, step {row['step']}: {format_interval(row['rank_correlation'])}, "
        f"median similarity {row['first_median']:.3f} → {row['last_median']:.3f}"
        for row in table
    ]
    return Finding(
        "response embeddings stay stable under DPO (here: rank correlation of similarities with "
        f"the start at least {STABLE_CORRELATION})",
        "response embeddings",
        "stability under DPO",
        found,
        judge([row["above_bar"] for row in table], 1),
    )
