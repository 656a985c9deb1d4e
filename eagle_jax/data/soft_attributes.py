"""Raters' orderings of films by soft attributes ("more romantic than ..."): Balog et al.'s file.

Balog, Radlinski, Karatzoglou 2021, "On Interpretation and Measurement of Soft Attributes for
Recommendation" (SIGIR): each row of `soft-attributes.csv` is one rater's placing of up to ten films
as less, about as or more <attribute> than a reference film.
"""

import dataclasses
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from eagle_jax.base.errors import UserError
from eagle_jax.data.bad_rows import BadRow, bad_row, summarize_bad_rows
from eagle_jax.data.rows import read_rows

_PLACES = ("less_than", "about_as", "more_than")
_COLUMNS = ("rater_id", "reference_title", "soft_attribute")
_LOST = "\ufffd"  # the replacement character, one for each byte of a letter
_ARTICLE_FIRST = re.compile(r"(The|An|A|Les|Le|La|Il) (.*?)((?: \(.*\))? \(\d{4}\))")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ordering:
    """One rater's three places, MovieLens ids each; the reference film is one of `about`."""

    rater: str
    attribute: str
    less: tuple[str, ...]
    about: tuple[str, ...]
    more: tuple[str, ...]

    def pairs(self) -> Iterator[tuple[str, str]]:
        """(higher, lower) of every two films in different places; films of one place are tied."""
        for higher, lower in ((self.about, self.less), (self.more, self.less), (self.more, self.about)):
            yield from ((high, low) for high in higher for low in lower)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderingsReport:
    """What was read and what was left out, and why."""

    num_orderings: int
    num_titles: int
    repaired_titles: tuple[str, ...]  # letters lost in the file, U+FFFD, found in the one film
    unknown_titles: tuple[str, ...]  # left out wherever they stand: no film of this name
    num_without_reference: int  # rows left out because their reference film is unknown
    bad_rows: tuple[BadRow, ...]

    def summary(self, num_shown: int) -> str:
        """Counts, then the first `num_shown` bad rows."""
        return (
            f"{self.num_orderings} orderings of {self.num_titles} titles, of which "
            f"{len(self.repaired_titles)} with lost letters found again and "
            f"{len(self.unknown_titles)} of no known film; {self.num_without_reference} more "
            "orderings left out with their reference\n"
            f"{summarize_bad_rows(self.bad_rows, num_shown)}"
        )


def read_soft_attributes(path: Path, titles: Mapping[str, str]) -> tuple[tuple[Ordering, ...], OrderingsReport]:
    """The good rows of `path`, their films joined to `titles` (MovieLens id -> title).

    Titles are compared in Unicode's composed form with a leading article as MovieLens writes it
    ("Shining, The (1980)"), letters that the file has lost (U+FFFD) as any letters outside ASCII;
    of films with the same title the first counts. A list that is not one of titles, an empty field,
    a film placed twice in a row and a second row of the same rater, attribute and reference are bad
    rows. Raises UserError when the file is missing, lacks a column,
    or nothing is left.
    """
    film_of: dict[str, str] = {}
    for film, title in titles.items():
        film_of.setdefault(_plain(title), film)
    bad_rows: list[BadRow] = []
    orderings: list[Ordering] = []
    joined: dict[str, str | None] = {}
    seen = set()
    num_without_reference = 0
    for row in read_rows(path, (*_COLUMNS, *_PLACES), (), bad_rows):
        try:
            key = tuple(row.values[name] for name in _COLUMNS)
            places = _places(row.values)
            if key in seen:
                raise ValueError("a second row of this rater, attribute and reference")
            for title in (key[1], *(title for place in places for title in place)):
                if title not in joined:
                    joined[title] = _join(title, film_of)
            films = [[joined[title] for title in place if joined[title]] for place in places]
            films[1].insert(0, joined[key[1]])
            if len(set(sum(films, []))) < sum(map(len, films)):
                raise ValueError("a film is placed twice")
        except ValueError as error:
            bad_rows.append(bad_row(path, row.line, str(error), row.text))
            continue
        seen.add(key)
        if films[1][0] is None:
            num_without_reference += 1
            continue
        less, about, more = map(tuple, films)
        orderings.append(Ordering(rater=key[0], attribute=key[2], less=less, about=about, more=more))
    if not orderings:
        raise UserError(
            f"{path}: no ordering left: {len(bad_rows)} bad rows, {num_without_reference} whose "
            f"reference is none of {len(titles)} films"
        )
    report = OrderingsReport(
        num_orderings=len(orderings),
        num_titles=len(joined),
        repaired_titles=tuple(sorted(t for t, film in joined.items() if film and _LOST in t)),
        unknown_titles=tuple(sorted(title for title, film in joined.items() if film is None)),
        num_without_reference=num_without_reference,
        bad_rows=tuple(bad_rows),
    )
    return tuple(orderings), report


def joined_title(title: str) -> str:
    """The title as MovieLens writes it: "The Shining (1980)" is "Shining, The (1980)"."""
    title = _plain(title)
    found = _ARTICLE_FIRST.fullmatch(title)
    return f"{found[2]}, {found[1]}{found[3]}" if found else title


def _join(title: str, film_of: Mapping[str, str]) -> str | None:
    """The film of this title; with lost letters, the only one whose other letters are the same."""
    title = joined_title(title)
    if _LOST not in title:
        return film_of.get(title)
    pattern = re.compile(r"[^\x00-\x7f]+".join(map(re.escape, re.split(_LOST + "+", title))))
    found = [film for known, film in film_of.items() if pattern.fullmatch(known)]
    return found[0] if len(found) == 1 else None


def _plain(title: str) -> str:
    return " ".join(unicodedata.normalize("NFC", title).split())


def _places(values: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The three lists; raises ValueError."""
    for name in _COLUMNS:
        if not values[name]:
            raise ValueError(f"{name} is empty")
    places = []
    for name in _PLACES:
        try:
            titles = json.loads(values[name] or "[]")
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{name} is no JSON list: {error}") from error
        if not isinstance(titles, list) or not all(isinstance(t, str) and t for t in titles):
            raise ValueError(f"{name} is no list of titles")
        places.append(tuple(titles))
    return places
