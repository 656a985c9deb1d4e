"""The report of a study of preference pairs: report.html, which stands alone, and report.md.

It puts the claims of REAL (arXiv 2409.17169) beside what was found. Everything comes from
`RealReport`, plain JSON-able values, so that a report can be made again from the artifacts of a
run. Text written by language models is untrusted: it is escaped, always.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eagle_jax.real.evaluation import figures as preference_figures
from eagle_jax.real.evaluation.claims import (
    ACCURACY,
    CONTRARY_CLAIMS,
    FAILS,
    HOLDS,
    MIN_SEEDS,
    REAL_CLAIMS,
    findings,
    saving_findings,
    savings,
    signed,
    stability_finding,
    stability_table,
    unsigned,
)
from eagle_jax.real.evaluation.table import BASELINE, SeedMean, paired_differences, seed_means
from eagle_jax.real.evaluation.verdict import verdict
from eagle_jax.reports.pages import write_pages


class Column(NamedTuple):
    """A column of the tables: a metric of the runs."""

    name: str
    heading: str
    meaning: str


_TABLES = {
    "The labels": (
        Column("label_error_rate", "Wrong labels", "share of labels against the true preference"),
        Column("mean_similarity", "Similarity", "mean similarity of the labelled pairs"),
    ),
    "Held-out pairs, the same for all": (
        Column("held_out/loss", "Loss", "mean loss"),
        Column("held_out/rewards/margin", "Margin", "mean of r(chosen) − r(rejected), where "
               "r = beta (log π − log π_ref)"),
        Column(ACCURACY, "Accuracy", "share of pairs with r(chosen) above r(rejected)"),
        Column("held_out/rewards/chosen", "r(chosen)", "mean reward of the chosen"),
        Column("held_out/rewards/rejected", "r(rejected)", "mean reward of the rejected"),
    ),
    "The pairs that were trained on": (
        Column("train/loss", "Loss", "mean loss on the strategy's own pairs and labels, in the "
               "last epoch, before each step"),
        Column("train/rewards/margin", "Margin", "mean margin on them"),
        Column("train/rewards/accuracy", "Accuracy", "share of them with a margin above 0"),
    ),
    "What the policies write": (
        Column("win_rate_true", "Wins, true utility", "share of prompts where the response has the "
               "higher true utility, ties count one half"),
        Column("win_rate_rater", "Wins, rater", "share of prompts where the rater prefers it in "
               "both orders, contradictions count one half"),
        Column("rater_agreement", "Rater's agreement", "share of prompts with the same answer in "
               "both orders"),
        Column("mean_true_utility", "True utility", "mean of the responses"),
        Column("malformed_share", "Malformed", "share of responses that could not be read"),
    ),
}  # fmt: skip
_DIFFERENCES = (
    "label_error_rate", "held_out/loss", "held_out/rewards/margin", ACCURACY, "win_rate_true",
    "win_rate_rater", "mean_true_utility",
)  # fmt: skip
_BUDGET_PANELS = {ACCURACY: "accuracy, held-out pairs", "held_out/rewards/margin": "margin"}
_JUDGES = {"win_rate_true": "wins by true utility", "win_rate_rater": "wins by the rater"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealReport:
    """All that the report says; every field is JSON-able. An empty sequence: no such part.

    In rows None stands for what a run does not have (a true utility, a rater); it is told as "–".

    runs: [{"strategy", "num_labels", "seed", "label_error_rate", "mean_similarity",
      "train": {"loss", "rewards/margin", "rewards/accuracy"}, "held_out": {"loss",
      "rewards/chosen", "rewards/rejected", "rewards/margin", "rewards/accuracy"},
      "win_rate_true", "win_rate_rater", "rater_agreement", "mean_true_utility",
      "malformed_share"}], one for each trained model; no two with equal strategy, number of labels
      and seed.
    curves: [{"strategy", "num_labels", "seed", "step": [...], "metrics": {name: [...]}}].
    stability: [{"strategy", "seed", "step", "quantiles": [5, 25, 50, 75, 95 %],
      "rank_correlation", "easy_overlap"}]; step 0 is the start, where the correlation is 1.
    selection: [{"strategy", "num_pairs", "mean_similarity", "mean_true_gap", "num_invalid"}]; the
      last are pairs that got no label.
    pairs: [{"strategy", "similarity", "true_gap", "is_error"}], one for each selected pair: its
      absolute gap in true utility, and whether its label contradicts the true preference.
    embeddings: [{"embedding", "metric", "strategy", "num_pairs", "mean_similarity",
      "mean_true_gap", "label_error_rate", "overlap"}]: what is selected by other poolings,
      encoders and metrics, and the share of it that the selecting one selects too.
    samples: [{"prompt", "rows": [{"strategy", "text", "true_utility"}]}].
    stages: [{"title", "facts": [{"name", "value", "meaning"}]}]: counts of what was read, what was
      malformed or left out, and what it cost.
    """

    title: str
    task: str  # a few sentences: prompts, policy, whose preference is the true one
    labels: str  # a sentence or two: who or what gave the labels
    opponent: str  # what win rates are against, e.g. "the supervised start"
    rater: str | None  # a sentence: who rated; None: nobody did
    confidence: float  # of all intervals, e.g. 0.95
    claim_num_labels: int  # the number of labels at which the claims are judged
    runs: Sequence[Mapping[str, Any]]
    curves: Sequence[Mapping[str, Any]]
    stability: Sequence[Mapping[str, Any]]
    selection: Sequence[Mapping[str, Any]]
    pairs: Sequence[Mapping[str, Any]]
    embeddings: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]]
    stages: Sequence[Mapping[str, Any]]
    left_out: Sequence[str]  # parts that this run does not have, and why
    not_reproduced: Sequence[str]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]


def write_real_report(folder: Path, data: RealReport) -> tuple[Path, Path]:
    """Writes report.html and report.md with its figures into `folder`, returns the two paths.

    Raises ValueError that names the cell for a number that is not finite, for two rows of the same
    run, for runs without a partner to compare with, and when no run has `claim_num_labels`.
    """
    if not any(run["num_labels"] == data.claim_num_labels for run in data.runs):
        raise ValueError(
            f"claim_num_labels: no run has {data.claim_num_labels} labels, the runs have "
            f"{sorted({run['num_labels'] for run in data.runs})}"
        )
    for name in ("curves", "stability", "selection", "pairs", "embeddings", "samples", "stages"):
        _refuse_non_finite(name, getattr(data, name))
    table = _table(seed_means(data.runs, "num_labels", data.confidence))
    filters = {"cell": unsigned, "signed_cell": _signed_cell, "arrow": _arrow}
    return write_pages(folder, "real/report", _context(data, table), _figures(data, table), filters)


def _context(data: RealReport, table: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page reads."""
    at = {"num_labels": data.claim_num_labels, "confidence": data.confidence}
    saved = savings(data.runs, data.confidence)
    stability = stability_table(data.stability, data.confidence)
    real = [
        *findings(REAL_CLAIMS, data.runs, **at),
        stability_finding(stability),
        *saving_findings(saved),
    ]
    contrary = findings(CONTRARY_CLAIMS, data.runs, **at)
    differences = _differences(data)
    return {
        "data": data,
        "level": f"{data.confidence:.0%}".replace("%", " %"),
        "min_seeds": MIN_SEEDS,
        "holds": HOLDS,
        "fails": FAILS,
        "summary": list(verdict(data.runs, data.pairs, real, contrary, **at)),
        "claims": real,
        "contrary": contrary,
        "table": table,
        "shown": _shown(table, data),
        "tables": [
            {"title": title, "columns": used}
            for title, columns in _TABLES.items()
            if (used := _used(columns, table))
        ],
        "differences": differences,
        "shown_differences": _shown(differences, data),
        "difference_columns": _used(
            [c for columns in _TABLES.values() for c in columns if c.name in _DIFFERENCES],
            differences,
        ),
        "saved": saved,
        "stability": stability,
    }


