"""Small folders in every layout of MovieLens, faults in every file, stored cases, and the real one."""

import json
from pathlib import Path

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import MOVIE, parse_blocks
from eagle_jax.data.readers.movielens import read_movielens

FILES = {
    "movies.csv": (
        "movieId,title,genres\n"
        '1,"Matrix, The (1999)",Action\n'
        "2,Untold (2000),Drama\n"
        "3,Heat (1995),Crime\n"
        "3,Heat again (1995),Crime\n"
        "4,Marked (2001),Drama\n"
    ),
    "ratings.csv": (
        "userId,movieId,rating,timestamp\na,1,4.0,1\na,2,3.0,2\nb,2,5.0,3\nc,3,2.0,4\nc,9,2.0,4\na,3,1.5,4\na,4,1.5,4\n"
    ),
    "tags.csv": ("userId,movieId,tag,timestamp\na,1,mind  bending,1\nc,2,slow,1\nz,1,cult,1\na,77,odd,1\nb,1,loud,1\n"),
    "links.csv": "movieId,imdbId,tmdbId\n",
    "texts.csv": (
        "movieId,title,overview\n"
        '1,x,"A hacker learns\n the   truth."\n'
        "2,x,  \n"
        "3,x,Cop against thief.\n"
        "4,x,Ends with #END_PLOT here.\n"
        "500,x,A film that the catalogue does not have.\n"
    ),
}


def _write(folder, **changes):
    for name, content in (FILES | changes).items():
        if content is not None:
            (folder / name).write_text(content)
    return folder, folder / "texts.csv"


def test_films_ratings_tags_and_the_report(tmp_path):
    catalogue, report = read_movielens(*_write(tmp_path))
    films = [(film.entity_id, film.title) for film in catalogue.entities]
    assert films == [("1", "Matrix, The (1999)"), ("3", "Heat (1995)")]
    blocks = [parse_blocks(text, MOVIE.blocks, may_be_empty=True) for text in catalogue.descriptions]
    assert blocks[0] == {"PLOT": "A hacker learns the truth.", "REASONS_TO_LIKE": "", "REASONS_TO_DISLIKE": ""}
    ratings = catalogue.ratings
    assert ratings.item_names == ("1", "3") and ratings.user_names == ("a", "c")
    assert list(zip(ratings.user_index, ratings.item_index, ratings.rating, strict=True)) == [
        (0, 0, 4.0),
        (1, 1, 2.0),
        (0, 1, 1.5),
    ]
    assert catalogue.tags == ((0, 0, "mind bending"),)
    assert (report.num_items, report.num_items_without_text) == (4, 2)
    assert [film.fields["genres"] for film in catalogue.entities] == ["Action", "Crime"]
    assert [film.fields["year"] for film in catalogue.entities] == ["1999", "1995"]
    assert [film.fields["tags"] for film in catalogue.entities] == ["mind bending, cult, loud", ""]
    assert (report.num_ratings, report.num_ratings_without_text) == (6, 3)
    assert report.num_tags_without_text == 2  # of film 2, and of user b who rated only film 2
    assert [(bad.file, bad.line, bad.reason) for bad in report.bad_rows] == [
        ("movies.csv", 5, "movieId: id repeated: 3"),
        ("texts.csv", 6, "marker_in_text: #END_PLOT inside the text of PLOT"),
        ("ratings.csv", 6, "unknown movieId: 9"),
        ("tags.csv", 4, "user without ratings: z"),
        ("tags.csv", 5, "tag of an unknown item: 77"),
    ]
    summary = report.summary(num_shown=0).splitlines()
    assert summary[:2] == ["4 films, 2 left out: no text", "6 ratings, 3 left out: no text"]
    assert "5 bad rows left out" in summary


