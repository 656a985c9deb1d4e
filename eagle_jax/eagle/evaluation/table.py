"""From episode records to a table with intervals, and to comparisons between its rows.

The unit of resampling is the (anchor, user) pair, inside of which its seeds are averaged; or anchors, users and seeds
are resampled at once (`Resampling`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from eagle_jax.data.catalogue import EditOracle
from eagle_jax.data.prompts import MalformedText
from eagle_jax.eagle.evaluation.episodes import EpisodeRecord, plot_alone
from eagle_jax.embeddings.scorer import HELD_OUT, INDEPENDENT, TRAIN
from eagle_jax.embeddings.utility import TERMS, USER_TERM_PARTS
from eagle_jax.reports.markdown import Measure
from eagle_jax.reports.statistics import (
    BootstrapSettings,
    Interval,
    bootstrap_interval,
    crossed_interval,
    paired_difference,
    separated,
)


def _encoder_measures(encoder: str) -> tuple[Measure, ...]:
    return (
        Measure(f"{encoder}/utility", "U", "Utility of the final text: higher is better."),
        *(Measure(f"{encoder}/{name}", t.heading, t.meaning) for name, t in TERMS.items()),
        Measure(f"{encoder}/gain", "Gain", "U of the final text minus U of its anchor."),
        *(
            Measure(f"{encoder}/{name}_gain", f"Of it {heading}", f"{meaning} Final text minus anchor.")
            for name, (heading, meaning) in USER_TERM_PARTS.items()
        ),
        Measure(f"{encoder}/improved_share", "Improved", "Share of episodes with a gain above 0."),
        Measure(
            f"{encoder}/gain_if_better",
            "Gain if better",
            "Gain when the anchor is kept wherever the training encoder rates the text no higher.",
        ),
    )


REACHABLE_SHARE = "train/reachable_share"
_QUALITY = Measure(
    "train/quality",
    "Quality",
    "How far the final text is outside of what the catalogue's texts are like, and of its anchor; 0 is within.",
)
TRAIN_MEASURES = (
    *_encoder_measures(TRAIN),
    _QUALITY,
    Measure(
        REACHABLE_SHARE,
        "Share of reachable",
        "Mean gain divided by the mean of the best gains that a search over edits finds.",
    ),
)
HELD_OUT_MEASURES = _encoder_measures(HELD_OUT)
INDEPENDENT_MEASURES = _encoder_measures(INDEPENDENT)
PLOT_MEASURES = {encoder: _encoder_measures(plot_alone(encoder)) for encoder in (TRAIN, HELD_OUT, INDEPENDENT)}
TEXT_MEASURES = (
    Measure("distance", "Distance", "How far the final text's embedding is from its anchor's."),
    Measure("well_formed_share", "Well-formed", "Share of steps in which nothing was malformed."),
    Measure("readable_share", "Readable", "Share of final texts that the world's grammar can read."),
    Measure("followed_share", "Followed", "Share of edits that did all that the action says."),
    Measure("kept_share", "Rest kept", "Share of the facts not named by the action left unchanged."),
    Measure("environment_calls", "Calls", "Environment calls per episode, at test time."),
)
RATER_MEASURES = (
    Measure(
        "rater/user_utility",
        "User utility",
        "Share of forms in which the rater says that the user would prefer the new text to its "
        "anchor (question 1); a text that equals its anchor gets no form.",
    ),
    Measure(
        "rater/rater_utility", "Rater utility", "Share of forms in which the rater prefers the new text (question 8)."
    ),
    Measure(
        "rater/distance_score",
        "Rated distance",
        "How different the rater finds the two texts (question 5), from 0 to 1.",
    ),
    Measure(
        "rater/consistency",
        "Consistency",
        "How far the rater's own questions 2, 3 and 4 agree with question 1: 0.5 is chance.",
    ),
)
MEASURES = (*TRAIN_MEASURES, *HELD_OUT_MEASURES, *TEXT_MEASURES, *RATER_MEASURES)


class Resampling(NamedTuple):
    """What an interval of episodes resamples: pairs of an anchor and a user, inside of which seeds are averaged; or,
    crossed, anchors, users and, where there are several, seeds at once, which is wider (`crossed_interval`)."""

    bootstrap: BootstrapSettings
    crossed: bool = False

    def is_enough(self, records: Sequence[EpisodeRecord]) -> bool:
        """For an interval of all that records say."""
        pairs = {record.pair for record in records}
        factors = zip(*pairs, strict=True) if self.crossed else [pairs]
        return bool(pairs) and all(len(set(levels)) > 1 for levels in factors)

    def interval(self, values: Sequence[float], records: Sequence[EpisodeRecord]) -> Interval:
        """Of the mean of these episodes' values."""
        if not self.crossed:
            by_pair = mean_of_pairs(values, [record.pair for record in records])
            return bootstrap_interval(list(by_pair.values()), self.bootstrap)
        factors = [*zip(*(record.pair for record in records), strict=True), [record.seed for record in records]]
        several = factors if len(set(factors[-1])) > 1 else factors[:-1]
        return crossed_interval(values, self.bootstrap, *several)

    def difference(
        self, values: Sequence[float], records: Sequence[EpisodeRecord], baseline: Mapping[tuple[int, int], float]
    ) -> Interval:
        """Of these episodes from a baseline's means of the same pairs."""
        if not self.crossed:
            own = mean_of_pairs(values, [record.pair for record in records])
            return paired_difference(list(own.values()), [baseline[pair] for pair in own], self.bootstrap)
        return self.interval(
            [value - baseline[record.pair] for value, record in zip(values, records, strict=True)], records
        )


