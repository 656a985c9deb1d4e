"""Products of Amazon, as McAuley's group published reviews and metadata in 2014, 2018 and 2023.

| edition | reviews | CSV of ratings only | metadata |
|---|---|---|---|
| 2014 | reviewerID, asin, overall, unixReviewTime | no header: user, item, rating, time | Python literals: asin ... |
| 2018 | the same | no header: item, user, rating, time | asin, category, brand, feature |
| 2023 | user_id, parent_asin, rating, timestamp (ms) | with a header | parent_asin, categories, store |
"""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.bad_rows import BadRows, bad_row
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import PRODUCT
from eagle_jax.data.readers.items import Items, LoadReport, assemble_catalogue, template_columns
from eagle_jax.data.readers.json_columns import json_cell
from eagle_jax.data.readers.rating_files import RatingColumns
from eagle_jax.data.readers.scales import Scale
from eagle_jax.data.rows import cell_text, file_kind, read_json_lines

_HIDDEN = re.compile(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->")
_TAG = re.compile(r"(?s)</?[A-Za-z][^<>]*>")
PRODUCT_FIELDS = ("title", "description", "categories", "features", "brand", "price")


class _Edition(NamedTuple):
    item: str  # field of the id
    reviews: RatingColumns
    ratings: RatingColumns  # the CSV's
    names: Mapping[str, str]  # ours -> theirs, where these differ


_OLD_REVIEWS = RatingColumns("reviewerID", "asin", "overall", "unixReviewTime")
_NEW = RatingColumns("user_id", "parent_asin", "rating", "timestamp")
_ORDERS = {"2014": ("user", "item", "rating", "timestamp"), "2018": ("item", "user", "rating", "timestamp")}
_EDITIONS = {
    "2014": _Edition("asin", _OLD_REVIEWS, RatingColumns(*_ORDERS["2014"], layout=_ORDERS["2014"]), {}),
    "2018": _Edition(
        "asin",
        _OLD_REVIEWS,
        RatingColumns("user", "item", "rating", "timestamp", layout=_ORDERS["2018"]),
        {"categories": "category", "features": "feature"},
    ),
    "2023": _Edition("parent_asin", _NEW, _NEW, {"brand": "store"}),
}


@settings
class AmazonFiles:
    """Reviews and metadata of Amazon's products."""

    edition: Literal["2014", "2018", "2023"] = setting("The year of the collection, by whose rules files are read.")
    metadata: str = setting("The file of the products: .json or .jsonl, or one of them with .gz or .zst.")
    reviews: str = setting("The file of the reviews, also .csv with ratings only.")
    text: str = setting("Over title, description, categories, features, brand, price.", default="{description}")

    def __post_init__(self):
        if unknown := [name for name in template_columns(self.text) if name not in PRODUCT_FIELDS]:
            raise ValueError(f"text: {', '.join(unknown)} is none of {', '.join(PRODUCT_FIELDS)}")


def read_amazon(files: AmazonFiles) -> tuple[Catalogue, LoadReport]:
    """The products that have a text with their ratings, from 1 to 5; of several reviews of a product by one user the
    last counts.

    HTML is taken out of all fields, a product without a title is called by the first words of its text. Raises
    UserError for a file that is not of the edition.
    """
    edition, bad_rows = _EDITIONS[files.edition], BadRows()
    path, reviews = Path(files.metadata), Path(files.reviews)
    return assemble_catalogue(
        path.name.partition(".")[0],
        _read_products(path, edition, bad_rows),
        title="title",
        text=files.text,
        entity_format=PRODUCT,
        ratings_file=reviews,
        columns=edition.ratings if file_kind(reviews) == ".csv" else edition.reviews,
        scale=Scale(1.0, 5.0, "1 to 5"),
        bad_rows=bad_rows,
    )


def _read_products(path: Path, edition: _Edition, bad_rows: BadRows) -> Items:
    items = Items({}, {})
    theirs = {name: edition.names.get(name, name) for name in PRODUCT_FIELDS}

    def absent(names) -> list[str]:
        return [] if edition.item in names else [edition.item]

    for row in read_json_lines(path, absent, f"with the field {edition.item}", bad_rows, _parse):
        try:
            fields = {name: _plain(row.values.get(field), field) for name, field in theirs.items()}
            items.add(path, row, json_cell(row.values[edition.item], edition.item), fields)
        except ValueError as error:
            bad_rows.append(bad_row(path, row.line, f"{edition.item}: {error}", row.text))
    if not items.fields:
        first = next(iter(bad_rows), "none, the file is empty")
        raise UserError(f"{path}: no product left: {len(bad_rows)} bad rows, the first: {first}")
    return items


def _plain(value: Any, name: str) -> str:
    """The words of a field: paragraphs of a description in one line, without HTML."""
    if name == "description" and isinstance(value, list):
        value = " ".join(cell_text(part, name) for part in value)
    text = _HIDDEN.sub(" ", html.unescape(cell_text(value, name)))
    return " ".join(_TAG.sub(" ", text).split())


def _parse(text: str) -> Any:
    """A line of JSON, or of the Python that 2014's metadata are written in; ValueError for neither."""
    try:
        return json.loads(text)
    except ValueError:
        try:
            return ast.literal_eval(text.strip())
        except (SyntaxError, MemoryError) as error:
            raise ValueError(f"no JSON object: {getattr(error, 'msg', 'nested too deep')}") from error