@pytest.mark.parametrize("missing", ["movies.csv", "ratings.csv", "tags.csv", "texts.csv"])
def test_a_missing_file_is_named(tmp_path, missing):
    with pytest.raises(UserError, match=f"{missing}: cannot be read"):
        read_movielens(*_write(tmp_path, **{missing: None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts.csv": "movieId,overview\n1,\n"}, "texts.csv: no item has overview there"),
        ({"texts.csv": "movieId,plot\n1,x\n"}, "texts.csv: line 1: no column overview"),
        (
            {"texts.csv": "movieId,overview\n4,x\n", "ratings.csv": "userId,movieId,rating\na,1,4\n"},
            "ratings.csv: no rating of a film that has a text",
        ),
        ({"movies.csv": "movieId,title\n"}, "movies.csv: no film left"),
    ],
)
def test_nothing_left_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        read_movielens(*_write(tmp_path, **changes))


FILMS = [("1", "Señor (1995)", "Animation|Comedy"), ("2", "Up: the film (2009)", "(no genres listed)")]
OLD_RATINGS = [("7", "1", "5", "881250949"), ("8", "2", "3", "881250950"), ("8", "1", "1", "881250951")]


def _write_100k(folder):
    genres = ["unknown", "Action", "Animation", "Comedy"]
    (folder / "u.genre").write_text("".join(f"{name}|{place}\n" for place, name in enumerate(genres)) + "\n")
    films = [
        f"{film}|{title}|01-Jan-1995||http://us.imdb.com/{film}|"
        + "|".join(str(int(genre in genres_of.split("|"))) for genre in genres)
        for film, title, genres_of in FILMS
    ]
    (folder / "u.item").write_bytes("\n".join(films).encode("latin-1"))
    (folder / "u.data").write_text("".join("\t".join(row) + "\n" for row in OLD_RATINGS))


def _write_dat(folder, encoding):
    (folder / "movies.dat").write_bytes("".join("::".join(film) + "\n" for film in FILMS).encode(encoding))
    (folder / "ratings.dat").write_text("".join("::".join(row) + "\n" for row in OLD_RATINGS))


def _write_10m(folder):
    _write_dat(folder, "utf-8")
    (folder / "tags.dat").write_text("7::1::toys::1\n8::1::toys::2\n8::1::old: and good::3\n")


def _write_latest(folder):
    lines = ["movieId,title,genres", *(f'{film},"{title}",{genres}' for film, title, genres in FILMS)]
    (folder / "movies.csv").write_text("\n".join(lines))
    lines = ["userId,movieId,rating,timestamp", *map(",".join, OLD_RATINGS)]
    (folder / "ratings.csv").write_text("\n".join(lines))
    lines = ["userId,movieId,tag,timestamp", "7,1,toys,1", "8,1,toys,2", '8,1,"old: and good",3']
    (folder / "tags.csv").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("write", "has_tags", "scale"),
    [
        (_write_100k, False, "1 to 5"),
        (lambda folder: _write_dat(folder, "latin-1"), False, "1 to 5"),
        (_write_10m, True, "0.5 to 5"),
        (_write_latest, True, "0.5 to 5"),
    ],
    ids=["100k", "1m", "10m", "latest"],
)
def test_every_layout_is_read_by_its_own_rules(tmp_path, write, has_tags, scale):
    write(tmp_path)
    catalogue, report = read_movielens(tmp_path, None, "{title}: {genres}. {tags}")
    assert not report.bad_rows and report.scale == scale
    tags = "toys, old: and good" if has_tags else ""
    assert [dict(film.fields) for film in catalogue.entities] == [
        catalogue.entities[0].fields
        | {"title": "Señor (1995)", "genres": "Animation, Comedy", "year": "1995", "tags": tags},
        catalogue.entities[1].fields | {"title": "Up: the film (2009)", "genres": "", "year": "2009", "tags": ""},
    ]
    plots = [parse_blocks(text, MOVIE.blocks, may_be_empty=True)["PLOT"] for text in catalogue.descriptions]
    assert plots == [f"Señor (1995): Animation, Comedy. {tags}".strip(), "Up: the film (2009): ."]
    ratings = catalogue.ratings
    assert ratings.user_names == ("7", "8") and ratings.rating.tolist() == [5, 3, 1]
    assert ratings.item_index.tolist() == [0, 1, 0]
    assert catalogue.tags == (((0, 0, "toys"), (1, 0, "toys"), (1, 0, "old: and good")) if has_tags else ())


def test_a_text_over_fields_that_films_do_not_have_is_refused(tmp_path):
    _write_latest(tmp_path)
    with pytest.raises(
        UserError, match=r"title, genres, year, tags, and text '\{overview\}' names overview: give a texts"
    ):
        read_movielens(tmp_path, None)


CASES = Path(__file__).parent / "cases" / "ratings"


def _case(name):
    return read_movielens(CASES / name, CASES / name / "texts.csv")


def test_stored_cases():
    with pytest.raises(UserError, match="237 of 490 ratings are outside of the scale 0.5 to 5, from 6.0 to 10.0"):
        _case("scale-1-to-10")
    expected = json.loads((CASES / "number-with-underscore" / "expected.json").read_text())
    catalogue, report = _case("number-with-underscore")
    assert len(catalogue.ratings) == expected["good_rows"]
    assert [row.line for row in report.bad_rows] == expected["bad_lines"]
    catalogue, report = _case("unreadable-timestamp")
    expected = json.loads((CASES / "unreadable-timestamp" / "expected.json").read_text())
    assert len(catalogue.ratings) == expected["good_rows"] and not report.bad_rows
    assert [row.reason for row in report.doubtful] and "kept" in report.summary(3)
    with pytest.raises(UserError) as caught:
        _case("colour-codes-in-header")
    for said in (str(caught.value), _case("colour-codes-in-row")[1].summary(3)):
        assert "\x1b" not in said and r"\x1b[31m" in said


def test_real_folder(eagle_data):
    folder = eagle_data / "ml-latest-small"
    catalogue, report = read_movielens(folder, folder / "texts.csv")
    assert len(catalogue.entities) == catalogue.ratings.num_items == 7073
    assert catalogue.entities[0].fields["genres"] == "Adventure, Animation, Children, Comedy, Fantasy"
    assert len(catalogue.ratings) == 96171 and report.num_ratings_without_text == 100836 - 96171
    assert catalogue.ratings.num_users == 610 and not report.bad_rows
    assert len(catalogue.tags) + report.num_tags_without_text == 3683
    assert catalogue.entities[0].title == "Toy Story (1995)"
    for text in catalogue.descriptions:
        assert parse_blocks(text, MOVIE.blocks, may_be_empty=True)["PLOT"]