def summarize(
    records: Mapping[str, Sequence[EpisodeRecord]],
    resampling: Resampling,
    best_reachable: Mapping[tuple[int, int], float] | None = None,
    oracle: EditOracle | None = None,
) -> list[dict[str, Any]]:
    """One JSON-able table row for each row of records, in their order.

    A cell is {"mean", "low", "high"}, with "n" where it is over fewer than the row's episodes, or None where the
    measure does not apply: an anchor has no steps, only a world with an `oracle` can judge edits, and one rated pair
    out of many has no interval. `best_reachable` is the utility of `reachable.best_reachable_utility` for each
    (anchor, user) pair; it is a fixed yardstick, and its own error is not in the interval. Raises
    ValueError for NaN, naming row and column.
    """
    rows = []
    has_quality = any("quality" in record.scores[TRAIN][-1] for of_row in records.values() for record in of_row)
    measures = [measure for measure in MEASURES if has_quality or measure is not _QUALITY]
    scored = {encoder for of_row in records.values() for record in of_row for encoder in record.scores}
    measures += INDEPENDENT_MEASURES if INDEPENDENT in scored else ()
    measures += [m for encoder, of_plot in PLOT_MEASURES.items() if plot_alone(encoder) in scored for m in of_plot]
    for row, of_row in records.items():
        yardstick = _mean_best_gain(row, of_row, best_reachable)
        values = [_values(record, yardstick, oracle) for record in of_row]
        num_pairs = len({record.pair for record in of_row})
        cells = {}
        for column in measures:
            present = [
                (value[column.name], record)
                for value, record in zip(values, of_row, strict=True)
                if value.get(column.name) is not None
            ]
            # A row that has one pair alone is refused, a column that is told of one pair of many is left out.
            enough = present and (num_pairs == 1 or resampling.is_enough([record for _, record in present]))
            cell = _interval(row, column.name, present, resampling) if enough else None
            if cell and len(present) < len(of_row):
                cell["n"] = len(present)
            cells[column.name] = cell
        rows.append(
            {
                "row": row,
                "num_episodes": len(of_row),
                "num_pairs": num_pairs,
                "num_seeds": len({record.seed for record in of_row}),
                "cells": cells,
            }
        )
    return rows


def compare(
    records: Mapping[str, Sequence[EpisodeRecord]], pairs: Sequence[tuple[str, str]], resampling: Resampling
) -> list[dict[str, Any]]:
    """For each (row, baseline) and each encoder: is U higher, and are the intervals apart?

    `difference` is paired by start; `separated` is the stricter statement that the row's own
    interval lies above the baseline's.
    """
    comparisons = []
    for row, baseline in pairs:
        rows = records[row], records[baseline]
        for encoder in records[row][0].scores:
            utilities = [[record.scores[encoder][-1]["utility"] for record in of_row] for of_row in rows]
            means = [
                mean_of_pairs(of_row, [record.pair for record in own])
                for of_row, own in zip(utilities, rows, strict=True)
            ]
            if means[0].keys() != means[1].keys():
                raise ValueError(f"rows {row!r} and {baseline!r} were not run on the same starts")
            intervals = [resampling.interval(*of_row) for of_row in zip(utilities, rows, strict=True)]
            comparisons.append(
                {
                    "row": row,
                    "baseline": baseline,
                    "encoder": encoder,
                    "utility": intervals[0].as_cell(),
                    "baseline_utility": intervals[1].as_cell(),
                    "difference": resampling.difference(utilities[0], rows[0], means[1]).as_cell(),
                    "separated": separated(*intervals),
                }
            )
    return comparisons


