"""The report of a run: report.html, which needs nothing beside it, and report.md with its figures.

Everything comes from `ReportData`, plain JSON-able values, so a report can be made again from the
artifacts of a run. Text written by language models is untrusted: it is escaped, always.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_jax.eagle.evaluation.rows import EAGLE, ELM, REFERENCE, Row
from eagle_jax.eagle.evaluation.table import (
    HELD_OUT_COLUMNS,
    RATER_COLUMNS,
    TEXT_COLUMNS,
    TRAIN_COLUMNS,
)
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN
from eagle_jax.reports import figures
from eagle_jax.reports.pages import format_interval, write_pages

ENCODER_TITLES = {TRAIN: "training encoder", HELD_OUT: "held-out encoder"}

# Tennenholtz et al., Embedding-Aligned Language Models, NeurIPS 2024 (arXiv 2406.00024), the table
# of reference policies on the strong test environment: U, its error, raters' shares.
PAPER_SOURCE = "Tennenholtz et al., NeurIPS 2024, arXiv 2406.00024"
PAPER_TABLE = {
    Row(system=ELM): (0.57, None, 0.31, 0.37, 0.52),
    Row(system=REFERENCE, kind="uniform"): (0.49, 0.02, 0.59, 0.62, 0.44),
    Row(system=REFERENCE, kind="best_next_step"): (0.58, 0.02, 0.62, 0.60, 0.34),
    Row(system=REFERENCE, kind="g_optimal"): (0.51, 0.02, 0.51, 0.67, 0.45),
    Row(system=EAGLE, kind="uniform"): (0.65, 0.03, 0.69, 0.64, 0.43),
    Row(system=EAGLE, kind="best_next_step"): (0.69, 0.04, 0.71, 0.69, 0.25),
    Row(system=EAGLE, kind="g_optimal"): (0.74, 0.03, 0.76, 0.74, 0.47),
}

# Of the table of the ELM decoder's sweep: heading -> cell.
SWEEP_COLUMNS = {
    "U of the text": "train/utility",
    "Held-out U": "held_out/utility",
    "Distance": "distance",
    "Well-formed": "well_formed_share",
}

_TOKEN = re.compile(r"#(?:BEGIN|END)_[A-Z_]+|[^\s#]+|#")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportData:
    """All that a report says; every field is JSON-able.

    Rows of the table that the paper has too are those of `PAPER_TABLE`.
    """

    title: str
    confidence: float  # of all intervals, e.g. 0.95
    table: Sequence[Mapping[str, Any]]  # content_gap_table.summarize
    comparisons: Sequence[Mapping[str, Any]]  # content_gap_table.compare
    malformed: Mapping[str, Mapping[str, Any]]  # content_gap_table.malformed_counts
    episodes: Sequence[Mapping[str, Any]]  # EpisodeRecord.to_json, the ones to be told
    # [{"row", "seed", "metrics": {name: {"step": [...], "value": [...]}}}], see learning_curve
    curves: Sequence[Mapping[str, Any]]
    embedding_picture: Mapping[str, Any]  # figures.embedding_picture
    # [{"title", "facts": [{"name", "value", "meaning"}]}], one group for each stage
    stages: Sequence[Mapping[str, Any]]
    rater: str  # a sentence or two: who answered the rater form
    remote: Sequence[Mapping[str, Any]]  # RemoteGenerator.usage and a name, for each remote model
    # content_gap_table.summarize with metric, radius, length, point_utility and chosen: the ELM
    # decoder on validation pairs; empty without one
    decoder_sweep: Sequence[Mapping[str, Any]]
    not_reproduced: Sequence[str]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]




def write_report(folder: Path, data: ReportData) -> tuple[Path, Path]:
    """Writes report.html and report.md with its figures into `folder`, returns the two paths.

    Raises ValueError naming row and column if the table holds a number that is not finite.
    """
    _refuse_non_finite(data.table)
    drawn = {
        "utility": figures.utility_figure(data.table, _encoders(data)),
        "curves": figures.curves_figure(data.curves) if data.curves else None,
        "embedding": figures.embedding_figure(data.embedding_picture),
    }
    return write_pages(folder, "eagle/report", _context(data), drawn)


def changed_words(before: str, after: str) -> list[tuple[str, str]]:
    """`after` as (kind, text) pieces: "same", "new", "gone" (only in `before`), or "label".

    A label is a block's opening marker, told in words; closing markers are left out.
    """
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    pieces: list[tuple[str, str]] = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for operation, i, i_end, j, j_end in matcher.get_opcodes():
        if operation == "equal":
            pieces += _pieces("same", new[j:j_end])
        else:
            pieces += _pieces("gone", old[i:i_end]) + _pieces("new", new[j:j_end])
    return pieces


def _pieces(kind: str, words: Sequence[str]) -> list[tuple[str, str]]:
    pieces, run = [], []
    for word in [*words, "#END_"]:
        if not word.startswith(("#BEGIN_", "#END_")):
            run.append(word)
            continue
        if run:
            pieces.append((kind, " ".join(run)))
            run = []
        if word.startswith("#BEGIN_") and kind != "gone":
            label = word.removeprefix("#BEGIN_").replace("_", " ").capitalize()
            pieces.append(("label", label))
    return pieces


def _context(data: ReportData) -> dict[str, Any]:
    """What both templates read."""
    tables = [("Does it steer? Scored by the training encoder", TRAIN_COLUMNS, TRAIN)]
    if HELD_OUT in _encoders(data):
        tables.append(("The same texts under the held-out encoder", HELD_OUT_COLUMNS, HELD_OUT))
    tables.append(("What became of the texts, and what it cost", TEXT_COLUMNS, "text"))
    rated = _used(RATER_COLUMNS, data.table)
    if rated:
        tables.append(("What a rater says, blind to which text is new", RATER_COLUMNS, "rater"))
    cells = {row["row"]: row["cells"] for row in data.table}
    return {
        "data": data,
        "level": f"{data.confidence:.0%}".replace("%", " %"),
        "tables": [
            {"title": title, "columns": _used(columns, data.table), "name": name}
            for title, columns, name in tables
        ],
        "comparisons": [{**c, "verdict": _verdict(c)} for c in data.comparisons],
        "paper": [
            {"row": row.title, "values": values, "ours": cells.get(row.title)}
            for row, values in PAPER_TABLE.items()
        ],
        "paper_columns": [
            ("Ours: U", "train/utility"),
            ("Gain over anchor", "train/gain"),
            *(
                (f"Ours: {column.heading.lower()}", column.name)
                for column in rated
                if column.name != "rater/consistency"
            ),
        ],
        "paper_source": PAPER_SOURCE,
        "sweep_columns": SWEEP_COLUMNS,
        "encoder_titles": ENCODER_TITLES,
        "episodes": [_story(episode) for episode in data.episodes],
        "rated": bool(rated),
        "reasons": sorted({reason for row in data.malformed.values() for reason in row["reasons"]}),
        
        
        "summary": list(_summary(data)),
    }


def _encoders(data: ReportData) -> dict[str, str]:
    """Encoders that the table has utilities for -> their titles."""
    return {
        encoder: title
        for encoder, title in ENCODER_TITLES.items()
        if any(row["cells"][f"{encoder}/utility"] for row in data.table)
    }


def _used(columns, table):
    """Columns with a number in at least one row."""
    return [c for c in columns if any(row["cells"][c.name] is not None for row in table)]


def _verdict(comparison: Mapping[str, Any]) -> str:
    """What the intervals of a comparison allow one to say."""
    difference = comparison["difference"]
    if comparison["separated"]:
        return "higher, intervals separated"
    if difference["low"] > 0:
        return "higher start by start, intervals overlap"
    if difference["high"] < 0:
        return "lower"
    return "no difference shown"


def _summary(data: ReportData) -> Iterator[str]:
    """One sentence for each compared pair of rows: both encoders' verdicts."""
    pairs = dict.fromkeys((c["row"], c["baseline"]) for c in data.comparisons)
    for row, baseline in pairs:
        parts = [
            f"{ENCODER_TITLES[c['encoder']]}: {_verdict(c)}, "
            f"{format_interval(c['difference'], signed=True)}"
            for c in data.comparisons
            if (c["row"], c["baseline"]) == (row, baseline)
        ]
        yield f"{row} against {baseline}. {'; '.join(parts).capitalize()}."


def _story(episode: Mapping[str, Any]) -> dict[str, Any]:
    """An episode with the words that each step changed and the utilities after it."""
    before, steps = episode["anchor"], []
    for place, step in enumerate(episode["steps"], start=1):
        utilities = {encoder: path[place]["utility"] for encoder, path in episode["scores"].items()}
        words = changed_words(before, step["description"])
        steps.append({**step, "words": words, "utilities": utilities})
        before = step["description"]
    first = {encoder: path[0]["utility"] for encoder, path in episode["scores"].items()}
    words = changed_words(episode["anchor"], episode["anchor"])
    return {**episode, "steps": steps, "anchor_words": words, "anchor_utilities": first}


def _refuse_non_finite(table: Sequence[Mapping[str, Any]]) -> None:
    for row in table:
        for name, cell in row["cells"].items():
            if cell is not None and not all(map(math.isfinite, cell.values())):
                raise ValueError(f"row {row['row']!r}, column {name!r}: {cell} is not finite")
