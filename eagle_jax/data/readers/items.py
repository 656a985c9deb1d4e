"""Items as fields, their texts by a template over these, and the catalogue that they make with their ratings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.data.bad_rows import Appendable, BadRows, bad_row, summarize_bad_rows
from eagle_jax.data.catalogue import Catalogue, Entity, RatingTable
from eagle_jax.data.prompts import EntityFormat, MalformedText, quote_markers, render_blocks
from eagle_jax.data.ratings import restrict_items
from eagle_jax.data.readers.json_columns import json_cell
from eagle_jax.data.readers.prepared_data import is_prepared, prepared_rows
from eagle_jax.data.readers.rating_files import RatingColumns, read_ratings
from eagle_jax.data.readers.scales import WEIGHTS, Scale
from eagle_jax.data.rows import FileRow, cell_text, file_kind, read_row_file

_COLUMN = re.compile(r"\{([^{}]+)\}")
_OPTIONAL = re.compile(r"\[([^\[\]]*\{[^\[\]]*)\]")
_TITLE_WORDS = 8  # of its text, for an item without a title
_NARROW = 0.5  # of the declared scale: ratings that fill less of it are told


class Items(NamedTuple):
    """Items by their ids, in the order of their file: fields, and the file and line where the text stands."""

    fields: dict[str, dict[str, str]]
    places: dict[str, tuple[Path, int]]

    def add(self, path: Path, row: FileRow, name: str, fields: dict[str, str]) -> None:
        """An item whose id is `name`; ValueError for one that is there already, or none."""
        if not name:
            raise ValueError("the id is empty")
        if name in self.fields:
            raise ValueError(f"id repeated: {name}")
        self.fields[name] = fields
        self.places[name] = (path, row.line)


class Tag(NamedTuple):
    """What a user called an item, and the row that says so."""

    user: str
    item: str
    tag: str
    row: FileRow


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What was read and what was left out, and why."""

    noun: str
    scale: str
    num_items: int
    num_items_without_text: int
    num_items_without_title: int  # called by the beginning of their text
    num_ratings: int  # of known items
    num_ratings_without_text: int  # of items that were left out
    num_tags_without_text: int
    remarks: tuple[str, ...]  # what does not look like what was declared
    bad_rows: BadRows
    doubtful: BadRows  # kept, though something in the row is wrong

    def summary(self, num_shown: int) -> str:
        """Counts, then the first `num_shown` bad rows."""
        lines = [
            f"{self.num_items} {self.noun}s, {self.num_items_without_text} left out: no text",
            f"{self.num_ratings} ratings, {self.num_ratings_without_text} left out: no text",
        ]
        if self.num_tags_without_text:
            lines.append(f"{self.num_tags_without_text} tags left out: no text, or no rating left of the user")
        if self.num_items_without_title:
            lines.append(f"{self.num_items_without_title} {self.noun}s without a title: called by their first words")
        lines += [*self.remarks, summarize_bad_rows(self.bad_rows, num_shown)]
        if self.doubtful:
            told = summarize_bad_rows(self.doubtful, num_shown).splitlines()
            lines += [f"{len(self.doubtful)} rows kept without what is wrong in them", *told[1:]]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """All counts; of the bad rows those that are listed."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("bad_rows", "doubtful"):
            rows = found[name]
            found[f"num_{name}"] = len(rows)
            found[name] = [vars(row) for row in rows]
        return found


def read_items(
    path: Path, id_column: str, columns: Collection[str], bad_rows: Appendable, of_ratings: bool = False
) -> Items:
    """All fields of the items of a .csv, .tsv, .jsonl, .json (each also .gz, .zst) or .parquet file, or of a folder
    that TFDS has prepared.

    `columns` are those that must be there: in every table, and in some line of JSON. Of a repeated id the first row
    counts; `of_ratings`: it is no fault, the rows being ratings. Raises UserError for a file without the columns or
    without an item.
    """
    items = Items({}, {})
    is_table = file_kind(path) not in (".json", ".jsonl")
    needed = list(dict.fromkeys([id_column, *columns]))
    seen: set[str] = set()

    def absent(names: Collection[str]) -> Sequence[str]:
        seen.update(name for name in needed if name in names)
        return [name for name in (needed if is_table else [id_column]) if name not in names]

    read = prepared_rows if is_prepared(path) else read_row_file
    for row in read(path, absent, f"with the columns {', '.join(needed)}", bad_rows):
        try:
            if of_ratings and json_cell(row.values[id_column], id_column) in items.fields:
                continue
            fields = {name: cell_text(value, name) for name, value in row.values.items()}
            fields |= {name: "" for name in needed if name not in fields}
            items.add(path, row, json_cell(row.values[id_column], id_column), fields)
        except ValueError as error:
            bad_rows.append(bad_row(path, row.line, f"{id_column}: {error}", row.text))
    if missing := [name for name in needed if name not in seen]:
        raise UserError(f"{path}: no line has the field {', '.join(missing)}")
    if not items.fields:
        raise UserError(f"{path}: no item left: {len(bad_rows)} bad rows")
    return items


def join_fields(items: Items, path: Path, id_column: str, columns: Collection[str], bad_rows: Appendable) -> None:
    """Fields of a second file, by the same ids, beside those that the items have; other items are not used."""
    found = read_items(path, id_column, columns, bad_rows)
    joined = [name for name, fields in found.fields.items() if name in items.fields and any(map(fields.get, columns))]
    if not joined:
        raise UserError(f"{path}: no item has {', '.join(columns)} there: are its ids those of the items?")
    for name in joined:
        own = items.fields[name]
        own |= {key: value for key, value in found.fields[name].items() if not own.get(key)}
        items.places[name] = found.places[name]


def template_columns(template: str) -> list[str]:
    """The columns that a template names in braces; raises UserError where it names none."""
    columns = _COLUMN.findall(template)
    if not columns:
        raise UserError(f"text {template!r}: expected a template over columns, as '{{title}}. {{description}}'")
    return columns


def fill_template(template: str, fields: Mapping[str, str]) -> str:
    """The template with the fields in it.

    A part in brackets, `[Year: {year}. ]`, is left out where one of its fields is empty. "" where all fields outside of
    brackets are, or all there are.
    """
    needed = _COLUMN.findall(_OPTIONAL.sub("", template)) or template_columns(template)
    if not any(fields.get(column) for column in needed):
        return ""

    def kept(part: re.Match[str]) -> str:
        return part[1] if all(map(fields.get, _COLUMN.findall(part[1]))) else ""

    return " ".join(_COLUMN.sub(lambda found: fields.get(found[1], ""), _OPTIONAL.sub(kept, template)).split())


def assemble_catalogue(
    name: str,
    items: Items,
    *,
    title: str,
    text: str,
    entity_format: EntityFormat,
    ratings_file: Path,
    columns: RatingColumns,
    scale: Scale,
    bad_rows: BadRows,
    tags: Sequence[Tag] = (),
    tags_file: Path | None = None,
) -> tuple[Catalogue, LoadReport]:
    """Items with a text, in the order of their file, with their ratings and tags.

    The text fills the first block, the reasons to like and to dislike are empty. Items without a text are left out with
    their ratings and tags and are counted; so are users who have rated none of the others. Raises UserError when
    nothing is left.
    """
    doubtful = BadRows()
    descriptions = _descriptions(items, text, entity_format, bad_rows)
    names = tuple(items.fields)
    ratings = read_ratings(
        ratings_file, known_items=names, columns=columns, scale=scale, bad_rows=bad_rows, doubtful=doubtful
    )
    items_file = next(iter(items.places.values()))[0]
    if not descriptions:
        raise UserError(f"{items_file}: no {entity_format.noun} has a text {text}")
    with_text = restrict_items(ratings, [index for index, item in enumerate(names) if item in descriptions])
    if len(with_text) == 0:
        raise UserError(f"{ratings_file}: no rating of a {entity_format.noun} that has a text {text}")
    kept_tags, num_tags_without_text = _index_tags(tags, tags_file, items, ratings, with_text, bad_rows)
    titles = {item: quote_markers(items.fields[item].get(title, "")) for item in with_text.item_names}
    untitled = [item for item, found in titles.items() if not found]
    for item in untitled:
        titles[item] = " ".join(fill_template(text, items.fields[item]).split()[:_TITLE_WORDS])
    catalogue = Catalogue(
        name=name,
        entities=tuple(
            Entity(entity_id=item, title=titles[item], description=descriptions[item], fields=items.fields[item])
            for item in with_text.item_names
        ),
        ratings=with_text,
        tags=kept_tags,
        entity_format=entity_format,
        is_implicit=scale is WEIGHTS,
    )
    report = LoadReport(
        noun=entity_format.noun,
        scale=scale.name,
        num_items=len(names),
        num_items_without_text=len(names) - len(descriptions),
        num_items_without_title=len(untitled),
        num_ratings=len(ratings),
        num_ratings_without_text=len(ratings) - len(with_text),
        num_tags_without_text=num_tags_without_text,
        remarks=tuple(_remarks(ratings, scale)),
        bad_rows=bad_rows,
        doubtful=doubtful,
    )
    return catalogue, report


def _descriptions(items: Items, text: str, entity_format: EntityFormat, bad_rows: BadRows) -> dict[str, str]:
    """Id -> marked text of the items that have one."""
    descriptions: dict[str, str] = {}
    first, *others = entity_format.blocks
    for item, fields in items.fields.items():
        told = fill_template(text, fields)
        if not told:
            continue
        try:
            descriptions[item] = render_blocks({first: told, **dict.fromkeys(others, "")})
        except MalformedText as error:
            path, line = items.places[item]
            bad_rows.append(bad_row(path, line, str(error), told))
    return descriptions


def _index_tags(
    tags: Sequence[Tag],
    path: Path | None,
    items: Items,
    ratings: RatingTable,
    with_text: RatingTable,
    bad_rows: BadRows,
) -> tuple[tuple[tuple[int, int, str], ...], int]:
    """(user index, item index, tag) for items with text, and the number of tags of the others."""
    user_of = {name: index for index, name in enumerate(with_text.user_names)}
    item_of = {name: index for index, name in enumerate(with_text.item_names)}
    all_users = set(ratings.user_names)
    kept, num_without_text = [], 0
    for tag in tags:
        if tag.item not in items.fields:
            bad_rows.append(bad_row(path, tag.row.line, f"tag of an unknown item: {tag.item}", tag.row.text))
        elif tag.user not in all_users:
            bad_rows.append(bad_row(path, tag.row.line, f"user without ratings: {tag.user}", tag.row.text))
        elif tag.item not in item_of or tag.user not in user_of:
            num_without_text += 1
        else:
            kept.append((user_of[tag.user], item_of[tag.item], tag.tag))
    return tuple(kept), num_without_text


def _remarks(ratings: RatingTable, scale: Scale) -> list[str]:
    """What in the ratings speaks against the declared scale."""
    values = np.unique(ratings.rating)
    if scale is WEIGHTS:
        return []
    if len(values) == 1:
        return [f"every rating is {values[0]:g}: are these interactions? Then the feedback is implicit"]
    if values[-1] - values[0] < _NARROW * (scale.highest - scale.lowest):
        return [f"the scale is declared as {scale.name}, and all ratings are from {values[0]:g} to {values[-1]:g}"]
    return []
