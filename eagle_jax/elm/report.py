"""The report of an ELM: the scores of Tennenholtz et al. 2024 (ELM) beside what was found.

What a run does not have is left out and said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from markupsafe import Markup

from eagle_jax.data.tasks import BEHAVIORAL, SEMANTIC
from eagle_jax.elm import figures as elm_figures
from eagle_jax.elm.run import ElmRun
from eagle_jax.elm.settings import GRAMMAR, PROFILES
from eagle_jax.elm.space import Spaces
from eagle_jax.elm.verdict import (
    FILM_MIXTURE,
    MEASURE_NAMES,
    PAPER_MEASURES,
    PAPER_SCORES,
    SYSTEM_NAMES,
    TEACHER,
    USER_MIXTURE,
    Rows,
    find_cell,
    heading_of,
    judge_bar,
    paper_claims,
    paper_score,
    summarize_elm,
)
from eagle_jax.reports import figures
from eagle_jax.reports.markdown import LEFT, Column, format_interval, table
from eagle_jax.reports.pages import Report, refuse_non_finite, shared_fields, write_pages

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
_BAR = (
    Column("Line", attrgetter("name"), LEFT),
    Column("Value", lambda line: None if line.value is None else f"{line.value:.3f}"),
    Column("Asked for", lambda line: f"at least {line.threshold:.2f}" if line.threshold else "above 0"),
    Column("Found", attrgetter("says"), LEFT),
    Column("Verdict", attrgetter("verdict"), LEFT),
)
_CLAIMS = (
    Column("Claim", attrgetter("claim"), LEFT),
    Column("Source", attrgetter("source"), LEFT),
    Column("Found here", lambda claim: "; ".join(claim.found) or "not measured in this run", LEFT),
    Column("Verdict", attrgetter("verdict"), LEFT),
)
_PRODUCTS = (
    Column("Task", lambda name: _plain(name), LEFT),
    Column("SC", lambda name: _of_paper((name,), "sc")),
    Column("BC", lambda name: _of_paper((name,), "bc/spearman")),
)
_COMPARISONS = (
    Column("Tasks", lambda row: _plain(row["group"]), LEFT),
    Column("Measure", lambda row: MEASURE_NAMES.get(row["measure"], row["measure"]), LEFT),
    Column("System", lambda row: SYSTEM_NAMES[row["system"]], LEFT),
    Column("Against", lambda row: SYSTEM_NAMES[row["baseline"]], LEFT),
    Column("Difference", lambda row: format_interval(row["difference"], signed=True)),
    Column("Apart", lambda row: "yes" if row["separated"] else "no", LEFT),
)
_PLACES = (
    Column("Path", "name", LEFT),
    Column("Task", lambda row: _plain(row["task"]), LEFT),
    Column("Place", "position"),
    Column(
        "Scores",
        lambda row: "; ".join(f"{measure} {format_interval(cell)}" for measure, cell in row["cells"].items()),
        LEFT,
    ),
    Column("Unreadable", lambda row: f"{row['num_malformed']} of {row['num_outputs']}"),
)
_BOUNDS = (
    Column("Texts", "texts", LEFT),
    Column("Semantic consistency", "sc"),
    Column("Outputs", "num_outputs"),
    Column("About", "num_entities"),
    Column("Could not be read", lambda row: sum(row["malformed"].values())),
)
_MALFORMED = (
    Column("Task", lambda row: _plain(row["group"]), LEFT),
    Column("System", lambda row: SYSTEM_NAMES[row["system"]], LEFT),
    Column("Outputs", "num_outputs"),
    Column(
        "Could not be read",
        lambda row: ", ".join(f"{reason}: {count}" for reason, count in row["malformed"].items()),
        LEFT,
    ),
)
_SAMPLES = (
    Column("System", "system", LEFT),
    Column("Seed", "seed"),
    Column("Text", "text", LEFT),
    Column("Scores", "scores", LEFT),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmReport(Report):
    """All that the report says; settings: of an `ElmExperiment`. Empty: no such part.

    consistency: {"groups": {group: [tasks]}, "rows", "comparisons"}, of `consistency_table`, and "bounds", of
      `evaluation.bounds`, which may be absent.
    curves: [{"name", "kind", "path", "how", "task", "tag", "chance", "rows", "texts"}], rows of
      `consistency_curve`, texts of one path, one at each position, None where it could not be read;
      "chance" and "texts" may be absent.
    picture: of `figures.embedding_picture`, a trajectory for each path of items; None: no such one.
    samples: [{"system", "task", "items": [titles], "user", "seed", "text", "malformed", "target",
      "scores"}]; text is None where it could not be read.
    training: [{"stage", "step", "loss"}].
    facts: nested: what was read, written, malformed and left out, what the space is, and what is
      absent for which reason; "world" says what there is.
    """

    consistency: Mapping[str, Any]
    curves: Sequence[Mapping[str, Any]]
    picture: Mapping[str, Any] | None
    samples: Sequence[Mapping[str, Any]]
    training: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any]


def report_elm(run: ElmRun) -> Path:
    """Writes report.html and report.md of a finished run, returns the path of the first."""
    results, root, experiment = run.stages["results"], run.workdir, run.experiment
    facts: dict[str, Any] = dict(results.read_json("facts.json"))
    training = facts.pop("training")
    facts["seconds"] = run.seconds()
    facts["remote"] = {of_model.pop("name"): of_model for of_model in run.usage()}
    curves = results.read_json("curves.json")
    data = ElmReport(
        **shared_fields(experiment),
        confidence=experiment.evaluation.bootstrap.confidence,
        consistency=results.read_json("consistency.json"),
        curves=curves,
        picture=_picture(curves, run.spaces),
        samples=results.read_jsonl("samples.jsonl"),
        training=training,
        facts=facts,
    )
    return write_elm_report(root, data)[0]


def _picture(curves: list[dict[str, Any]], spaces: Spaces) -> dict[str, Any] | None:
    """The paths of films whose texts could be read, at least in part."""
    texts = {
        curve["name"]: [text for text in curve["texts"] if text is not None]
        for curve in curves
        if curve["kind"] == SEMANTIC and "texts" in curve
    }
    paths = {name: spaces.embed(readable) for name, readable in texts.items() if readable}
    return figures.embedding_picture(spaces.semantic, paths) if paths else None


def write_elm_report(folder: Path, data: ElmReport) -> tuple[Path, Path]:
    """Writes report.html and report.md with its figures into `folder`, returns the two paths.

    Raises ValueError that names the place of a number that is not finite.
    """
    for name in ("consistency", "curves", "samples", "training", "facts", "picture"):
        refuse_non_finite(name, getattr(data, name))
    rows = data.consistency["rows"]
    tasks = _tasks(data.consistency)
    by_kind = {kind: [curve for curve in data.curves if curve["kind"] == kind] for kind in (SEMANTIC, BEHAVIORAL)}
    drawn = {
        "tasks": elm_figures.task_figure(rows, tasks),
        "semantic": elm_figures.paths_figure(by_kind[SEMANTIC]),
        "behavioral": elm_figures.paths_figure(by_kind[BEHAVIORAL]),
        "picture": figures.embedding_figure(data.picture) if data.picture else None,
        "training": elm_figures.training_figure(data.training),
    }
    return write_pages(folder, "elm/report", _context(data, tasks), drawn)


def _context(data: ElmReport, tasks: Sequence[str]) -> dict[str, Any]:
    """What the page reads."""
    groups, rows = data.consistency["groups"], data.consistency["rows"]
    compared = data.consistency["comparisons"]
    # Of the tasks, the profile and the mixtures are groups of their own.
    alone = set(tasks) - {*PROFILES, FILM_MIXTURE, USER_MIXTURE}
    answers = [row for row in rows if row["group"] in tasks]
    places = [row | {"name": curve["name"], "task": curve["task"]} for curve in data.curves for row in curve["rows"]]
    bar, claims = judge_bar(rows), paper_claims(rows, compared, data.curves)
    names = [*(group for group in groups if group not in tasks), *tasks]
    tables = {measure: _task_table(data.consistency, measure, names) for measure in MEASURE_NAMES}
    return {
        "data": data,
        "is_minilens": data.settings["models"]["teacher"] == GRAMMAR,
        "summary": summarize_elm(rows, bar, claims),
        "bar": table(bar, _BAR),
        "claims": table(claims, _CLAIMS),
        "tables": [
            (heading_of(measure), _MEANINGS[measure], task_table)
            for measure, task_table in tables.items()
            if task_table
        ],
        "has_products": any(name.startswith("amazon_") for name in tasks),
        "products": table([n for n in PAPER_SCORES if n.startswith("amazon_")], _PRODUCTS),
        "bounds": table(data.consistency.get("bounds", ()), _BOUNDS),
        "comparisons": table([r for r in compared if r["group"] not in alone], _COMPARISONS),
        "places": table(places, _PLACES),
        "paths": [(curve["name"], _texts(curve)) for curve in data.curves if "texts" in curve],
        "samples": sample_tables(data.samples, SYSTEM_NAMES.get),
        "malformed": table([row for row in answers if row["malformed"]], _MALFORMED),
        "num_outputs": sum(row["num_outputs"] for row in answers),
    }


def _tasks(consistency: Mapping[str, Any]) -> list[str]:
    """Groups of one task of the same name."""
    return [group for group, tasks in consistency["groups"].items() if list(tasks) == [group]]


def _task_table(consistency: Mapping[str, Any], measure: str, names: Sequence[str]) -> Markup:
    """What was taken of a measure by group or task and system, the paper's beside."""
    rows = consistency["rows"]
    systems = [
        system for system in SYSTEM_NAMES if any(row["system"] == system and measure in row["cells"] for row in rows)
    ]
    columns = [Column("Task", _plain, LEFT)]
    if measure in PAPER_MEASURES:
        columns.append(Column("Paper's ELM", lambda name: _of_paper(consistency["groups"][name], measure)))
    columns += [
        Column(SYSTEM_NAMES[system], lambda name, s=system: find_cell(rows, name, s, measure)) for system in systems
    ]
    measured = [name for name in names if any(find_cell(rows, name, s, measure) for s in systems)]
    return table(measured, columns)


