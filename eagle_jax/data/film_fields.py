"""A film's text as one block of labelled fields, and the fields read back from it.

    Genres: Comedy, Drama. Year: 1995. Plot: Two brothers inherit a lighthouse.

What E_D and reports know of a film's fields they know from its text, by `parse_film_fields` alone,
so that E_D stays a function of texts: who changes a field's words changes the field.
"""

from __future__ import annotations

import re
from collections.abc import Collection
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


def with_fields(text: str, genres: Collection[str] | None = None, year: int | None = None) -> str:
    """A text that `TEMPLATE` wrote, with other genres, in their order, or another year (None: its own); nothing else
    of it changes. As it is where it has no genres, and without another year where it has none."""
    written = _WRITTEN.search(text)
    if written is None:
        return text
    changes = {}
    if year is not None and written["year"] is not None:
        changes["year"] = str(year)
    if genres is not None:
        changes["genres"] = ", ".join(genre for genre in GENRES if genre in genres)
    for name, value in changes.items():  # from the back, so that places stay what they are
        text = text[: written.start(name)] + value + text[written.end(name) :]
    return text


def with_fields_of(anchor: str, text: str) -> str:
    """`text` with genres and year of another that `TEMPLATE` wrote: what is left is what its plot says."""
    fields = parse_film_fields(anchor)
    return with_fields(text, fields.genres or None, fields.year)


def field_edits(text: str) -> dict[str, str]:
    """What one change of a field makes of a text that `TEMPLATE` wrote, by its name: a genre more ("also Western"), one
    less ("no longer Western") while there is another, another decade ("of the 1950s"). {} without genres.

    Nothing else of the text changes: what a model that only knew the fields could do.
    """
    written = _WRITTEN.search(text)
    if written is None:
        return {}
    fields, edits = parse_film_fields(text), {}
    for genre in GENRES:
        others = [own for own in GENRES if (own in fields.genres) != (own == genre)]
        if others:
            name = f"no longer {genre}" if genre in fields.genres else f"also {genre}"
            edits[name] = with_fields(text, others)
    if written["year"] is not None:
        decades = [middle for middle in _MIDDLES if middle // 10 != int(written["year"]) // 10]
        edits |= {f"of the {middle // 10}0s": with_fields(text, year=middle) for middle in decades}
    return edits


class FieldChange(NamedTuple):
    """What an instruction changes beside the plot."""

    more: tuple[str, ...] = ()  # genres that a film then has
    less: tuple[str, ...] = ()  # and that it has no longer
    year: int | None = None  # None: stays

    @classmethod
    def parse(cls, genres: str, year: str) -> FieldChange:
        """Of "+Western -Comedy" and "1955"; raises ValueError that says what was expected."""
        signed = genres.split()
        for word in signed:
            if word[0] not in "+-" or word[1:] not in GENRES:
                raise ValueError(f"genres: expected + or - before one of {', '.join(GENRES)}, got {word!r}")
        if year and not _YEAR.fullmatch(year):
            raise ValueError(f"year: expected one from 1880 to 2099, got {year!r}")
        more, less = (tuple(word[1:] for word in signed if word[0] == sign) for sign in "+-")
        return cls(more, less, int(year) if year else None)

    def __call__(self, text: str) -> str:
        """A text that `TEMPLATE` wrote, changed; its genres stay where none would be left."""
        own = set(parse_film_fields(text).genres)
        genres = (own | set(self.more)) - set(self.less)
        return with_fields(text, genres if genres and genres != own else None, self.year)
