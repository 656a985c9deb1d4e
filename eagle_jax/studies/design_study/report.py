"""The report of the study of kept subsets: report.html, which stands alone, and report.md.

Letters as in `design_study`: n width of the rows, K candidates, k kept, C the paper's constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_jax.reports.markdown import share
from eagle_jax.reports.pages import write_pages
from eagle_jax.studies.design_study import figures as design_study_figures
from eagle_jax.studies.design_study.measures import ALL, EXCHANGE, RANDOM, TOP_K, subsample_rule
from eagle_jax.studies.design_study.verdict import MEASURE_TITLES, Cell, has_utility, verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyData:
    """All that the report says; every field is JSON-able.

    cells: of `design_study.study_problems`, each with "set" and "footing" beside.
    shown_num_candidates: K of tables and figures; shown_num_kept: k of those about exploration.
    sets: [{"name", "told"}]; left_out: why a set is missing.
    """

    title: str
    confidence: float
    rank: int
    num_draws: int
    shown_num_candidates: int
    shown_num_kept: int
    cells: Sequence[Cell]
    sets: Sequence[Mapping[str, str]]
    left_out: Sequence[str]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]


def write_study_report(folder: Path, data: StudyData) -> tuple[Path, Path]:
    """Writes report.html and report.md with its figures into `folder`, returns the two paths."""
    shown = [c for c in data.cells if c["num_candidates"] == data.shown_num_candidates]
    explored = [c for c in shown if has_utility(c) and c["num_kept"] == data.shown_num_kept]
    constants = [row["subsample_factor"] for row in data.cells[0]["paper"]]
    drawn = {
        "acceptance": design_study_figures.acceptance_figure(data.cells),
        "leverage": design_study_figures.leverage_figure(shown),
        "factor": design_study_figures.factor_figure(shown),
        "exploration": design_study_figures.exploration_figure(explored) if explored else None,
    }
    context = {
        "data": data,
        "level": f"{data.confidence:.0%}".replace("%", " %"),
        "verdict": list(verdict(data.cells, rank=data.rank, num_draws=data.num_draws)),
        "shown": shown,
        "explored": explored,
        "constants": constants,
        "factor_rules": [RANDOM, *map(subsample_rule, constants), TOP_K, EXCHANGE],
        "explored_rules": [RANDOM, *map(subsample_rule, constants), TOP_K, EXCHANGE, ALL],
        "measures": MEASURE_TITLES,
        "random": RANDOM,
    }
    filters = {"share": share, "factor": factor_text}
    return write_pages(folder, "studies/design_study/report", context, drawn, filters)


def factor_text(rule: Mapping[str, Any]) -> str:
    """Median factor of a rule's subsets; the worst finite one; how many miss how much."""
    median, worst = rule["median_factor"], rule["worst_finite_factor"]
    said = [] if worst is None else [f"worst {worst:.3g}"]
    if rule["missed_share"]:
        said.append(f"{share(rule['missed_share'])} inf, rank covered {share(rule['rank_share'])}")
    return f"{'inf' if median is None else f'{median:.2f}'} ({', '.join(said)})"
