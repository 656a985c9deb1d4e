"""The report of concept activation vectors on real films: report.html, which stands alone, and
report.md with its figure.

Axis letters: A attributes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_jax.reports import figures
from eagle_jax.reports.markdown import LEFT, Column, format_interval, table
from eagle_jax.reports.pages import Report, write_pages
from eagle_jax.reports.statistics import BootstrapSettings
from eagle_jax.reports.verdicts import side
from eagle_jax.studies.soft_attributes.measures import mean_gamma
from eagle_jax.studies.soft_attributes.scores import (
    AT_RANDOM,
    LINEAR,
    NEW_FILMS,
    NEW_RATERS,
    OTHER_RATERS,
    POPULARITY,
    RANKING,
    GammaCell,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftAttributesReport(Report):
    """All that the report says.

    embeddings: name -> width. attributes: {"attribute", "num_pairs", "num_named", "num_tagged",
    "num_tag_pairs", "tags"}. cells: as in `scores`. refused: embedding ->
    method -> attribute -> why. facts: what was read and left out. num_resamples, seed: of the
    bootstrap.
    """

    embeddings: Mapping[str, int]
    attributes: Sequence[Mapping[str, Any]]
    cells: Sequence[GammaCell]
    refused: Mapping[str, Mapping[str, Mapping[str, str]]]
    facts: Sequence[str]
    min_positives: int
    num_resamples: int
    seed: int

    @property
    def bootstrap(self) -> BootstrapSettings:
        return BootstrapSettings(num_resamples=self.num_resamples, confidence=self.confidence, seed=self.seed)

    @property
    def columns(self) -> dict[str, dict[str, GammaCell]]:
        """Title of each (method, embedding) -> attribute -> cell; without gamma no cell."""
        found: dict[str, dict[str, GammaCell]] = {}
        for cell in self.cells:
            if cell["gamma"] is not None:
                title = column_title(cell["method"], cell["embedding"])
                found.setdefault(title, {})[cell["attribute"]] = cell
        return found

    @property
    def common(self) -> list[str]:
        """The attributes that every column has: only on these are means comparable."""
        return [
            row["attribute"]
            for row in self.attributes
            if all(row["attribute"] in column for column in self.columns.values())
        ]


def column_title(method: str, embedding: str | None) -> str:
    return method if embedding is None else f"{method}, {embedding}"


def write_attributes_report(folder: Path, report: SoftAttributesReport) -> Path:
    """Writes report.html, report.md and its figure into `folder`, returns the path of the first."""
    means = mean_rows(report)
    context = {
        "data": report,
        "sentences": sentences(report),
        "means": table(means, _MEAN_COLUMNS),
        "attributes": table(report.attributes, _attribute_columns(report)),
    }
    label = f"mean gamma with {report.level} interval"
    figure = figures.interval_figure(means, {"common": ""}, label, part=-1)
    figure.axes[0].axvline(0, color="#8a8a8a", lw=0.8)
    return write_pages(folder, "studies/soft_attributes/report", context, {"means": figure})[0]


_MEAN_COLUMNS = (
    Column("Scoring", "row", LEFT),
    Column("Gamma, common attributes", lambda row: row["cells"]["common"]),
    Column("Gamma, all its attributes", lambda row: row["cells"]["all"]),
    Column("Attributes", "num_attributes"),
    Column("Above 0", "num_above_zero"),
)


def _attribute_columns(report: SoftAttributesReport) -> list[Column]:
    def gamma(row: Mapping[str, Any], scored: Mapping[str, GammaCell]) -> dict[str, Any] | None:
        cell = scored.get(row["attribute"])
        return cell and {"mean": cell["gamma"], "low": cell["low"], "high": cell["high"]}

    return [
        Column("Attribute", "attribute", LEFT),
        Column("Own name", "num_named"),
        Column("Tagged", "num_tagged"),
        Column("Pairs", "num_pairs"),
        *(Column(title, lambda row, scored=scored: gamma(row, scored)) for title, scored in report.columns.items()),
        Column("Tags", lambda row: ", ".join(row["tags"]), LEFT),
    ]


def mean_rows(report: SoftAttributesReport) -> list[dict[str, Any]]:
    """For every column its mean gamma over the common attributes, and over all that it has."""
    common = report.common
    rows = []
    for title, column in report.columns.items():
        gammas = [cell["gamma"] for cell in column.values()]
        rows.append(
            {
                "row": title,
                "cells": {
                    "common": _mean([column[name]["gamma"] for name in common], report.bootstrap),
                    "all": _mean(gammas, report.bootstrap),
                },
                "num_attributes": len(gammas),
                "num_above_zero": sum(gamma > 0 for gamma in gammas),
            }
        )
    return rows


def _mean(gammas: Sequence[float], bootstrap: BootstrapSettings) -> dict[str, Any] | None:
    if len(gammas) < 2:
        return None
    return dataclasses.asdict(mean_gamma(gammas, bootstrap))


def sentences(report: SoftAttributesReport) -> Iterator[str]:
    """What the numbers say, paired over the attributes that two columns share."""
    enough = [row for row in report.attributes if row["num_tagged"] >= report.min_positives]
    by_name = sum(row["num_named"] >= report.min_positives for row in report.attributes)
    yield (
        f"{len(enough)} of {len(report.attributes)} attributes have {report.min_positives} or more "
        f"tagged films; by their own names alone it would be {by_name}."
    )
    yield from _what_limits(report)
    for embedding in report.embeddings:
        linear, ranking, random, films, raters = (
            column_title(method, embedding) for method in (LINEAR, RANKING, AT_RANDOM, NEW_FILMS, NEW_RATERS)
        )
        for better, worse in (
            (linear, random),
            (linear, POPULARITY),
            (ranking, random),
            (ranking, linear),
            (films, linear),
            (OTHER_RATERS, raters),
        ):
            yield from _compared(report, better, worse)


def _what_limits(report: SoftAttributesReport) -> Iterator[str]:
    """Tags against the orderings as labels in one embedding, beside the raters themselves."""
    common = {row["row"]: row["cells"]["common"] for row in mean_rows(report)}
    for embedding in report.embeddings:
        titles = [column_title(method, embedding) for method in (LINEAR, RANKING, NEW_FILMS)]
        means = [common.get(title) for title in (*titles, OTHER_RATERS)]
        if all(means):
            linear, ranking, films, raters = (f"{interval['mean']:.3f}" for interval in means)
            yield (
                f"{embedding}, common attributes: {linear} (linear) and {ranking} (ranking) with "
                f"tags as labels, {films} with the orderings as labels, for films not trained on; "
                f"other raters reach {raters}. What lies between the first two and the third is "
                "the tags' doing, the rest the embedding's and the number of films'."
            )


def _compared(report: SoftAttributesReport, better: str, worse: str) -> Iterator[str]:
    """Nothing where fewer than two attributes have both."""
    first, second = (report.columns.get(title, {}) for title in (better, worse))
    differences = [cell["gamma"] - second[name]["gamma"] for name, cell in first.items() if name in second]
    if len(differences) < 2:
        return
    difference = mean_gamma(differences, report.bootstrap)
    verdict = {1: "above", -1: "below", 0: "not told apart"}[side(difference)]
    yield (
        f"{better} against {worse}: {verdict}, mean difference of gamma "
        f"{format_interval(difference, signed=True)} over {difference.num_values} attributes."
    )
