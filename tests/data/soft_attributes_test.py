"""Orderings are joined to films by title; every bad row is counted with its reason."""

import csv
import json

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.soft_attributes import joined_title, read_soft_attributes

TITLES = {"7": "Shining, The (1980)", "8": "Amelie (Le destin d'Am\u00e9lie) (2001)", "9": "Ran (1985)"}
HEADER = ["rater_id", "reference_title", "soft_attribute", "less_than", "about_as", "more_than"]
AMELIE = "Amelie (Le destin d'Ame\u0301lie) (2001)"  # decomposed


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return path


def test_an_ordering_and_its_pairs(tmp_path):
    rows = [("1", "Ran (1985)", "scary", json.dumps([AMELIE]), "", '["The Shining (1980)"]')]
    orderings, report = read_soft_attributes(write(tmp_path / "a.csv", rows), TITLES)
    (one,) = orderings
    assert (one.less, one.about, one.more) == (("8",), ("9",), ("7",))
    assert sorted(one.pairs()) == [("7", "8"), ("7", "9"), ("9", "8")]
    assert report.num_titles == 3 and not report.bad_rows and not report.unknown_titles


def test_lost_letters_are_found_in_the_one_film_that_fits(tmp_path):
    lost = "Amelie (Le destin d'Am\ufffd\ufffdlie) (2001)"
    rows = [
        ("1", "Ran (1985)", "scary", json.dumps([lost]), "", ""),
        ("2", "Ran (1985)", "scary", json.dumps([lost]), json.dumps([AMELIE]), ""),
    ]
    path = write(tmp_path / "a.csv", rows)
    orderings, report = read_soft_attributes(path, TITLES)
    assert [one.less for one in orderings] == [("8",)] and report.repaired_titles == (lost,)
    assert [row.reason for row in report.bad_rows] == ["a film is placed twice"]
    twins = TITLES | {"10": "Amelie (Le destin d'Am\u00e8lie) (2001)"}
    assert read_soft_attributes(path, twins)[1].unknown_titles == (lost,)


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("The Shining (1980)", "Shining, The (1980)"),
        ("A Beautiful Mind (2001)", "Beautiful Mind, A (2001)"),
        ("The Good (Buono, Il) (1966)", "Good, The (Buono, Il) (1966)"),
        ("Theory (2000)", "Theory (2000)"),
    ],
)
def test_articles_stand_where_movielens_puts_them(title, expected):
    assert joined_title(title) == expected


def test_bad_rows_and_unknown_films_are_counted(tmp_path):
    good = ("1", "Ran (1985)", "scary", '["The Shining (1980)", "Nowhere (1900)"]', "", "")
    rows = [
        good,
        good,
        ("2", "Ran (1985)", "scary", "[oops", "", ""),
        ("3", "Ran (1985)", "scary", '"Ran"', "", ""),
        ("4", "Ran (1985)", "scary", '["Ran (1985)"]', "", ""),
        ("", "Ran (1985)", "scary", "", "", ""),
        ("5", "Nowhere (1900)", "scary", "", "", '["Ran (1985)"]'),
    ]
    orderings, report = read_soft_attributes(write(tmp_path / "a.csv", rows), TITLES)
    assert [one.less for one in orderings] == [("7",)]
    assert report.unknown_titles == ("Nowhere (1900)",) and report.num_without_reference == 1
    assert [(row.line, row.reason.partition(":")[0]) for row in report.bad_rows] == [
        (3, "a second row of this rater, attribute and reference"),
        (4, "less_than is no JSON list"),
        (5, "less_than is no list of titles"),
        (6, "a film is placed twice"),
        (7, "rater_id is empty"),
    ]
    assert "5 bad rows" in report.summary(1)


def test_nothing_left_and_nothing_there_are_refused(tmp_path):
    rows = [("1", "Nowhere (1900)", "scary", "", "", "")]
    with pytest.raises(UserError, match="no ordering left"):
        read_soft_attributes(write(tmp_path / "a.csv", rows), TITLES)
    with pytest.raises(UserError):
        read_soft_attributes(tmp_path / "absent.csv", TITLES)


def test_the_real_orderings_are_all_of_known_films(eagle_data):
    with (eagle_data / "ml-latest-small" / "movies.csv").open(encoding="utf-8") as file:
        titles = {row["movieId"]: row["title"] for row in csv.DictReader(file)}
    path = eagle_data / "soft-attributes" / "soft-attributes.csv"
    orderings, report = read_soft_attributes(path, titles)
    assert len(orderings) == 5991 and not report.bad_rows
    # 300 films: three of them also stand there with a letter lost.
    assert report.num_titles == 303 and not report.unknown_titles
    assert len(report.repaired_titles) == 3
    assert len({one.attribute for one in orderings}) == 60
    assert len({one.rater for one in orderings}) == 100
    # Counted once in a plain loop over the file: 197,511 strict opinions.
    assert sum(1 for one in orderings for _ in one.pairs()) == 197511
