"""Your own items and ratings, from files whose columns and scale the settings declare."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from eagle_jax.base.settings import setting, settings
from eagle_jax.data.bad_rows import BadRows
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import MOVIE, PRODUCT, EntityFormat
from eagle_jax.data.readers.items import LoadReport, assemble_catalogue, join_fields, read_items, template_columns
from eagle_jax.data.readers.rating_files import RatingColumns
from eagle_jax.data.readers.scales import WEIGHTS, Scale

_FORMATS = {"product": PRODUCT, "film": MOVIE}


@settings
class OwnFormat:
    """How the items are told and edited, where neither film nor product fits."""

    noun: str = setting("What one item is called, in lower case.")
    blocks: tuple[str, ...] = setting("Of its text, in capitals: what it is, then what speaks for and against it.")
    action_categories: tuple[str, ...] = setting("Kinds of changes.")


@settings
class OwnFiles:
    """Items and ratings of your own: .csv, .tsv, .jsonl, each also .gz or .zst, or .parquet."""

    items: str = setting("The file of the items; that of the ratings, where its rows tell the items as well.")
    item_id: str = setting("Its column of ids.")
    title: str = setting("Its column of titles.")
    text: str = setting("Of an item, over columns in braces: '{description} {category}'.")
    texts_file: str = setting("A second file with item_id and columns of the text; empty: none.", default="")
    ratings: str = setting("The file of ratings or interactions.")
    user: str = setting("Its column of users.")
    item: str = setting("Its column of items' ids.")
    feedback: Literal["explicit", "implicit"] = setting("What users said (ratings), or what they did.")
    rating: str = setting("Its column of ratings; of weights where feedback is implicit (empty: 1 each).")
    scale: str = setting('Of explicit ratings: "1 to 5", "percent" or "thumbs".', default="")
    timestamp: str = setting("Its column of times, which only decide between repeats; empty: none.", default="")
    entity: Literal["product", "film"] = setting("How the items are told.", default="product")
    own_format: OwnFormat | None = setting("", default=None)

    def __post_init__(self):
        template_columns(self.text)
        if self.feedback == "explicit":
            if not self.rating:
                raise ValueError("rating: explicit feedback needs the column of the ratings")
            Scale.named(self.scale)
        elif self.scale:
            raise ValueError(f"scale {self.scale!r}: implicit feedback has weights and no scale")


def read_own_files(files: OwnFiles) -> tuple[Catalogue, LoadReport]:
    """The items that have a text with their ratings.

    Raises UserError where a file is not what the settings declare.
    """
    bad_rows = BadRows()
    path, texts = Path(files.items), Path(files.texts_file) if files.texts_file else None
    columns = template_columns(files.text)
    if texts is None:
        told_by_ratings = files.items == files.ratings
        items = read_items(path, files.item_id, [files.title, *columns], bad_rows, told_by_ratings)
    else:
        items = read_items(path, files.item_id, [files.title], bad_rows)
        known = next(iter(items.fields.values()))
        join_fields(items, texts, files.item_id, [name for name in columns if name not in known], bad_rows)
    own = files.own_format
    return assemble_catalogue(
        path.name.partition(".")[0],
        items,
        title=files.title,
        text=files.text,
        entity_format=EntityFormat(**vars(own)) if own else _FORMATS[files.entity],
        ratings_file=Path(files.ratings),
        columns=RatingColumns(files.user, files.item, files.rating, files.timestamp),
        scale=Scale.named(files.scale) if files.feedback == "explicit" else WEIGHTS,
        bad_rows=bad_rows,
    )
