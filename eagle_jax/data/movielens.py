"""Films in MovieLens' own file layout, told by the overviews of a texts file."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.catalogue import SOURCES, Catalogue, Entity, RatingTable, Source
from eagle_jax.data.prompts import MOVIE, render_blocks
from eagle_jax.data.ratings import read_ratings, restrict_items
from eagle_jax.data.rows import BadRow, bad_row, read_rows, summarize_bad_rows


@settings
class MovieLensFiles:
    """Files of MovieLens."""

    folder: str = setting("A folder in MovieLens' own layout.")
    texts_file: str = setting("A CSV with columns movieId and overview.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What was read and what was left out, and why."""

    num_films: int  # in movies.csv
    num_films_without_text: int
    num_ratings: int  # good rows of ratings.csv
    num_ratings_without_text: int  # of films that were left out
    num_tags_without_text: int
    bad_rows: tuple[BadRow, ...]

    def summary(self, num_shown: int) -> str:
        """Counts, then the first `num_shown` bad rows."""
        return (
            f"{self.num_films} films, {self.num_films_without_text} left out: no text\n"
            f"{self.num_ratings} ratings, {self.num_ratings_without_text} left out: no text\n"
            f"{self.num_tags_without_text} tags left out: no text, or no rating left of the user\n"
            f"{summarize_bad_rows(self.bad_rows, num_shown)}"
        )


def read_movielens(folder: Path, texts_file: Path) -> tuple[Catalogue, LoadReport]:
    """Films with an overview, in the order of movies.csv, with their ratings and tags.

    Reads `ratings.csv`, `movies.csv` and `tags.csv` of the folder, and movieId, overview of the
    texts file; `links.csv` holds nothing that is used. The overview is the plot; the reasons to
    like and to dislike are empty blocks. Films without an overview are left out with their ratings
    and tags and are counted; so are users who have rated none of the others. Raises UserError when
    a file is missing, empty or lacks a column, or nothing is left.
    """
    folder, texts_file = Path(folder), Path(texts_file)
    bad_rows: list[BadRow] = []
    titles = _read_column(folder / "movies.csv", "title", bad_rows)
    descriptions = _read_descriptions(texts_file, titles, bad_rows)
    ratings, bad_ratings = read_ratings(folder / "ratings.csv", known_items=tuple(titles))
    bad_rows += bad_ratings
    kept = [index for index, film in enumerate(titles) if film in descriptions]
    if not kept:
        raise UserError(f"{texts_file}: no film of {folder / 'movies.csv'} has an overview there")
    with_text = restrict_items(ratings, kept)
    if len(with_text) == 0:
        raise UserError(f"{folder / 'ratings.csv'}: no rating of a film with text in {texts_file}")
    tags_file = folder / "tags.csv"
    tags, num_tags_without_text = _read_tags(tags_file, titles, ratings, with_text, bad_rows)
    catalogue = Catalogue(
        name=folder.name,
        entities=tuple(
            Entity(entity_id=film, title=titles[film], description=descriptions[film]) for film in with_text.item_names
        ),
        ratings=with_text,
        tags=tags,
        entity_format=MOVIE,
    )
    report = LoadReport(
        num_films=len(titles),
        num_films_without_text=len(titles) - len(kept),
        num_ratings=len(ratings),
        num_ratings_without_text=len(ratings) - len(with_text),
        num_tags_without_text=num_tags_without_text,
        bad_rows=tuple(bad_rows),
    )
    return catalogue, report


def _read_column(path: Path, column: str, bad_rows: list[BadRow]) -> dict[str, str]:
    """movieId -> column, in the file's order; of a repeated movieId the first row counts."""
    values: dict[str, str] = {}
    for row in read_rows(path, ("movieId", column), (), bad_rows):
        film, value = row.values["movieId"], row.values[column]
        if not film or film in values:
            reason = "movieId is empty" if not film else f"movieId repeated: {film}"
            bad_rows.append(bad_row(path, row.line, reason, row.text))
        else:
            values[film] = value
    if not values:
        raise UserError(f"{path}: no film left: {len(bad_rows)} bad rows")
    return values


def _read_descriptions(path: Path, titles: Mapping[str, str], bad_rows: list[BadRow]) -> dict[str, str]:
    """movieId -> marked text of the films with an overview; texts of unknown films are unused."""
    descriptions: dict[str, str] = {}
    for row in read_rows(path, ("movieId", "overview"), (), bad_rows):
        film, overview = row.values["movieId"], row.values["overview"]
        if film not in titles or not overview:
            continue
        try:
            if film in descriptions:
                raise ValueError(f"movieId repeated: {film}")
            blocks = {name: "" for name in MOVIE.blocks} | {"PLOT": overview}
            descriptions[film] = render_blocks(blocks)
        except ValueError as error:
            bad_rows.append(bad_row(path, row.line, str(error), row.text))
    return descriptions


def _read_tags(
    path: Path, titles: Mapping[str, str], ratings: RatingTable, with_text: RatingTable, bad_rows: list[BadRow]
) -> tuple[tuple[tuple[int, int, str], ...], int]:
    """(user index, item index, tag) for films with text, and the number of tags of the others."""
    user_of = {name: index for index, name in enumerate(with_text.user_names)}
    item_of = {name: index for index, name in enumerate(with_text.item_names)}
    all_users = set(ratings.user_names)
    tags, num_without_text = [], 0
    for row in read_rows(path, ("userId", "movieId", "tag"), (), bad_rows):
        user, film, tag = row.values.values()
        if film not in titles:
            bad_rows.append(bad_row(path, row.line, f"unknown movieId: {film}", row.text))
        elif user not in all_users:
            bad_rows.append(bad_row(path, row.line, f"user without ratings: {user}", row.text))
        elif film not in item_of or user not in user_of:
            num_without_text += 1
        else:
            tags.append((user_of[user], item_of[film], " ".join(tag.split())))
    return tuple(tags), num_without_text


def _read(settings: MovieLensFiles) -> tuple[Catalogue, dict]:
    catalogue, report = read_movielens(Path(settings.folder), Path(settings.texts_file))
    return catalogue, dataclasses.asdict(report)


SOURCES.update(movielens=Source(MovieLensFiles, _read))