def _of_paper(tasks: Sequence[str], measure: str) -> str | None:
    score = paper_score(tasks, measure)
    return None if score is None else f"{score:.2f}"


def _texts(curve: Mapping[str, Any]) -> Markup:
    """What was told along one path."""
    rows = zip(curve["rows"], curve["texts"], strict=True)
    columns = (
        Column("Place", lambda row: row[0]["position"]),
        Column("Text", lambda row: "could not be read" if row[1] is None else row[1], LEFT),
    )
    return table(rows, columns)


def sample_tables(samples: Rows, name_fn: Callable[[str], str]) -> Iterator[tuple[str, str, Markup]]:
    """What the systems wrote about the same thing, together: (task, about what, table).

    name_fn: what the page calls a system.
    """
    by_subject: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for sample in samples:
        subject = sample["task"], tuple(sample["items"]), sample["user"]
        by_subject.setdefault(subject, []).append(sample)
    for (task, items, user), answers in by_subject.items():
        rows = [
            {
                "system": name_fn(answer["system"]),
                "seed": answer["seed"],
                "text": answer["text"] if answer["text"] is not None else f"could not be read: {answer['malformed']}",
                "scores": "; ".join(f"{name} {v:.3f}" for name, v in answer["scores"].items()),
            }
            for answer in answers
        ]
        if TEACHER not in {answer["system"] for answer in answers}:  # whose text is the target
            target = {"system": "target", "seed": "", "text": answers[0]["target"], "scores": ""}
            rows.insert(0, target)
        yield _plain(task), " / ".join(items) if user is None else user, table(rows, _SAMPLES)


def _plain(name: str) -> str:
    return name.replace("_", " ")
