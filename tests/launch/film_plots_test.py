"""launch/film_plots.py: titles that were judged by eye, and plots by hand."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plots(monkeypatch):
    """The module as launch/prepare_data.py sees it."""
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    return importlib.import_module("film_plots")


# Titles of MovieLens, of articles with their years, and what is to come of it: judged by eye.
TITLES = [
    ("Matrix, The (1999)", [("The Matrix", 1999)], "same year"),
    ("Ghosts of Mars (2001)", [("Ghosts of Mars", 2001)], "same year"),
    ("Dinner Game, The (Dîner de cons, Le) (1998)", [("Le Diner de Cons", 1998)], "same year"),
    ("Bird with the Crystal Plumage, The (Uccello, L') (1970)", [("L'uccello", 1970)], "same year"),
    ("Seven (a.k.a. Se7en) (1995)", [("Se7en", 1995)], "same year"),
    ("Porco Rosso (Crimson Pig) (Kurenai no buta) (1992)", [("Kurenai no Buta", 1992)], "same year"),
    ("Dumb & Dumber (1994)", [("Dumb and Dumber", 1994)], "same year"),
    ("Léon: The Professional (1994)", [("Leon - The Professional", 1994)], "same year"),
    ("Brødre (2004)", [("Brodre", 2004)], "same year"),
    ("Lord of the Rings: The Two Towers, The (2002)", [("The Lord of the Rings: The Two Towers", 2002)], "same year"),
    ("(500) Days of Summer (2009)", [("(500) Days of Summer", 2009)], "same year"),
    ("Ocean's Eleven (2001)", [("Oceans Eleven", 2001), ("Ocean’s Eleven", 1960)], "same year"),
    ("Death Note: Desu nôto (2006–2007)", [("Death Note: Desu noto", 2006)], "same year"),
    ("Alien (1979)", [("Alien", 1980)], "a year apart"),
    ("Alien (1979)", [("Alien", 1980), ("Alien", 1950)], "ambiguous"),  # not the only one of this title
    ("Alien (1979)", [("Alien", 1981)], "not found"),
    ("Alien (1979)", [("Alien", None)], "ambiguous"),  # it may be this one
    ("Alien (1979)", [("Alien", None), ("Alien", 1979)], "same year"),
    ("Hamlet (1990)", [("Hamlet", 1990), ("Hamlet", 1990)], "ambiguous"),
    ("Hero (Ying xiong) (2002)", [("Hero", 2002), ("Ying Xiong", 2002)], "ambiguous"),
    ("Ring, The (2002)", [("Ring", 2002)], "not found"),  # articles tell films apart
    ("Planet Earth (Part 2) (2006)", [("Part 2", 2006)], "not found"),
    ("Babylon 5", [("Babylon 5", 1994)], "ambiguous"),  # without a year
    ("Unheard of (1990)", [("Alien", 1990)], "not found"),
]


@pytest.mark.parametrize(("title", "articles", "outcome"), TITLES)
def test_titles_join_as_by_hand(plots, title, articles, outcome):
    articles = [plots.Article(str(number), *article) for number, article in enumerate(articles)]
    match = plots.match_films({"1": title}, articles)["1"]
    assert match.outcome == outcome
    assert (match.article is not None) == (outcome in ("same year", "a year apart"))
    if outcome == "same year":
        assert match.article.year == int(title[-5:-1]) or title.endswith("2007)")


def test_an_article_goes_to_one_film_or_to_none(plots):
    articles = [plots.Article(name, name, year) for name, year in (("Emma", 1996), ("Alien", 1979), ("Solo", 1985))]
    films = {"a": "Emma (1996)", "b": "Emma (1996)", "c": "Alien (1979)", "d": "Alien (1980)"}
    films |= {"e": "Solo (1984)", "f": "Solo (1986)"}
    matches = plots.match_films(films, articles)
    assert {film: match.outcome for film, match in matches.items()} == {
        "a": "ambiguous",  # two of MovieLens' films that cannot be told apart
        "b": "ambiguous",
        "c": "same year",
        "d": "not found",  # the article is about the other one
        "e": "ambiguous",
        "f": "ambiguous",
    }


def test_plots_end_after_a_whole_sentence_and_have_no_markup(plots):
    text = 'Dr. John F. Doe met Mrs. Roe. "Who is it?" he asks. They leave at 5 p.m. for Rome. The end.'
    assert plots.first_sentences(text, 200) == text
    assert plots.first_sentences(text, 30) == "Dr. John F. Doe met Mrs. Roe."
    assert plots.first_sentences(text, 29) == "Dr. John F. Doe met Mrs. Roe."
    assert plots.first_sentences(text, 28) == "Dr. John F. Doe met Mrs...."
    assert plots.first_sentences(text, 80) == 'Dr. John F. Doe met Mrs. Roe. "Who is it?" he asks.'
    assert plots.first_sentences(text, 86) == text[: text.index(" The end")]
    assert plots.first_sentences("x" * 50, 20) == "x" * 17 + "..."
    raw = "The '''Kid''' , a [[swindler|crook]]&nbsp;( ) <ref name=a>no</ref>is <br/>{{cite}}here ; .45 in [[hand]] ."
    assert plots.clean_plot(raw) == "The Kid, a crook is here; .45 in hand."