def malformed_counts(
    records: Mapping[str, Sequence[EpisodeRecord]], malformed_answers: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, Any]]:
    """Row -> number of steps taken and of rater forms shown, and how many failed for each reason.

    `malformed_answers`: row -> reason -> count of rater forms, told as `rater:<reason>`.
    """
    counts = {}
    for row, of_row in records.items():
        reasons = sum((Counter(record.malformed) for record in of_row), Counter())
        answers = malformed_answers[row]
        rated = sum(record.rater is not None for record in of_row)
        counts[row] = {
            "num_steps": sum(record.num_steps for record in of_row),
            "num_forms": rated + sum(answers.values()),
            "reasons": reasons | {f"rater:{reason}": count for reason, count in answers.items()},
        }
    return counts


def _values(record: EpisodeRecord, yardstick: float | None, oracle: EditOracle | None) -> dict[str, float | None]:
    """What one episode adds to each column."""
    failures = sum(record.malformed.values())
    values: dict[str, float | None] = {
        "distance": record.distance,
        "environment_calls": float(record.environment_calls),
        "well_formed_share": 1 - failures / record.num_steps if record.num_steps else None,
    }
    better = record.scores[TRAIN][-1]["utility"] > record.scores[TRAIN][0]["utility"]
    for encoder, path in record.scores.items():
        gain = path[-1]["utility"] - path[0]["utility"]
        values |= {f"{encoder}/{k}": v for k, v in path[-1].items()}
        values |= {
            f"{encoder}/gain": gain,
            f"{encoder}/improved_share": float(gain > 0),
            f"{encoder}/gain_if_better": gain if better else 0.0,
        }
        # Records of earlier versions have no parts.
        values |= {
            f"{encoder}/{name}_gain": path[-1][name] - path[0][name] for name in USER_TERM_PARTS if name in path[0]
        }
    if record.rater is not None:
        values |= {f"rater/{k}": v for k, v in record.rater.items()}
    if yardstick is not None:
        values[REACHABLE_SHARE] = values["train/gain"] / yardstick
    return values | (_judged(record, oracle) if oracle else {})


def _judged(record: EpisodeRecord, oracle: EditOracle) -> dict[str, float | None]:
    """Means over the steps that have an action and start from a text that the world can read."""
    outcomes = []
    before = record.anchor
    for step in record.steps:
        if step.action is not None and _readable(before, oracle):
            outcomes.append(oracle.judge_edit(before, step.action, step.description))
        before = step.description
    count = len(outcomes)
    return {
        "readable_share": float(_readable(record.final_text, oracle)),
        "followed_share": sum(o.followed for o in outcomes) / count if count else None,
        "kept_share": sum(o.kept for o in outcomes) / count if count else None,
    }


def _readable(text: str, oracle: EditOracle) -> bool:
    try:
        return oracle.judge_edit(text, "", text).well_formed
    except MalformedText:
        return False


def _mean_best_gain(row, records, best_reachable) -> float | None:
    """The mean over the row's episodes of the best reachable utility minus the anchor's."""
    if best_reachable is None:
        return None
    if missing := {record.pair for record in records} - best_reachable.keys():
        raise ValueError(f"row {row!r}: best reachable utility is missing for (anchor, user) {min(missing)}")
    gains = [best_reachable[r.pair] - r.scores[TRAIN][0]["utility"] for r in records]
    mean = sum(gains) / len(gains)
    if not math.isfinite(mean):
        raise ValueError(f"row {row!r}: a best reachable utility is not finite")
    return mean if mean > 0 else None  # no edit improves anything: the share is undefined


def _interval(row, column, present, resampling: Resampling) -> dict[str, float]:
    values, records = zip(*present, strict=True)
    if not all(map(math.isfinite, values)):
        raise ValueError(f"row {row!r}, column {column!r}: there are values that are not finite")
    return resampling.interval(values, records).as_cell()


def mean_of_pairs(values: Sequence[float], pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """Means inside each pair: every pair weighs the same, whatever its number of seeds."""
    groups = defaultdict(list)
    for value, pair in zip(values, pairs, strict=True):
        groups[pair].append(value)
    return {pair: sum(groups[pair]) / len(groups[pair]) for pair in sorted(groups)}
