"""The tables of EAGLE's report, and what their intervals allow one to say."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from markupsafe import Markup

from eagle_jax.eagle.evaluation.episodes import plot_alone
from eagle_jax.eagle.evaluation.systems import EAGLE, ELM_DECODER, REFERENCE, EvalRow
from eagle_jax.eagle.evaluation.table import (
    HELD_OUT_MEASURES,
    INDEPENDENT_MEASURES,
    PLOT_MEASURES,
    RATER_MEASURES,
    REACHABLE_SHARE,
    TEXT_MEASURES,
    TRAIN_MEASURES,
)
from eagle_jax.embeddings.scorer import HELD_OUT, INDEPENDENT, TRAIN
from eagle_jax.reports.markdown import (
    LEFT,
    Column,
    Measure,
    bullets,
    format_interval,
    measure_columns,
    table,
    used_measures,
)
from eagle_jax.reports.verdicts import side

TableRows = Sequence[Mapping[str, Any]]

ENCODERS = {TRAIN: "training encoder", HELD_OUT: "held-out encoder", INDEPENDENT: "independent encoder"}
_NOTHING = 0.005  # by so little all cells of a column, with their intervals, may differ to be told in a sentence
HELD_FIELDS = "genres and year as the anchor has them"
ENCODER_TITLES = ENCODERS | {plot_alone(name): f"{title}, {HELD_FIELDS}" for name, title in ENCODERS.items()}

# Tennenholtz et al., Embedding-Aligned Language Models, NeurIPS 2024 (arXiv 2406.00024), the table
# of reference policies on the strong test environment: U, its error, raters' shares.
PAPER_TABLE = {
    EvalRow(system=ELM_DECODER): (0.57, None, 0.31, 0.37, 0.52),
    EvalRow(system=REFERENCE, kind="uniform"): (0.49, 0.02, 0.59, 0.62, 0.44),
    EvalRow(system=REFERENCE, kind="best_next_step"): (0.58, 0.02, 0.62, 0.60, 0.34),
    EvalRow(system=REFERENCE, kind="g_optimal"): (0.51, 0.02, 0.51, 0.67, 0.45),
    EvalRow(system=EAGLE, kind="uniform"): (0.65, 0.03, 0.69, 0.64, 0.43),
    EvalRow(system=EAGLE, kind="best_next_step"): (0.69, 0.04, 0.71, 0.69, 0.25),
    EvalRow(system=EAGLE, kind="g_optimal"): (0.74, 0.03, 0.76, 0.74, 0.47),
}


def utility_panels(rows: TableRows) -> dict[str, str]:
    """Name of U under each encoder that the table has numbers of -> the encoder's title."""
    names = {f"{encoder}/utility": title for encoder, title in ENCODER_TITLES.items()}
    return {n: title for n, title in names.items() if any(row["cells"].get(n) for row in rows)}


def result_tables(rows: TableRows, num_reachable: int | None = None) -> Iterator[dict[str, Any]]:
    """{"title", "table", "meanings"} of each group of measures that was taken; num_reachable: starts that the share of
    what can be reached is over, which are fewer than the pairs."""
    columns = [
        Column("Row", "row", LEFT),
        Column("Episodes", "num_episodes"),
        Column("Pairs", "num_pairs"),
        Column("Seeds", "num_seeds"),
    ]
    of_plots = (
        (f"The same texts with {HELD_FIELDS}: {title}", PLOT_MEASURES[name]) for name, title in ENCODERS.items()
    )
    for title, measures in (
        ("Does it steer? Scored by the training encoder", TRAIN_MEASURES),
        ("The same texts under the held-out encoder", HELD_OUT_MEASURES),
        ("The same texts under the independent encoder, of other films and other ratings", INDEPENDENT_MEASURES),
        *of_plots,
        ("What became of the texts, and what it cost", TEXT_MEASURES),
        ("What a rater says, blind to which text is new", RATER_MEASURES),
    ):
        used = [_counted(measure, num_reachable) for measure in used_measures(measures, rows)]
        shown = [measure for measure in used if not _same_in_all(measure, rows)]
        if used:
            yield {
                "title": title,
                "table": table(rows, columns + measure_columns(shown, rows)) if shown else "",
                "meanings": bullets(_meaning(measure, rows, measure in shown) for measure in used),
            }
        columns = columns[:1]


def _counted(measure: Measure, num_reachable: int | None) -> Measure:
    if measure.name != REACHABLE_SHARE or num_reachable is None:
        return measure
    return dataclasses.replace(measure, heading=f"{measure.heading}, {num_reachable} starts")


def _same_in_all(measure: Measure, rows: TableRows) -> bool:
    """Whether a column of it would tell nothing: what differs by less than a digit that matters."""
    if len(rows) < 2:
        return False
    cells = [cell for row in rows if (cell := row["cells"].get(measure.name)) is not None]
    return max(cell["high"] for cell in cells) - min(cell["low"] for cell in cells) < _NOTHING


