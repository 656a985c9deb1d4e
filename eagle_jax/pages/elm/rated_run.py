"""What people rate of a finished ELM run: what the ELM wrote of held-out films, below the films' own texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eagle_jax.base.atomic_files import verify
from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import MANIFEST
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import parse_blocks
from eagle_jax.data.sources import load_catalogue
from eagle_jax.data.task_examples import Row
from eagle_jax.elm.evaluation.answers import ELM_ANSWERS
from eagle_jax.elm.settings import ElmExperiment
from eagle_jax.elm.verdict import ELM
from eagle_jax.pages.elm.rater_form import ASKED_TASKS, ELM_FORM
from eagle_jax.pages.rated_run import RatedItem, RatedRun, read_jsonl, read_object
from eagle_jax.pages.rating_form import NamedBlocks
from eagle_jax.stages.finished_run import AGAIN, finished_settings

_TEST, _TABLE = "test.jsonl", "consistency.json"
_MEASURED = {"SC": "sc", "BC": "bc/spearman"}


def read_rated_elm_run(workdir: Path, num_starts: int | None = None) -> RatedRun:
    """Reads the answers of the ELM of the first seed to the tasks that have a form; those that could not be read are
    left out.

    num_starts: the first examples of each task; None: all. Raises `UserError` where the run is not finished, or not
    as it was written.
    """
    experiment = finished_settings(workdir, "elm", ElmExperiment)
    files = {"examples": _TEST, "answers": ELM_ANSWERS, "results": _TABLE}
    digests = [_verified(workdir / stage, file) for stage, file in files.items()]
    catalogue, _ = load_catalogue(experiment.catalogue)
    texts = read_object(workdir / "answers" / ELM_ANSWERS)["value"]["texts"]
    items, taken = [], Counter()
    for row, text in zip(read_jsonl(workdir / "examples" / _TEST), texts, strict=True):
        if row["task"] not in ASKED_TASKS or text is None:
            continue
        taken[row["task"]] += 1
        if num_starts is None or taken[row["task"]] <= num_starts:
            items.append(_item(row, text, catalogue, experiment.elm_seeds[0]))
    if not items:
        raise UserError(f"{workdir}: the ELM wrote no text that can be read about a task that has a form")
    return RatedRun(
        form=ELM_FORM,
        noun=catalogue.entity_format.noun,
        digest=" ".join(digests[:2]),
        prompts=None,
        items=items,
        measured=_measured(read_object(workdir / "results" / _TABLE)),
    )


def _verified(folder: Path, file: str) -> str:
    """The digest of a file of a finished stage, which is as it was written."""
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder}: is not complete, so its run is not finished: {AGAIN}")
    files = read_object(folder / MANIFEST).get("files", {})
    if file not in files:
        raise UserError(f"{folder}: has no {file}, so it is none of experiments.elm")
    verify(folder, files, MANIFEST)
    return files[file]["sha256"]


def _item(row: Row, text: str, catalogue: Catalogue, seed: int) -> RatedItem:
    asked = ASKED_TASKS[row["task"]]
    noun = catalogue.entity_format.noun
    names = [f"The {noun}"] if len(row["items"]) == 1 else [f"{noun.capitalize()} {letter}" for letter in "AB"]
    first, *others = row["items"]
    return RatedItem(
        row=row["task"],
        seed=seed,
        entity_index=first,
        user_index=others[0] if others else None,
        questions=asked.questions,
        about={name: _told(catalogue, item) for name, item in zip(names, row["items"], strict=True)},
        heading=asked.heading,
        anchor=None,
        generated={"": text},
    )


def _told(catalogue: Catalogue, item: int) -> NamedBlocks:
    """What the catalogue says of an item, which the ELM did not see."""
    blocks = catalogue.entity_format.blocks
    found = parse_blocks(catalogue.entities[item].description, blocks, may_be_empty=True)
    return {name: text for name, text in found.items() if text}


def _measured(table: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, float]]]:
    """SC and BC of the ELM by task, as the report has them."""
    rows = [row for row in table["rows"] if row["system"] == ELM]
    return {
        heading: {row["group"]: row["cells"][name] for row in rows if row["cells"].get(name)}
        for heading, name in _MEASURED.items()
    }
