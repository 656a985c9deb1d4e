"""Stage 8: every row of the table on the same held-out starts, and what its records say."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.metrics import progress
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.eagle.evaluation.break_even import break_even
from eagle_jax.eagle.evaluation.episodes import EpisodeRecord
from eagle_jax.eagle.evaluation.reachable import best_reachable_utility
from eagle_jax.eagle.evaluation.rows import Contestants, Evaluation
from eagle_jax.eagle.evaluation.systems import comparison_pairs
from eagle_jax.eagle.evaluation.table import REACHABLE_SHARE, Resampling, compare, malformed_counts, summarize


def run_evaluation_stage(stage: StageFolder, evaluation: Evaluation, contestants: Contestants) -> None:
    """Plays all rows; writes records.jsonl and table.json, whose lines hold the fields of their row
    and its title as `row`; and comparisons.json, break_even.json, malformed.json and reachable.json by titles."""
    if stage.is_complete():
        return
    rows = evaluation.rows(contestants)
    titles = {row.title: row for row in rows}
    jobs = [(row.title, seed, play) for row, of in rows.items() for seed, play in of.items()]
    chunks = [
        stage.chunk(index, lambda seed=seed, play=play: _chunk(evaluation, seed, play))
        for index, (_, seed, play) in enumerate(progress(jobs, len(jobs), "evaluation", "row"))
    ]
    records: dict[str, list[EpisodeRecord]] = {title: [] for title in titles}
    malformed_answers: dict[str, Counter[str]] = {title: Counter() for title in titles}
    for (title, seed, _), chunk in zip(jobs, chunks, strict=True):
        # The seed of a record is the row's own, so that tables can average seeds inside a pair.
        records[title] += [EpisodeRecord.from_json(value | {"seed": seed}) for value in chunk["records"]]
        malformed_answers[title].update(chunk["malformed_answers"])
    settings = evaluation.settings
    resampling = Resampling(settings.bootstrap, crossed=settings.resampled == "anchors_and_users")
    oracle = evaluation.world.catalogue.oracle
    fields = {title: dataclasses.asdict(row) for title, row in titles.items()}
    table = summarize(records, resampling, oracle=oracle)
    stage.write_json("table.json", [fields[line["row"]] | line for line in table])
    stage.write_json("reachable.json", _reachable(stage, evaluation, records, resampling, len(jobs)))
    pairs = comparison_pairs(list(rows), settings.extra_kinds)
    pairs = [(row.title, other.title) for row, other in pairs]
    stage.write_json("comparisons.json", compare(records, pairs, resampling))
    stage.write_json("break_even.json", break_even(records, list(rows), contestants.training_calls, resampling))
    stage.write_json("malformed.json", malformed_counts(records, malformed_answers))
    stage.write_jsonl(
        "records.jsonl",
        (
            {"row": title} | fields[title] | with_names(record.to_json(), evaluation.world.catalogue)
            for title, of_row in records.items()
            for record in of_row
        ),
    )
    stage.finish()


def with_names(record: Mapping[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """An episode's record with ids and title beside its indices."""
    return {**record, **catalogue.item_names(record["entity_index"]), **catalogue.user_names(record["user_index"])}


def _chunk(evaluation: Evaluation, seed: int, play: Callable[[], list[EpisodeRecord]]) -> dict[str, Any]:
    """One row and seed, played and rated."""
    records, malformed = evaluation.rated(play(), seed)
    return {"records": [record.to_json() for record in records], "malformed_answers": dict(malformed)}


def _reachable(
    stage: StageFolder,
    evaluation: Evaluation,
    records: Mapping[str, Sequence[EpisodeRecord]],
    resampling: Resampling,
    chunk: int,
) -> dict[str, Any]:
    """Best reachable utility of the first starts, and each row's share of the best gain there."""
    oracle = evaluation.world.catalogue.oracle
    settings = evaluation.settings
    if oracle is None or not settings.num_reachable:
        return {}
    starts = evaluation.starts()[: settings.num_reachable]
    best = stage.chunk(
        chunk,
        lambda: best_reachable_utility(
            [start.description for start in starts],
            np.array([start.user_index for start in starts]),
            oracle,
            evaluation.world.scorer.score,
            evaluation.agent.horizon,
            settings.beam_width,
        ).tolist(),
    )
    by_pair = {(s.entity_index, s.user_index): u for s, u in zip(starts, best, strict=True)}
    subset = {row: [record for record in of_row if record.pair in by_pair] for row, of_row in records.items()}
    rows = summarize(subset, resampling, by_pair)
    return {
        "best_utility": float(np.mean(best)),
        "num_starts": len(starts),
        "share": {row["row"]: row["cells"][REACHABLE_SHARE] for row in rows},
    }
