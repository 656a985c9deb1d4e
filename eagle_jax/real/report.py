"""The report of a study of preference pairs: the claims of REAL (arXiv 2409.17169) beside what was
found. What a run does not have is left out and said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from markupsafe import Markup

from eagle_jax.real.evaluation import figures
from eagle_jax.real.evaluation.claims import (
    ACCURACY,
    CONTRARY_CLAIMS,
    REAL_CLAIMS,
    findings,
    saving_findings,
    savings,
    stability_finding,
    stability_table,
)
from eagle_jax.real.evaluation.table import BASELINE, RunRows, SeedMean, paired_differences, seed_means
from eagle_jax.real.evaluation.verdict import verdict
from eagle_jax.real.labels import ANNOTATORS
from eagle_jax.real.settings import GRAMMAR_RATER
from eagle_jax.reports.markdown import LEFT, Column, Measure, format_interval, table, used_measures
from eagle_jax.reports.pages import Report, refuse_non_finite, write_pages
from eagle_jax.reports.verdicts import arrow

_MEASURES = {
    "The labels": (
        Measure("label_error_rate", "Wrong labels", "share of labels against the true preference"),
        Measure("mean_similarity", "Similarity", "mean similarity of the labelled pairs"),
    ),
    "Held-out pairs, the same for all": (
        Measure("held_out/loss", "Loss", "mean loss"),
        Measure(
            "held_out/rewards/margin", "Margin", "mean of r(chosen) − r(rejected), where r = beta (log π − log π_ref)"
        ),
        Measure(ACCURACY, "Accuracy", "share of pairs with r(chosen) above r(rejected)"),
        Measure("held_out/rewards/chosen", "r(chosen)", "mean reward of the chosen"),
        Measure("held_out/rewards/rejected", "r(rejected)", "mean reward of the rejected"),
    ),
    "The pairs that were trained on": (
        Measure(
            "train/loss",
            "Loss",
            "mean loss on the strategy's own pairs and labels, in the last epoch, before each step",
        ),
        Measure("train/rewards/margin", "Margin", "mean margin on them"),
        Measure("train/rewards/accuracy", "Accuracy", "share of them with a margin above 0"),
    ),
    "What the policies write": (
        Measure(
            "win_rate_true",
            "Wins, true utility",
            "share of prompts where the response has the higher true utility, ties count one half",
        ),
        Measure(
            "win_rate_rater",
            "Wins, rater",
            "share of prompts where the rater prefers it in both orders, contradictions count one half",
        ),
        Measure("rater_agreement", "Rater's agreement", "share of prompts with the same answer in both orders"),
        Measure("mean_true_utility", "True utility", "mean of the responses"),
        Measure("malformed_share", "Malformed", "share of responses that could not be read"),
    ),
}
_ALL_MEASURES = [measure for measures in _MEASURES.values() for measure in measures]
_NO_CELLS = dict.fromkeys(measure.name for measure in _ALL_MEASURES)
_DIFFERENCES = (
    "label_error_rate",
    "held_out/loss",
    "held_out/rewards/margin",
    ACCURACY,
    "win_rate_true",
    "win_rate_rater",
    "mean_true_utility",
)
_BUDGET_PANELS = {ACCURACY: "accuracy, held-out pairs", "held_out/rewards/margin": "margin"}
_JUDGES = {"win_rate_true": "wins by true utility", "win_rate_rater": "wins by the rater"}

_STRATEGY, _LABELS = Column("Strategy", "strategy", LEFT), Column("Labels", "num_labels")
_SEEDS, _PAIRS = Column("Seeds", "num_seeds"), Column("Pairs", "num_pairs")
_SIMILARITY = Column("Mean similarity", "mean_similarity")
_TRUE_GAP = Column("Mean gap in true utility", "mean_true_gap")
_CLAIMS = (
    Column("Claim", attrgetter("claim"), LEFT),
    Column("Found here", lambda finding: "; ".join(finding.found) or "not measured in this run", LEFT),
    Column("Verdict", attrgetter("verdict"), LEFT),
)
_SELECTION = (_STRATEGY, _PAIRS, _SIMILARITY, _TRUE_GAP, Column("Without a label", "num_invalid"))
_EMBEDDINGS = (
    Column("Embedding", "embedding", LEFT),
    Column("Metric", "metric", LEFT),
    *(_STRATEGY, _PAIRS, _SIMILARITY, _TRUE_GAP),
    Column("Wrong labels", "label_error_rate"),
    Column("Shared", "overlap"),
)
_STABILITY = (
    *(_STRATEGY, _SEEDS),
    Column("Last step", "step"),
    Column("Median at the start", "first_median"),
    Column("Median at the end", "last_median"),
    Column("Rank correlation with the start", lambda row: _mean(row, row["rank_correlation"])),
    Column("Same easy pairs", lambda row: _mean(row, row["easy_overlap"])),
)
_SAMPLES = (_STRATEGY, Column("Response", "text", LEFT), Column("True utility", "true_utility"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealReport(Report):
    """All that the report says; settings: of a `RealExperiment`. An empty sequence: no such part.

    In rows None stands for what a run does not have (a true utility, a rater); it is told as "–".

    num_prompts: of "train", whose responses are labelled, and of "test", held out.
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
    stages: [{"title", "facts"}]: counts of what was read, what was malformed or left out, and what
      it cost, as of `reports.markdown.fact`.
    """

    num_prompts: Mapping[str, int]
    runs: RunRows
    curves: RunRows
    stability: RunRows
    selection: RunRows
    pairs: RunRows
    embeddings: RunRows
    samples: RunRows
    stages: RunRows

    @property
    def num_labels(self) -> int:
        """At which the claims are judged."""
        return self.settings["num_labels"][-1]


def write_real_report(folder: Path, data: RealReport) -> tuple[Path, Path]:
    """Writes report.html and report.md with its figures into `folder`, returns the two paths.

    Raises ValueError that names the cell for a number that is not finite, for two rows of the same
    run, and for runs without a partner to compare with.
    """
    for name in ("curves", "stability", "selection", "pairs", "embeddings", "samples", "stages"):
        refuse_non_finite(name, getattr(data, name))
    results = _rows(seed_means(data.runs, data.confidence))
    return write_pages(folder, "real/report", _context(data, results), _figures(data, results))


def _context(data: RealReport, results: RunRows) -> dict[str, Any]:
    """What the page reads."""
    at = {"num_labels": data.num_labels, "confidence": data.confidence}
    saved = savings(data.runs, data.confidence)
    stability = stability_table(data.stability, data.confidence)
    real = [*findings(REAL_CLAIMS, data.runs, **at), stability_finding(stability), *saving_findings(saved)]
    contrary = findings(CONTRARY_CLAIMS, data.runs, **at)
    differences = []
    if any(run["strategy"] == BASELINE for run in data.runs):
        differences = _rows(paired_differences(data.runs, data.confidence))
    compared = used_measures([m for m in _ALL_MEASURES if m.name in _DIFFERENCES], differences)
    differing = [_STRATEGY, _LABELS, *_columns(compared, _difference)]
    labels = data.settings["labels"]
    return {
        "data": data,
        "labels": ANNOTATORS[labels["source"]].sentence(labels),
        "teacher": GRAMMAR_RATER,
        "summary": verdict(data.runs, data.pairs, real, contrary, **at),
        "claims": table(real, _CLAIMS),
        "contrary": table(contrary, _CLAIMS),
        "results": _result_tables(_shown(results, data), results),
        "differences": table(_shown(differences, data), differing),
        "all_results": _result_tables(results, results),
        "all_differences": table(differences, differing),
        "has_more": len(results) > len(_shown(results, data)),
        "saved": [f"{strategy}: {row.sentence}" for strategy, row in saved.items()],
        "selection": table(data.selection, _SELECTION),
        "embeddings": table(data.embeddings, _EMBEDDINGS),
        "stability": table(stability, _STABILITY),
        "samples": [(s["prompt"], table(s["rows"], _SAMPLES)) for s in data.samples],
    }


def _figures(data: RealReport, results: RunRows) -> dict[str, Any]:
    """Name -> figure, None where the run does not have its numbers."""
    rows = [*results, *data.pairs, *data.stability]
    strategies = list(dict.fromkeys(row["strategy"] for row in rows))
    judged = _shown(results, data)
    return {
        "budget": figures.budget_figure(results, strategies, _BUDGET_PANELS),
        "wins": figures.win_figure(judged, _JUDGES),
        "ambiguity": figures.ambiguity_figure(data.pairs, strategies, data.confidence),
        "training": figures.runs_figure(data.curves, strategies, data.num_labels),
        "stability": figures.stability_figure(data.stability, strategies) if data.stability else None,
    }


def _rows(means: Mapping[tuple[str, int, str], SeedMean]) -> list[dict[str, Any]]:
    """A row for each strategy and number of labels: {"strategy", "num_labels", "num_seeds",
    "cells": {metric: SeedMean or None}}, strategies in the order of their first run.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for cell, value in means.items():
        new = {"strategy": cell.strategy, "num_labels": cell.num_labels, "num_seeds": 0, "cells": dict(_NO_CELLS)}
        row = rows.setdefault(cell[:2], new)
        row["num_seeds"] = max(row["num_seeds"], value.num_seeds)
        row["cells"][cell.metric] = value
    strategies = list(dict.fromkeys(cell.strategy for cell in means))
    return sorted(rows.values(), key=lambda row: (strategies.index(row["strategy"]), row["num_labels"]))


def _shown(rows: RunRows, data: RealReport) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["num_labels"] == data.num_labels]


def _result_tables(rows: RunRows, everything: RunRows) -> list[tuple[str, Markup, Sequence[Measure]]]:
    """Title, table and measures of each group that has any in `everything`."""
    used = {title: used_measures(measures, everything) for title, measures in _MEASURES.items()}
    return [
        (title, table(rows, [_STRATEGY, _LABELS, _SEEDS, *_columns(measures, _mean)]), measures)
        for title, measures in used.items()
        if measures
    ]


def _columns(measures: Iterable[Measure], tell: Callable[[Mapping[str, Any], SeedMean | None], Markup]) -> list[Column]:
    return [
        Column(measure.heading, lambda row, name=measure.name: tell(row, row["cells"][name])) for measure in measures
    ]


def _mean(row: Mapping[str, Any], value: SeedMean | None) -> Markup:
    """With its number of seeds where others of the row have more."""
    if value is None or value.num_seeds == row["num_seeds"]:
        return format_interval(value)
    return Markup(f"{format_interval(value)} (seeds: {value.num_seeds})")


def _difference(row: Mapping[str, Any], value: SeedMean | None) -> Markup:
    return Markup(format_interval(value, signed=True) + arrow(value))
