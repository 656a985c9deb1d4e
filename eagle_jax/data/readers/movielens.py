"""Films of MovieLens, in every layout that was published, told by the overviews of a texts file or by their fields.

| layout | known by | ratings | films | tags |
|---|---|---|---|---|
| 100k | u.data | tabs, no header, 1 to 5 stars | u.item: `|`, Latin-1, a flag for each genre of u.genre | none |
| 1m | ratings.dat | `::`, 1 to 5 stars | movies.dat, Latin-1 | none |
| 10m | ratings.dat, tags.dat | `::`, half stars | movies.dat, UTF-8 | tags.dat |
| 20m, 25m, 32m, latest | ratings.csv | CSV, half stars | movies.csv | tags.csv |
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.bad_rows import BadRows, bad_row
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import MOVIE
from eagle_jax.data.readers.items import Items, LoadReport, Tag, assemble_catalogue, join_fields, template_columns
from eagle_jax.data.readers.rating_files import MOVIELENS_COLUMNS
from eagle_jax.data.readers.scales import STARS, Scale
from eagle_jax.data.rows import FileRow, read_rows, read_separated

_RATINGS = ("userId", "movieId", "rating", "timestamp")
_TAGS = ("userId", "movieId", "tag", "timestamp")
_FILMS = ("movieId", "title", "genres")
_YEAR = re.compile(r"\((\d{4})\)\s*$")
_WHOLE_STARS = Scale(1.0, 5.0, "1 to 5")
OWN_FIELDS = ("title", "genres", "year", "tags")


@settings
class MovieLensFiles:
    """Files of MovieLens."""

    folder: str = setting("A folder in one of MovieLens' own layouts.")
    texts_file: str = setting("A CSV with columns movieId and overview; empty: none, the text is of the fields.")
    text: str = setting(
        "Of a film, over title, genres, year, tags and what texts_file has; [a part in brackets] goes with its fields.",
        default="{overview}",
    )


def read_movielens(folder: Path, texts_file: Path | None, text: str = "{overview}") -> tuple[Catalogue, LoadReport]:
    """Films with a text, in the order of their file, with their ratings and tags.

    The text is the plot. Fields of a film are title, genres, year, tags (the commonest first) and the columns of the
    texts file; `links.csv` holds nothing that is used. Raises UserError when a file is missing, empty or lacks a
    column, or nothing is left.
    """
    folder = Path(folder)
    bad_rows = BadRows()
    columns, scale, tags_file = MOVIELENS_COLUMNS, STARS, None
    if (folder / "u.data").exists():
        ratings_file, items, scale = folder / "u.data", _films_100k(folder, bad_rows), _WHOLE_STARS
        columns = columns._replace(layout=_RATINGS, delimiter="\t")
    elif (folder / "ratings.dat").exists():
        is_10m = (folder / "tags.dat").exists()
        ratings_file, tags_file = folder / "ratings.dat", folder / "tags.dat" if is_10m else None
        films = read_separated(folder / "movies.dat", _FILMS, "::", bad_rows, "utf-8" if is_10m else "latin-1")
        items = _films(folder / "movies.dat", films, bad_rows)
        columns = columns._replace(layout=_RATINGS, delimiter="::")
        scale = STARS if is_10m else _WHOLE_STARS
    else:
        ratings_file, tags_file = folder / "ratings.csv", folder / "tags.csv"
        films = read_rows(folder / "movies.csv", _FILMS[:2], _FILMS[2:], bad_rows)
        items = _films(folder / "movies.csv", films, bad_rows)
    tags = list(_read_tags(tags_file, bad_rows)) if tags_file else []
    _add_tags(items, tags)
    if texts_file:
        needed = [name for name in template_columns(text) if name not in OWN_FIELDS]
        join_fields(items, Path(texts_file), "movieId", needed, bad_rows)
        for fields in items.fields.values():  # where films have none, those of the texts file came in
            fields["genres"] = _genres(fields["genres"])
    elif unknown := [name for name in template_columns(text) if name not in OWN_FIELDS]:
        raise UserError(
            f"{folder}: films have the fields {', '.join(OWN_FIELDS)}, and text {text!r} names {', '.join(unknown)}: "
            "give a texts_file that has it, or a text over these fields"
        )
    return assemble_catalogue(
        folder.name,
        items,
        title="title",
        text=text,
        entity_format=MOVIE,
        ratings_file=ratings_file,
        columns=columns,
        scale=scale,
        bad_rows=bad_rows,
        tags=tags,
        tags_file=tags_file,
    )


def _films(path: Path, rows: Iterator[FileRow], bad_rows: BadRows) -> Items:
    items = Items({}, {})
    for row in rows:
        title = row.values["title"].strip()
        year = _YEAR.search(title)
        fields = {"title": title, "genres": _genres(row.values["genres"]), "year": year[1] if year else ""}
        try:
            items.add(path, row, row.values["movieId"].strip(), fields)
        except ValueError as error:
            bad_rows.append(bad_row(path, row.line, f"movieId: {error}", row.text))
    if not items.fields:
        raise UserError(f"{path}: no film left: {len(bad_rows)} bad rows")
    return items


def _genres(told: str) -> str:
    return "" if told.strip() == "(no genres listed)" else told.strip().replace("|", ", ")


def _films_100k(folder: Path, bad_rows: BadRows) -> Items:
    """u.item: id, title, release date, video date, address, and 0 or 1 for every genre of u.genre."""
    genres = [row.values["name"] for row in read_separated(folder / "u.genre", ("name", "number"), "|", bad_rows)]
    names = ("movieId", "title", "released", "video", "address", *genres)

    def films() -> Iterator[FileRow]:
        for row in read_separated(folder / "u.item", names, "|", bad_rows, "latin-1"):
            named = "|".join(genre for genre in genres if row.values[genre].strip() == "1" and genre != "unknown")
            yield row._replace(values={**row.values, "genres": named})

    return _films(folder / "u.item", films(), bad_rows)


def _read_tags(path: Path, bad_rows: BadRows) -> Iterator[Tag]:
    rows = (
        read_rows(path, _TAGS[:3], (), bad_rows)
        if path.suffix == ".csv"
        else read_separated(path, _TAGS, "::", bad_rows)
    )
    for row in rows:
        user, film, tag = (row.values[name] for name in _TAGS[:3])
        yield Tag(user, film, " ".join(tag.split()), row)


def _add_tags(items: Items, tags: list[Tag]) -> None:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for tag in tags:
        counts[tag.item][tag.tag] += 1
    for item, fields in items.fields.items():
        fields["tags"] = ", ".join(tag for tag, _ in counts[item].most_common()) if item in counts else ""
