"""A small folder in MovieLens' layout with faults in every file, and the real one."""

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.movielens import read_movielens
from eagle_jax.data.prompts import MOVIE, parse_blocks

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
    assert (report.num_films, report.num_films_without_text) == (4, 2)
    assert (report.num_ratings, report.num_ratings_without_text) == (6, 3)
    assert report.num_tags_without_text == 2  # of film 2, and of user b who rated only film 2
    assert [(bad.file, bad.line, bad.reason) for bad in report.bad_rows] == [
        ("movies.csv", 5, "movieId repeated: 3"),
        ("texts.csv", 6, "marker_in_text: #END_PLOT inside the text of PLOT"),
        ("ratings.csv", 6, "unknown movieId: 9"),
        ("tags.csv", 4, "user without ratings: z"),
        ("tags.csv", 5, "unknown movieId: 77"),
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
        ({"texts.csv": "movieId,overview\n1,\n"}, "no film of .*movies.csv has an overview there"),
        ({"texts.csv": "movieId,plot\n1,x\n"}, "texts.csv: line 1: no column overview"),
        (
            {"texts.csv": "movieId,overview\n4,x\n", "ratings.csv": "userId,movieId,rating\na,1,4\n"},
            "no rating of a film with text",
        ),
        ({"movies.csv": "movieId,title\n"}, "movies.csv: no film left"),
    ],
)
def test_nothing_left_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        read_movielens(*_write(tmp_path, **changes))


def test_real_folder(eagle_data):
    folder = eagle_data / "ml-latest-small"
    catalogue, report = read_movielens(folder, folder / "texts.csv")
    assert len(catalogue.entities) == catalogue.ratings.num_items == 7073
    assert len(catalogue.ratings) == 96171 and report.num_ratings_without_text == 100836 - 96171
    assert catalogue.ratings.num_users == 610 and not report.bad_rows
    assert len(catalogue.tags) + report.num_tags_without_text == 3683
    assert catalogue.entities[0].title == "Toy Story (1995)"
    for text in catalogue.descriptions:
        assert parse_blocks(text, MOVIE.blocks, may_be_empty=True)["PLOT"]
