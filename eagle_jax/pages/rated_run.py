"""What people rate: the texts of a finished run; those of EAGLE beside their anchors."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_jax.base.atomic_files import verify
from eagle_jax.base.errors import CorruptArtifactError, UserError
from eagle_jax.base.work_directory import EXPERIMENT, MANIFEST
from eagle_jax.data.prompts import MOVIE, PRODUCT, PROMPT_BOOKS, MalformedText, PromptBook, parse_blocks
from eagle_jax.eagle.evaluation.rater_form import QUESTIONS, BlindLabel, RaterQuestion, place_blind
from eagle_jax.pages.rating_form import EAGLE_FORM, NamedBlocks, RatingForm

_STAGE, _RECORDS, _TABLE = "evaluation", "records.jsonl", "table.json"
THE_USER = "The user"  # the heading of the user's profile
_FIELDS = {"row", "seed", "entity_index", "user_index", "anchor", "profile", "steps"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatedItem:
    """A text of one row of the run's table, and what is asked about it.

    about: what is told before it, by heading. heading: its own. anchor: what it was made from and is compared with,
    blind; None: it stands alone, and is shown at A in all forms.
    """

    row: str
    seed: int
    entity_index: int
    user_index: int | None
    questions: Mapping[int, RaterQuestion]
    about: Mapping[str, NamedBlocks]
    heading: str = "Text"
    anchor: NamedBlocks | None
    generated: NamedBlocks

    @property
    def name(self) -> tuple[str, str, str, str]:
        """Tells it from the run's others."""
        user = "" if self.user_index is None else str(self.user_index)
        return self.row, str(self.seed), str(self.entity_index), user

    def texts(self, label: BlindLabel) -> dict[str, NamedBlocks]:
        """What is rated, by heading, with the new text at the label."""
        if self.anchor is None:
            return {self.heading: self.generated}
        placed = place_blind(self.generated, self.anchor, label)
        return {f"{self.heading} {at}": text for at, text in zip("AB", placed, strict=True)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatedRun:
    """noun: what the texts tell of. digest: of the records. prompts: the book of EAGLE's prompts, None: of
    none of ours. measured: what the run itself says of each row, by heading: a mean with its interval; of EAGLE U by
    the training encoder."""

    form: RatingForm
    noun: str
    digest: str
    prompts: PromptBook | None
    items: Sequence[RatedItem]
    measured: Mapping[str, Mapping[str, Mapping[str, float]]]

    @property
    def is_blind(self) -> bool:
        """Whether two texts are compared."""
        return self.items[0].anchor is not None

    @property
    def checks(self) -> list[dict[int, tuple[str, ...]]]:
        """Of each item what an attention check may tell to answer, by question."""
        return [{number: item.questions[number].options for number in self.form.checked} for item in self.items]


def read_rated_run(workdir: Path, num_starts: int | None = None) -> RatedRun:
    """Reads the evaluation of a run of experiments.eagle: every text that differs from its anchor.

    num_starts: the first held-out (anchor, user) pairs, which are the same for all rows; None: all.
    Raises `UserError` where the run is none of EAGLE's, is not finished or is not as it was written.
    """
    folder = workdir / _STAGE
    if not workdir.is_dir():
        raise UserError(f"--workdir={workdir}: there is no such folder; name a run of experiments.eagle")
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"--workdir={workdir}: has no finished {_STAGE} of EAGLE; run experiments.eagle with this --workdir first"
        )
    manifest = read_object(folder / MANIFEST)
    files = manifest.get("files", {})
    if not {_RECORDS, _TABLE} <= set(files):
        raise UserError(f"--workdir={workdir}: is not a run of experiments.eagle: its {_STAGE} has no {_RECORDS}")
    verify(folder, files, MANIFEST)
    records = read_jsonl(folder / _RECORDS)
    if any(_FIELDS - set(record) for record in records):
        raise UserError(f"{folder / _RECORDS}: is not of this version of eagle_jax; run experiments.eagle anew")
    pairs = list(dict.fromkeys((record["entity_index"], record["user_index"]) for record in records))
    wanted = set(pairs[:num_starts])
    items = [
        _item(folder / _RECORDS, number, record)
        for number, record in enumerate(records, start=1)
        if (record["entity_index"], record["user_index"]) in wanted
        and record["steps"]
        and record["steps"][-1]["description"] != record["anchor"]
    ]
    if not items:
        raise UserError(f"{folder / _RECORDS}: no text differs from its anchor, so there is nothing to rate")
    table = json.loads((folder / _TABLE).read_text(encoding="utf-8"))
    nouns = {entity.blocks: entity.noun for entity in (MOVIE, PRODUCT)}
    return RatedRun(
        form=EAGLE_FORM,
        noun=nouns.get(tuple(items[0].anchor), "item"),
        digest=files[_RECORDS]["sha256"],
        prompts=PROMPT_BOOKS.get(manifest.get("settings", {}).get("prompts")),
        items=items,
        measured={"U": {line["row"]: line["cells"]["train/utility"] for line in table}},
    )


def _item(file: Path, line: int, record: Mapping[str, Any]) -> RatedItem:
    names = re.findall(r"#BEGIN_([A-Z_]+)", record["anchor"])
    try:
        texts = [parse_blocks(text, names) for text in (record["anchor"], record["steps"][-1]["description"])]
    except MalformedText as error:
        raise CorruptArtifactError(f"{file}, line {line}: the texts do not have the same blocks: {error}") from error
    kept = {name: record[name] for name in ("row", "seed", "entity_index", "user_index")}
    about = {THE_USER: {"": record["profile"]}}
    return RatedItem(anchor=texts[0], generated=texts[1], questions=QUESTIONS, about=about, **kept)


def begun_experiment(workdir: Path) -> str | None:
    """Which experiment began the work directory; None: it does not say."""
    file = workdir / EXPERIMENT
    return read_object(file).get("experiment") if file.is_file() else None


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    """The lines of a file that was verified."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def read_object(file: Path) -> dict[str, Any]:
    """Raises `CorruptArtifactError` where there is no object in it."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptArtifactError(f"{file}: cannot be read: {error}; run the same command again") from error
    if not isinstance(value, dict):
        raise CorruptArtifactError(f"{file}: must be an object, got {type(value).__name__}")
    return value