def _meaning(measure: Measure, rows: TableRows, has_column: bool) -> str:
    """What a measure is; where it is the same in all rows this sentence is in the column's place."""
    if has_column:
        return f"{measure.heading}: {measure.meaning}"
    cells = [row["cells"].get(measure.name) for row in rows]
    counts = {cell["n"] for cell in cells if cell and "n" in cell}
    over = f" (n = {' or '.join(map(str, sorted(counts)))})" if counts else ""
    ends = dict.fromkeys(f"{pick(cell['mean'] for cell in cells if cell):.3f}" for pick in (min, max))
    among = "all rows" if all(cells) else "all rows that have it"
    return f"{measure.heading}: {measure.meaning} In {among}: {' to '.join(ends)}{over}."


def _verdict(comparison: Mapping[str, Any]) -> str:
    """What the intervals of a comparison allow one to say."""
    if comparison["separated"]:
        return "higher, intervals separated"
    higher = "higher start by start, intervals overlap"
    return {1: higher, -1: "lower", 0: "no difference shown"}[side(comparison["difference"])]


COMPARISON_COLUMNS = (
    Column("Row", "row", LEFT),
    Column("Against", "baseline", LEFT),
    Column("Scored by", lambda c: ENCODER_TITLES[c["encoder"]], LEFT),
    Column("Difference in U", lambda c: format_interval(c["difference"], signed=True)),
    Column("Verdict", _verdict, LEFT),
)


def paper_table(rows: TableRows) -> Markup:
    """The paper's rows, and beside each what this run has under its title."""
    cells = {row["row"]: row["cells"] for row in rows}

    def ours(name: str, heading: str) -> Column:
        return Column(heading, lambda line: cells.get(line[0].title, {}).get(name))

    def utility(line: tuple[EvalRow, tuple[float | None, ...]]) -> str:
        mean, error, *_ = line[1]
        return f"{mean:.2f}" if error is None else f"{mean:.2f} ± {error:.2f}"

    shares = enumerate(("User utility", "Rater utility", "Distance"), start=2)
    rated = used_measures(RATER_MEASURES, rows)
    return table(
        PAPER_TABLE.items(),
        (
            Column("Row", lambda line: line[0].title, LEFT),
            Column("Paper: U", utility),
            *(Column(name, lambda line, at=at: f"{line[1][at]:.2f}") for at, name in shares),
            ours("train/utility", "Ours: U"),
            ours("train/gain", "Gain over anchor"),
            *(
                ours(measure.name, f"Ours: {measure.heading.lower()}")
                for measure in rated
                if measure.name != "rater/consistency"
            ),
        ),
    )


SWEEP_COLUMNS = (  # the ELM decoder on validation pairs, by metric and radius
    Column("Metric", "metric", LEFT),
    Column("Radius", "radius"),
    Column("Length", "{length:.3f}"),
    Column("U of the point", "{point_utility:.3f}"),
    Column("U of the text", lambda row: row["cells"]["train/utility"]),
    Column("Held-out U", lambda row: row["cells"]["held_out/utility"]),
    Column("Distance", lambda row: row["cells"]["distance"]),
    Column("Well-formed", lambda row: row["cells"]["well_formed_share"]),
    Column("Chosen", lambda row: "yes" if row["chosen"] else "", LEFT),
)


def break_even_columns(lines: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Of `break_even.break_even`: what an agent's fewer episodes are worth, and their difference from best-of-N."""
    encoders = [name for name in ENCODERS if lines and name in lines[0]["utility"]]
    return [
        Column("Agent", "agent", LEFT),
        Column("Pairs served", "{pairs:,.0f}"),
        Column("Its episodes", "{episodes} of {best_of}"),
        Column("Against", lambda line: line.get("baseline", ""), LEFT),
        *(Column(f"U, {ENCODERS[e]}", lambda line, e=e: line["utility"][e]) for e in encoders),
        *(
            Column(f"Difference, {ENCODERS[e]}", lambda line, e=e: format_interval(line["differences"][e], signed=True))
            for e in encoders
        ),
    ]


def malformed_columns(malformed: Mapping[str, Mapping[str, Any]], rated: bool) -> list[Column]:
    """Of (row, its counts) pairs: steps, forms if there was a rater, and failures by reason."""
    reasons = sorted({reason for counts in malformed.values() for reason in counts["reasons"]})
    return [
        Column("Row", itemgetter(0), LEFT),
        Column("Steps", lambda line: line[1]["num_steps"]),
        *([Column("Rater forms", lambda line: line[1]["num_forms"])] if rated else []),
        *(
            Column(reason, lambda line, reason=reason: line[1]["reasons"].get(reason, 0))
            for reason in reasons or ["Malformed"]
        ),
    ]


def _failed(model: Mapping[str, Any]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in model["failed"].items()) or "none"


REMOTE_COLUMNS = (  # what each remote model took, `RemoteGenerator.usage`
    Column("Model", "{name}: {model} at {base_url}", LEFT),
    Column("Requests", "num_requests"),
    Column("Answered", "num_answered"),
    Column("Failed", _failed, LEFT),
    Column("From the cache", "num_cached"),
    Column("Prompt tokens", "prompt_tokens"),
    Column("Completion tokens", "completion_tokens"),
    Column("Requests without a count of tokens", "num_uncounted"),
    Column("Cost", "cost"),
)
