"""Which article of the CMU Movie Summary Corpus is about which film of MovieLens, and its plot in short.

Of `launch/prepare_data.py`; text world, standard library only.
"""

import html
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

# A model that reads 256 tokens: all-MiniLM-L6-v2's tokenizer made 245 at most of 900 characters of plot with the
# film's genres and year before them, over 2,500 films; 257 of 950.
MOST_CHARACTERS = 900
SAME_YEAR, ANOTHER_YEAR, AMBIGUOUS, NOT_FOUND = "same year", "a year apart", "ambiguous", "not found"

_YEAR = re.compile(r"\((\d{4})(?:\s*[-–]\s*\d{0,4})?\s*\)\s*$")  # of series also (2006–2007)
_LAST_PARENTHESES = re.compile(r"\s*\(([^()]*)\)\s*$")
_ALSO_KNOWN_AS = re.compile(r"^(?:a\.k\.a\.|aka)\s+")
_NO_NAME = re.compile(r"(?i)(?:part|vol(?:ume)?|season|episode)\b.*|tv|v|video|short|\d+")
_ARTICLES = (  # of the languages of titles
    "the|a|an|le|la|les|un|une|des|il|lo|gli|i|uno|el|los|las|una|der|die|das|ein|eine|den|det|de|het|en|ett|os|as|o|um"
)
_MOVED_ARTICLE = re.compile(rf"(.*\S),\s+({_ARTICLES}|l['’])", re.IGNORECASE)
_LETTERS = str.maketrans({"ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ł": "l", "Ł": "L", "đ": "d"})

_MARKUP = re.compile(r"\{\{[^{}]*\}\}|<ref[^<>]*>.*?</ref>|</?[A-Za-z!][^<>]*>|'{2,}")
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_EMPTY_PARENTHESES = re.compile(r"\(\s*[,;]*\s*\)")
_SPACE_BEFORE = re.compile(r"\s+([,.;:!?])(?=\s|$)")
_SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]]*(?=\s+["'“‘(\[]*[^\W_a-z])""")
_ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Lt|Col|Gen|Capt|Sgt|Maj|Gov|Sen|Rev|Sr|Jr|No|vs|Mt|[^\W\d_]|(?:\w\.)+\w)\.$"
)


class Article(NamedTuple):
    """An article of the corpus; the year of release is None where it is not known."""

    number: str  # of Wikipedia
    title: str
    year: int | None


class Match(NamedTuple):
    """What became of a film: one of the four outcomes, and its article for the first two."""

    outcome: str
    article: Article | None


def split_title(title: str) -> tuple[set[str], int | None]:
    """ "Tenant, The (Locataire, Le) (1976)" -> {"the tenant", "le locataire", and both as one}, 1976."""
    found = _YEAR.search(title)
    rest = title[: found.start()].strip() if found else title.strip()
    names = [rest]
    while parentheses := _LAST_PARENTHESES.search(rest):
        if not _NO_NAME.fullmatch(parentheses[1].strip()):
            names.append(parentheses[1])
        rest = rest[: parentheses.start()]
    return {title_key(name) for name in (*names, rest)} - {""}, int(found[1]) if found else None


def title_key(name: str) -> str:
    """A name without case, accents and punctuation, its article in front: what two spellings have in common."""
    name = _ALSO_KNOWN_AS.sub("", name.strip())
    if moved := _MOVED_ARTICLE.fullmatch(name):
        name = moved[2] + ("" if moved[2][-1] in "'’" else " ") + moved[1]
    plain = unicodedata.normalize("NFKD", name.translate(_LETTERS)).casefold()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return " ".join(re.findall(r"\w+", re.sub(r"['’`´]", "", plain.replace("&", " and "))))


def match_films(films: Mapping[str, str], articles: Iterable[Article]) -> dict[str, Match]:
    """Of each film, {its id: its title with the year}, the article of a title that both have.

    The year is the same, or, where only one article has any of the film's titles, one away. Several articles that fit,
    one that fits several films, and one without a year are ambiguous: nothing is guessed.
    """
    by_key: defaultdict[str, set[Article]] = defaultdict(set)
    for article in articles:
        by_key[title_key(article.title)].add(article)
    matches = {film: _match(title, by_key) for film, title in films.items()}
    claims: defaultdict[Article, Counter[str]] = defaultdict(Counter)
    for match in matches.values():
        if match.article:
            claims[match.article][match.outcome] += 1
    return {film: _settle(match, claims) for film, match in matches.items()}


def _match(title: str, by_key: Mapping[str, set[Article]]) -> Match:
    keys, year = split_title(title)
    found = set().union(*(by_key[key] for key in keys if key in by_key))
    if year is None:
        return Match(AMBIGUOUS if found else NOT_FOUND, None)
    exact = [article for article in found if article.year == year]
    if len(exact) == 1:
        return Match(SAME_YEAR, exact[0])
    near = [article for article in found if article.year is None or abs(article.year - year) <= 1]
    if not near:
        return Match(NOT_FOUND, None)
    if len(found) == 1 and near[0].year is not None:
        return Match(ANOTHER_YEAR, near[0])
    return Match(AMBIGUOUS, None)


def _settle(match: Match, claims: Mapping[Article, Counter[str]]) -> Match:
    """A film that shares its article with another does not have it, but for the one of the same year."""
    if match.article is None:
        return match
    claimed = claims[match.article]
    if match.outcome == ANOTHER_YEAR and claimed[SAME_YEAR]:
        return Match(NOT_FOUND, None)
    return match if claimed[match.outcome] == 1 else Match(AMBIGUOUS, None)


def clean_plot(text: str) -> str:
    """A plot without what is left of Wikipedia's markup, in one line."""
    text = html.unescape(_LINK.sub(r"\1", _MARKUP.sub(" ", text)))
    return _SPACE_BEFORE.sub(r"\1", " ".join(_EMPTY_PARENTHESES.sub(" ", text).split()))


def first_sentences(text: str, most: int = MOST_CHARACTERS) -> str:
    """As many whole sentences from the beginning as `most` characters hold; of a longer first one, its first words."""
    if len(text) <= most:
        return text
    ends = [found.end() for found in _SENTENCE_END.finditer(text[: most + 9])]  # 9: the beginning of the next
    if fitting := [end for end in ends if end <= most and not _ABBREVIATION.search(text[:end])]:
        return text[: fitting[-1]]
    return text[: most - 3].rsplit(" ", 1)[0] + "..."
