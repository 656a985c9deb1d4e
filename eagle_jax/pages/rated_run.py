"""What people rate: the texts of a finished EAGLE run beside their anchors."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_jax.base.atomic_files import verify
from eagle_jax.base.errors import CorruptArtifactError, UserError
from eagle_jax.base.work_directory import MANIFEST
from eagle_jax.data.prompts import MOVIE, PRODUCT, PROMPT_BOOKS, MalformedText, PromptBook, parse_blocks

_STAGE, _RECORDS, _TABLE = "evaluation", "records.jsonl", "table.json"
_FIELDS = {"row", "seed", "entity_index", "user_index", "anchor", "profile", "steps"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatedItem:
    """A text of one row of the run's table and the anchor it was made from, block by block."""

    row: str
    seed: int
    entity_index: int
    user_index: int
    profile: str
    anchor: Mapping[str, str]
    generated: Mapping[str, str]

    @property
    def name(self) -> tuple[str, int, int, int]:
        """Tells it from the run's others."""
        return self.row, self.seed, self.entity_index, self.user_index


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatedRun:
    """noun: what the texts tell of. digest: of the records. prompts: the run's prompt book, None: of
    none of ours. utilities: mean U of each row with its interval, by the training encoder."""

    noun: str
    digest: str
    prompts: PromptBook | None
    items: Sequence[RatedItem]
    utilities: Mapping[str, Mapping[str, float]]


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
    manifest = _read_json(folder / MANIFEST)
    files = manifest.get("files", {})
    if not {_RECORDS, _TABLE} <= set(files):
        raise UserError(f"--workdir={workdir}: is not a run of experiments.eagle: its {_STAGE} has no {_RECORDS}")
    verify(folder, files, MANIFEST)
    records = [json.loads(line) for line in (folder / _RECORDS).read_text(encoding="utf-8").splitlines()]
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
        noun=nouns.get(tuple(items[0].anchor), "item"),
        digest=files[_RECORDS]["sha256"],
        prompts=PROMPT_BOOKS.get(manifest.get("settings", {}).get("prompts")),
        items=items,
        utilities={line["row"]: line["cells"]["train/utility"] for line in table},
    )


def _item(file: Path, line: int, record: Mapping[str, Any]) -> RatedItem:
    names = re.findall(r"#BEGIN_([A-Z_]+)", record["anchor"])
    try:
        texts = [parse_blocks(text, names) for text in (record["anchor"], record["steps"][-1]["description"])]
    except MalformedText as error:
        raise CorruptArtifactError(f"{file}, line {line}: the texts do not have the same blocks: {error}") from error
    kept = {name: record[name] for name in ("row", "seed", "entity_index", "user_index", "profile")}
    return RatedItem(anchor=texts[0], generated=texts[1], **kept)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptArtifactError(f"{file}: cannot be read: {error}; run the same command again") from error
    if not isinstance(value, dict):
        raise CorruptArtifactError(f"{file}: must be an object, got {type(value).__name__}")
    return value
