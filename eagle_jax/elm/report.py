"""The report of an ELM: report.html, which stands alone, and report.md.

It puts the scores of Tennenholtz et al. 2024 (ELM) beside what was found. Everything comes from
`ElmReport`, plain JSON-able values, so that a report can be made again from the artifacts of a
run; what a run does not have is left out and said. What language models wrote is untrusted: it is
escaped, always.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_jax.base.provenance import provenance
from eagle_jax.data.tasks import SEMANTIC
from eagle_jax.elm import figures as elm_figures
from eagle_jax.elm.run import ElmRun
from eagle_jax.elm.settings import ElmExperiment
from eagle_jax.elm.space import Spaces
from eagle_jax.elm.verdict import (
    ELM,
    FAILS,
    FILM_MIXTURE,
    HOLDS,
    MEASURE_NAMES,
    MET,
    MIN_SEEDS,
    MISSED,
    PAPER_SCORES,
    PROFILE,
    SYSTEM_NAMES,
    TEACHER,
    USER_MIXTURE,
    Rows,
    find_cell,
    judge_bar,
    paper_claims,
    summarize,
)
from eagle_jax.reports import figures
from eagle_jax.reports.pages import write_pages
from eagle_jax.reports.two_templates import flatten_settings

_MEANINGS = {
    "sc": "Cosine of the text, embedded again, with the embedding that was decoded; for two movies "
    "with that of the teacher's text, which has 1 by itself (section 3.2, appendix B). The "
    "paper's: table 2. Film mixture: the middle of two films (figure 3).",
    "bc/spearman": "Users ranked by the text of a movie, items by the text of a profile, against "
    "the given ratings; unrated is 0 (section 3.2, appendix B). User mixture: the middle of two "
    "users (figure 3), against the ratings that matrix factorisation predicts. The paper's: table "
    "2.",
    "bc/ndcg": "The same ranking by NDCG with gains 2^rating - 1. Table 2 has none.",
    "slots": "Share of what the text should say that the grammar's parser reads from it. The paper "
    "has no such measure.",
}
_OF_PAPER = {"sc": 0, "bc/spearman": 1}
_LEFT_OUT = (
    "Training from rewards (appendix H), and one stage of training against two (appendix D): they "
    "have experiments of their own, rlaif and elm_toy.",
)
_NOT_REPRODUCED = (
    "Human raters (table 2, columns 3 to 5): nobody was asked.",
    "MovieLens with plots and reviews by PaLM 2, and its 24 tasks answered by it: films, users and "
    "the teacher are those of MiniLens, a synthetic world whose grammar writes and reads texts.",
    "PaLM 2-XS as the model and 320,000 steps: a MiniLens-LM and the steps in the settings.",
    "PaLM 2-L and GPT 4 as text-only baselines (figure 3): here the model before it was given "
    "embeddings, which reads titles. It was never shown an example before a question: that row is "
    "the paper's form, not a fair chance.",
    "One model for films and another for profiles: here one for both.",
    "Amazon's products (appendix A, table 4): the six tasks are in the table of tasks, but this "
    "run has no products.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmReport:
    """All that the report says; every field is JSON-able. Empty: no such part.

    consistency: {"groups": {group: [tasks]}, "rows", "comparisons"}, of `consistency_table`.
    curves: [{"name", "kind", "path", "how", "task", "tag", "chance", "rows", "texts"}], rows of
      `consistency_curve`, texts of one path, one at each position, None where it could not be read;
      "chance" and "texts" may be absent.
    picture: of `figures.embedding_picture`, a trajectory for each path of items; None: no such one.
    samples: [{"system", "task", "items": [titles], "user", "seed", "text", "malformed", "target",
      "scores"}]; text is None where it could not be read.
    training: [{"stage", "step", "loss"}].
    facts: nested: what was read, written, malformed and left out, and what the space is.
    """

    title: str
    task: str  # a few sentences: catalogue, models, who wrote the targets
    confidence: float
    consistency: Mapping[str, Any]
    curves: Sequence[Mapping[str, Any]]
    picture: Mapping[str, Any] | None
    samples: Sequence[Mapping[str, Any]]
    training: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any]
    left_out: Sequence[str]  # parts that this run does not have, and why
    not_reproduced: Sequence[str]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]


def report_elm(run: ElmRun) -> Path:
    """Writes report.html and report.md of a finished run, returns the path of the first."""
    results, root, experiment = run.stages["results"], run.workdir.root, run.experiment
    facts: dict[str, Any] = dict(results.read_json("facts.json"))
    training = facts.pop("training")
    facts["seconds"] = run.times.seconds()
    curves = results.read_json("curves.json")
    data = ElmReport(
        title=experiment.title,
        task=_task(experiment),
        confidence=experiment.evaluation.bootstrap.confidence,
        consistency=results.read_json("consistency.json"),
        curves=curves,
        picture=_picture(curves, run.spaces),
        samples=results.read_jsonl("samples.jsonl"),
        training=training,
        facts=facts,
        left_out=_LEFT_OUT,
        not_reproduced=_NOT_REPRODUCED,
        settings=json.loads(json.dumps(dataclasses.asdict(experiment))),
        provenance=provenance(),
    )
    return write_elm_report(root, data)[0]


def _picture(curves: list[dict[str, Any]], spaces: Spaces) -> dict[str, Any] | None:
    """The paths of films whose texts could be read, at least in part."""
    told = {
        curve["name"]: [text for text in curve["texts"] if text is not None]
        for curve in curves if curve["kind"] == SEMANTIC and "texts" in curve
    }  # fmt: skip
    paths = {name: spaces.embed(texts) for name, texts in told.items() if texts}
    return figures.embedding_picture(spaces.semantic, paths) if paths else None


def _task(experiment: ElmExperiment) -> str:
    catalogue = experiment.catalogue
    return (
        f"MiniLens with {catalogue.num_films} films and {catalogue.num_users} users. A film's "
        "embedding is the mean of its texts' in a semantic space, a user's comes from ratings by "
        f"matrix factorisation. {experiment.models.reader} learned to read them; the grammar of "
        "MiniLens, which sees titles, wrote what it learned to say."
    )


def write_elm_report(folder: Path, data: ElmReport) -> tuple[Path, Path]:
    """Writes report.html and report.md with its figures into `folder`, returns the two paths.

    Raises ValueError that names the place of a number that is not finite, a system that the report
    does not know, or two rows of one group and system.
    """
    _check(data)
    rows, tasks = data.consistency["rows"], _tasks(data.consistency)
    drawn = {
        "tasks": elm_figures.task_figure(rows, tasks),
        "semantic": elm_figures.paths_figure([c for c in data.curves if c["kind"] == "semantic"]),
        "behavioral": elm_figures.paths_figure(
            [c for c in data.curves if c["kind"] == "behavioral"]
        ),
        "picture": figures.embedding_figure(data.picture) if data.picture else None,
        "training": elm_figures.training_figure(data.training),
    }
    return write_pages(folder, "elm/report", _context(data, tasks), drawn)


def _context(data: ElmReport, tasks: Sequence[str]) -> dict[str, Any]:
    """What the page reads."""
    rows = data.consistency["rows"]
    bar = judge_bar(rows)
    claims = paper_claims(rows, data.consistency["comparisons"], data.curves)
    return {
        "data": data,
        "level": f"{data.confidence:.0%}".replace("%", " %"),
        "min_seeds": MIN_SEEDS,
        "met": MET, "missed": MISSED, "holds": HOLDS, "fails": FAILS,
        "summary": list(summarize(rows, bar, claims)),
        "bar": bar,
        "claims": claims,
        "tables": _tables(data.consistency, tasks),
        "amazon": {n: s for n, s in PAPER_SCORES.items() if n.startswith("amazon_")},
        "comparisons": _comparisons(data.consistency, tasks),
        "malformed": [
            {**row, "system": SYSTEM_NAMES[row["system"]]}
            for row in rows if row["group"] in tasks and row["malformed"]
        ],
        "num_outputs": sum(row["num_outputs"] for row in rows if row["group"] in tasks),
        "told": [
            (curve["name"], list(zip(curve["rows"], curve["texts"], strict=True)))
            for curve in data.curves if "texts" in curve
        ],
        "samples": _samples(data.samples),
        "facts": list(flatten_settings(data.facts)),
    }  # fmt: skip


def _tasks(consistency: Mapping[str, Any]) -> list[str]:
    """Groups of one task of the same name."""
    return [group for group, tasks in consistency["groups"].items() if list(tasks) == [group]]


def _tables(consistency: Mapping[str, Any], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """A table for each measure that was taken: groups first, then the tasks, the paper's beside."""
    rows = consistency["rows"]
    groups = [group for group in consistency["groups"] if group not in tasks]
    tables = []
    for measure, heading in MEASURE_NAMES.items():
        systems = [
            system for system in SYSTEM_NAMES
            if any(row["system"] == system and measure in row["cells"] for row in rows)
        ]  # fmt: skip
        lines = []
        for name in [*groups, *tasks]:
            cells = [find_cell(rows, name, system, measure) for system in systems]
            if any(cells):
                lines.append(
                    {
                        "name": name.replace("_", " "), "is_group": name in groups,
                        "paper": _of_paper(consistency["groups"][name], measure), "cells": cells,
                    }
                )  # fmt: skip
        if lines:
            tables.append(
                {
                    "heading": heading[0].upper() + heading[1:], "meaning": _MEANINGS[measure],
                    "has_paper": measure in _OF_PAPER, "lines": lines,
                    "systems": [SYSTEM_NAMES[system] for system in systems],
                }
            )  # fmt: skip
    return tables


