"""The page on the ceiling, which a run that ends there leaves, and the facts of it in the report of a whole run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.ceiling.choices import (
    ANY_INSTRUCTION,
    BEST_REWRITING,
    FIELD_CHANGE,
    FOR_ANOTHER,
    GAIN_PARTS,
    ONE_INSTRUCTION,
    OTHER_ENTITIES,
)
from eagle_jax.eagle.ceiling.stage import is_above_noise, user_gain
from eagle_jax.eagle.evaluation.episodes import plot_alone
from eagle_jax.eagle.evaluation.report_tables import ENCODER_TITLES
from eagle_jax.eagle.evaluation.story import marked_change
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.embeddings.scorer import INDEPENDENT, TRAIN
from eagle_jax.reports.markdown import LEFT, Column, fact, format_interval, share, table
from eagle_jax.reports.pages import Report, shared_fields, write_pages

_NUM_TOLD, _NUM_LINES = 8, 5  # anchors that are shown, and of each the first rewritings
_NAMES = {
    BEST_REWRITING: "best rewriting",
    FOR_ANOTHER: "best rewriting for another user",
    ONE_INSTRUCTION: "one instruction for all",
    ANY_INSTRUCTION: "an instruction at random",
    FIELD_CHANGE: "best change of a genre or the decade, by rule",
    OTHER_ENTITIES: "best of as many other entities",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CeilingReport(Report):
    """All that the page says; `found`: the stage's facts, `rewrites`: its lines that are shown."""

    found: Mapping[str, Any]
    rewrites: Sequence[Mapping[str, Any]]


def make_ceiling_report(
    folder: Path, experiment: EagleExperiment, world: EagleWorld, stage: StageFolder
) -> tuple[Path, Path]:
    """report.html and report.md of a run that ends at its ceiling."""
    found, rows = stage.read_json("facts.json"), stage.read_jsonl("rewrites.jsonl")[:_NUM_TOLD]
    data = CeilingReport(
        **shared_fields(experiment),
        confidence=experiment.evaluation.bootstrap.confidence,
        found=found,
        rewrites=[row | {"before": world.catalogue.entities[row["entity_index"]].description} for row in rows],
    )
    context = {
        "data": data,
        "judge": _judge(found),
        "summary": ceiling_sentences(found),
        "tables": _tables(found),
        "agreement": table(found["reliability"].items(), _AGREEMENT),
        "environment": table(_environment(found), (Column("Fact", "name", LEFT), Column("Value", "value"))),
        "examples": [_example(row) for row in data.rewrites],
    }
    return write_pages(folder, "eagle/ceiling/report", context, {})


def ceiling_sentences(found: Mapping[str, Any]) -> list[str]:
    """What the page begins with, in sentences."""
    gain, judge = user_gain(found), _judge(found)
    told = format_interval(gain, signed=True)
    first = (
        f"Choosing gains what users are said to like: {told} in the user term, says {judge}."
        if is_above_noise(found)
        else f"The ceiling is within noise: {told} in the user term, says {judge}. An agent cannot steer further "
        "than there is to choose from, so training it on this reward would optimise errors."
    )
    rows = {row["choice"]: row["cells"] for row in found["rows"]}
    personal = format_interval(rows[BEST_REWRITING][f"{found['judge']}/personal"], signed=True)
    films = format_interval(rows[OTHER_ENTITIES][f"{found['judge']}/user_term"], signed=True)
    by_rule = []
    if FIELD_CHANGE in rows:
        change = format_interval(rows[FIELD_CHANGE][f"{found['judge']}/user_term"], signed=True)
        by_rule = [f"Changing a genre or the decade by rule, without a model, gains {change}."]
    plot = rows[BEST_REWRITING].get(f"{plot_alone(found['judge'])}/user_term")
    if plot is not None:
        words = "Nothing of it is shown to be the plot's" if plot["low"] <= 0 else "The plot has its part in it"
        gained = format_interval(plot, signed=True)
        by_rule.insert(0, f"{words}: with genres and year held at the anchor's the same texts gain {gained}.")
    favourite = f'"{found["favourite"]}" is the best for {share(found["favourite_share"])} of the pairs'
    return [
        first,
        f"Of it {personal} is what this user likes and others do not.",
        *by_rule,
        f"Choosing among as many other entities as they are gains {films}.",
        f"{favourite}; the anchor stays as it is for {share(found['anchor_share'])}. "
        f'The best instruction for all is "{found["fixed"]}".',
    ]


def ceiling_facts(stage: StageFolder) -> list[dict[str, Any]]:
    """What the finished stage says of itself in the report of a whole run."""
    found = stage.read_json("facts.json")
    rows = {row["choice"]: row["cells"] for row in found["rows"]}
    meaning = f"user term, {found['num_anchors']} anchors, {found['num_users']} users, says {_judge(found)}"
    return [
        fact(f"gain by the {name}", rows[choice][f"{found['judge']}/user_term"], meaning)
        for choice, name in _NAMES.items()
        if choice in rows
    ] + [fact(line["name"], line["value"], "before training") for line in _environment(found)]


def _judge(found: Mapping[str, Any]) -> str:
    title = f"the {ENCODER_TITLES[found['judge']]}"
    if found["judge"] == INDEPENDENT:
        return f"{title}, fitted to other ratings of other entities"
    return f"{title}, which is another model of the same ratings"


def _tables(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each encoder the choices by parts of the gain."""
    known = found["rows"][0]["cells"]
    encoders = [encoder for encoder in ENCODER_TITLES if f"{encoder}/utility" in known]
    titles = {TRAIN: "As the reward says, which chose"}
    return [
        {
            "title": titles.get(encoder, f"The same texts under the {ENCODER_TITLES[encoder]}"),
            "table": table(
                found["rows"],
                (
                    Column("Choice", lambda row: _NAMES[row["choice"]], LEFT),
                    *(
                        Column(heading, lambda row, name=f"{encoder}/{part}": row["cells"][name])
                        for part, heading in GAIN_PARTS.items()
                    ),
                ),
            ),
        }
        for encoder in encoders
    ]


_AGREEMENT = (
    Column("Encoder", lambda line: ENCODER_TITLES[line[0]], LEFT),
    Column("What everybody likes", lambda line: line[1]["common"]),
    Column("What this user likes", lambda line: line[1]["personal"]),
    Column("Share that is the same for all", lambda line: share(line[1]["common_share"])),
)


def _environment(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    failed = sum(found["malformed"].values())
    lines = [
        {
            "name": "rewritings that were accepted",
            "value": f"{found['num_rewrites'] - failed} of {found['num_rewrites']}",
        }
    ]
    return lines + [{"name": f"not: {reason}", "value": count} for reason, count in sorted(found["malformed"].items())]


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    """An anchor and what the instructions made of it."""
    lines = [
        {"action": action, "after": marked_change(row["before"], text)}
        for action, text in zip(row["actions"], row["texts"], strict=True)
        if text != row["before"]
    ]
    return {**row, "before": marked_change(row["before"], row["before"]), "lines": lines[:_NUM_LINES]}
