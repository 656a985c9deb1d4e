"""A film's text as one block of labelled fields, and the fields read back from it.

    Genres: Comedy, Drama. Year: 1995. Plot: Two brothers inherit a lighthouse.

What E_D and reports know of a film's fields they know from its text, by `parse_film_fields` alone,
so that E_D stays a function of texts: who changes a field's words changes the field.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# MovieLens' own words; what its older editions, people and models write for them is in _SAME_GENRE.
GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Children",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "IMAX",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
TEMPLATE = "[Genres: {genres}. ][Year: {year}. ]Plot: {overview}"  # of readers: `fill_template`
_SAME_GENRE = {
    "animated": "Animation",
    "children's": "Children",
    "family": "Children",
    "film noir": "Film-Noir",
    "noir": "Film-Noir",
    "romantic": "Romance",
    "science fiction": "Sci-Fi",
    "sci fi": "Sci-Fi",
    "scifi": "Sci-Fi",
}
_GENRE = {genre.lower(): genre for genre in GENRES} | _SAME_GENRE
_MARKER = re.compile(r"#(?:BEGIN|END)_[A-Z_]+")
_LABELLED = re.compile(
    r"(?:genres?\s*:(?P<genres>.*?)(?:\.|(?=\b(?:year|plot)\s*:)))?"
    r"\s*(?:year\s*:(?P<year>.*?)(?:\.|(?=\bplot\s*:)))?"
    r"\s*(?:plot\s*:)?(?P<plot>.*)",
    re.IGNORECASE,
)
_YEAR = re.compile(r"\b(?:18[89]|19\d|20\d)\d\b")
_WRITTEN = re.compile(r"(?P<genres>(?<=Genres: )[^.]*)\. (?:Year: (?P<year>\d{4})\. )?Plot: ")
_MIDDLES = range(1925, 2020, 10)  # of decades


class FilmFields(NamedTuple):
    """What a text says of a film; a field it does not have is empty, None for the year."""

    genres: tuple[str, ...]  # of GENRES, in their order
    year: int | None
    plot: str


def parse_film_fields(text: str) -> FilmFields:
    """The fields of any text: what has no label before it is plot.

    Labels count at the beginning of the text only, genres before year before plot; markers of
    blocks are passed over. A genre that MovieLens does not have, and a year that is none from 1880
    to 2099, count as not said.
    """
    found = _LABELLED.fullmatch(" ".join(_MARKER.sub(" ", text).split()))
    named = {_GENRE.get(word.strip().lower()) for word in re.split(r"[,|/;]| and ", found["genres"] or "")}
    year = _YEAR.search(found["year"] or "")
    return FilmFields(
        tuple(genre for genre in GENRES if genre in named), int(year[0]) if year else None, found["plot"].strip()
    )


def field_edits(text: str) -> dict[str, str]:
    """What one change of a field makes of a text that `TEMPLATE` wrote, by its name: a genre more ("also Western"), one
    less ("no longer Western") while there is another, another decade ("of the 1950s"). {} without genres.

    Nothing else of the text changes: what a model that only knew the fields could do.
    """
    written = _WRITTEN.search(text)
    if written is None:
        return {}
    fields = parse_film_fields(text)

    def with_field(name: str, value: str) -> str:
        return text[: written.start(name)] + value + text[written.end(name) :]

    edits = {}
    for genre in GENRES:
        others = [own for own in GENRES if (own in fields.genres) != (own == genre)]
        if others:
            name = f"no longer {genre}" if genre in fields.genres else f"also {genre}"
            edits[name] = with_field("genres", ", ".join(others))
    if written["year"] is not None:
        decades = [middle for middle in _MIDDLES if middle // 10 != int(written["year"]) // 10]
        edits |= {f"of the {middle // 10}0s": with_field("year", str(middle)) for middle in decades}
    return edits