def _of_paper(tasks: Sequence[str], measure: str) -> float | None:
    """The mean of the paper's scores; None where it has none for some task (user profiles)."""
    if measure not in _OF_PAPER or not all(task in PAPER_SCORES for task in tasks):
        return None
    return sum(PAPER_SCORES[task][_OF_PAPER[measure]] for task in tasks) / len(tasks)


def _comparisons(consistency: Mapping[str, Any], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Those of whole groups, and of the profile and mixtures, each a group of its own."""
    return [
        {
            **row, "group": row["group"].replace("_", " "),
            "system": SYSTEM_NAMES[row["system"]], "baseline": SYSTEM_NAMES[row["baseline"]],
            "measure": MEASURE_NAMES.get(row["measure"], row["measure"]),
        }
        for row in consistency["comparisons"]
        if row["group"] not in tasks or row["group"] in (PROFILE, FILM_MIXTURE, USER_MIXTURE)
    ]  # fmt: skip


def _samples(samples: Rows) -> list[dict[str, Any]]:
    """What the systems wrote about the same thing, together."""
    by_subject: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for sample in samples:
        subject = sample["task"], tuple(sample["items"]), sample["user"]
        by_subject.setdefault(subject, []).append(sample)
    return [
        {
            "task": task.replace("_", " "),
            "about": str(user) if user is not None else " / ".join(items),
            # The teacher's own text is the target.
            "target": None if TEACHER in {row["system"] for row in own} else own[0]["target"],
            "rows": [{**row, "system": SYSTEM_NAMES[row["system"]]} for row in own],
        }
        for (task, items, user), own in by_subject.items()
    ]


def _check(data: ElmReport) -> None:
    rows, comparisons = data.consistency["rows"], data.consistency["comparisons"]
    parts = {
        "rows": rows, "comparisons": comparisons, "curves": data.curves,
        "samples": data.samples, "training": data.training, "facts": [data.facts],
        "picture": [data.picture],
    }  # fmt: skip
    for name, part in parts.items():
        for place, row in enumerate(part):
            try:
                json.dumps(row, allow_nan=False)
            except ValueError as error:
                raise ValueError(f"{name}[{place}]: {error}") from error
    for row in (*rows, *data.samples, *comparisons):
        for system in (row["system"], row.get("baseline", ELM)):
            if system not in SYSTEM_NAMES:
                raise ValueError(f"system {system!r}: expected one of {', '.join(SYSTEM_NAMES)}")
    keys = [(row["group"], row["system"]) for row in rows]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"two rows of group {twice[0][0]!r} and system {twice[0][1]!r}")