def _figures(data: RealReport, table: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Name -> figure, None where the run does not have its numbers."""
    rows = [*table, *data.pairs, *data.stability]
    strategies = list(dict.fromkeys(row["strategy"] for row in rows))
    panels = _measured(_BUDGET_PANELS, table)
    judged = _shown(table, data)
    judges = _measured(_JUDGES, judged)
    drawing = preference_figures
    return {
        "budget": drawing.budget_figure(table, strategies, panels) if panels else None,
        "wins": drawing.win_figure(judged, strategies, judges) if judges else None,
        "ambiguity": drawing.ambiguity_figure(data.pairs, strategies, data.confidence),
        "training": drawing.training_figure(data.curves, strategies, data.claim_num_labels),
        "stability": (
            drawing.stability_figure(data.stability, strategies) if data.stability else None
        ),
    }


def _table(means: Mapping[tuple[str, int, str], SeedMean]) -> list[dict[str, Any]]:
    """A row for each strategy and number of labels: {"strategy", "num_labels", "num_seeds",
    "cells": {metric: SeedMean or None}}, strategies in the order of their first run.
    """
    strategies = list(dict.fromkeys(cell.strategy for cell in means))
    names = [column.name for columns in _TABLES.values() for column in columns]
    places = sorted(
        {(cell.strategy, cell.place) for cell in means},
        key=lambda place: (strategies.index(place[0]), place[1]),
    )
    return [
        {
            "strategy": strategy,
            "num_labels": place,
            "num_seeds": max(v.num_seeds for c, v in means.items() if c[:2] == (strategy, place)),
            "cells": {name: means.get((strategy, place, name)) for name in names},
        }
        for strategy, place in places
    ]


def _differences(data: RealReport) -> list[dict[str, Any]]:
    """Rows as in `_table`, of differences from random; empty without random."""
    if not any(run["strategy"] == BASELINE for run in data.runs):
        return []
    return _table(paired_differences(data.runs, "num_labels", data.confidence))


def _shown(table: Sequence[Mapping[str, Any]], data: RealReport) -> list[Mapping[str, Any]]:
    return [row for row in table if row["num_labels"] == data.claim_num_labels]


def _used(columns: Sequence[Column], table: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Columns with a number in at least one row."""
    names = _measured({column.name: "" for column in columns}, table)
    return [column for column in columns if column.name in names]


def _measured(titles: Mapping[str, str], table: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Those of `titles`, by name of the metric, that some row has."""
    return {n: title for n, title in titles.items() if any(row["cells"][n] for row in table)}


def _refuse_non_finite(where: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_non_finite(f"{where}, {key}", inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for place, inner in enumerate(value):
            _refuse_non_finite(f"{where}[{place}]", inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value} is not finite")


def _signed_cell(difference: SeedMean) -> str:
    return signed(difference) if difference.low is not None else f"{difference.mean:+.3f}"


def _arrow(difference: SeedMean | None) -> str:
    """Which way an interval leaves out 0."""
    if difference is None or difference.low is None:
        return ""
    return " ↑" if difference.low > 0 else " ↓" if difference.high < 0 else ""
