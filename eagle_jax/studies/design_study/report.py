"""The report of the study of kept subsets: report.html, which stands alone, and report.md.

Letters as in `design_study`: n width of the rows, K candidates, k kept, C the paper's constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_jax.reports.markdown import LEFT, Column, format_interval, share
from eagle_jax.reports.pages import Report, write_pages
from eagle_jax.reports.verdicts import arrow
from eagle_jax.studies.design_study import figures as design_study_figures
from eagle_jax.studies.design_study.measures import ALL, EXCHANGE, RANDOM, TOP_K, subsample_rule
from eagle_jax.studies.design_study.verdict import MEASURE_TITLES, StudyCell, has_utility, study_verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyData(Report):
    """All that the report says.

    cells: of `design_study.study_problems`, each with "set" and "footing" beside.
    shown_num_candidates: K of tables and figures; shown_num_kept: k of those about exploration.
    sets: [{"name", "origin"}]; left_out: why a set is missing.
    """

    rank: int
    num_draws: int
    shown_num_candidates: int
    shown_num_kept: int
    cells: Sequence[StudyCell]
    sets: Sequence[Mapping[str, str]]
    left_out: Sequence[str]


def write_study_report(folder: Path, data: StudyData) -> tuple[Path, Path]:
    """Writes report.html and report.md with its figures into `folder`, returns the two paths."""
    shown = [c for c in data.cells if c["num_candidates"] == data.shown_num_candidates]
    explored = [c for c in shown if has_utility(c) and c["num_kept"] == data.shown_num_kept]
    constants = [row["subsample_factor"] for row in data.cells[0]["paper"]]
    designed = [*map(subsample_rule, constants), TOP_K, EXCHANGE]
    drawn = {
        "acceptance": design_study_figures.acceptance_figure(data.cells),
        "leverage": design_study_figures.leverage_figure(shown),
        "factor": design_study_figures.factor_figure(shown),
        "exploration": design_study_figures.exploration_figure(explored) if explored else None,
    }
    context = {
        "data": data,
        "verdict": study_verdict(data.cells, rank=data.rank, num_draws=data.num_draws),
        "shown": shown,
        "explored": explored,
        "acceptance_columns": _acceptance_columns(constants),
        "factor_columns": _factor_columns([RANDOM, *designed]),
        "explored_rules": [RANDOM, *designed, ALL],
        "measure_columns": _measure_columns,
        "random": RANDOM,
    }
    return write_pages(folder, "studies/design_study/report", context, drawn)


def _acceptance_columns(constants: Sequence[float]) -> list[Column]:
    return [
        Column("Set", "set", LEFT),
        Column("Rows", "footing", LEFT),
        Column("n", "width"),
        Column("K", "num_candidates"),
        Column("k", "num_kept"),
        Column("", lambda cell: "k ≤ n" if cell["num_kept"] <= cell["width"] else "k > n", LEFT),
        *(
            Column(f"Accepted, C = {c:g}", lambda cell, at=at: share(cell["paper"][at]["accepted"]))
            for at, c in enumerate(constants)
        ),
        Column("Over all K, C = 1", lambda cell: share(cell["paper"][0]["accepted_over_all"])),
        Column("Smallest leverage / n", "{largest_kept_leverage_over_n[smallest]:.2f}"),
        Column("Gave up, C = 1", "{paper[0][num_given_up]} of {num_problems}"),
    ]


def _factor_columns(rules: Sequence[str]) -> list[Column]:
    return [
        Column("Set", "set", LEFT),
        Column("Rows", "footing", LEFT),
        Column("Rank", "rank"),
        Column("K", "num_candidates"),
        Column("k", "num_kept"),
        *(Column(rule, lambda cell, rule=rule: factor_text(cell["rules"][rule])) for rule in rules),
    ]


def _measure_columns(cell: StudyCell) -> list[Column]:
    """Of rules as rows: each measure with its interval, and an arrow where it is not random's."""

    def measured(rule: str, name: str) -> str:
        results = cell["rules"][rule]
        return format_interval(results["measures"][name]) + arrow(results["against_random"][name])

    return [
        Column("Rule", str, LEFT),
        *(Column(title, lambda rule, name=name: measured(rule, name)) for name, title in MEASURE_TITLES.items()),
    ]


def factor_text(rule: Mapping[str, Any]) -> str:
    """Median factor of a rule's subsets; the worst finite one; how many miss how much."""
    median, worst = rule["median_factor"], rule["worst_finite_factor"]
    said = [] if worst is None else [f"worst {worst:.3g}"]
    if rule["missed_share"]:
        said.append(f"{share(rule['missed_share'])} inf, rank covered {share(rule['rank_share'])}")
    return f"{'inf' if median is None else f'{median:.2f}'} ({', '.join(said)})"
