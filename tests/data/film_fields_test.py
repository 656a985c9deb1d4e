"""Fields of a film's text: read back as written, by readers and by models that write loosely."""

import pytest

from eagle_jax.data.film_fields import (
    GENRES,
    TEMPLATE,
    FieldChange,
    FilmFields,
    field_edits,
    parse_film_fields,
    with_fields_of,
)
from eagle_jax.data.prompts import render_blocks
from eagle_jax.data.readers.items import fill_template
from eagle_jax.data.readers.movielens import read_movielens

PLOT = "Year after year: a man. Plot: none."


@pytest.mark.parametrize("genres", [(), ("Comedy",), GENRES])
@pytest.mark.parametrize("year", [None, 1902, 2018])
def test_what_readers_write_is_read_back_in_blocks_too(genres, year):
    told = {"genres": ", ".join(genres), "year": "" if year is None else str(year), "overview": PLOT}
    text, fields = fill_template(TEMPLATE, told), FilmFields(genres, year, PLOT)
    assert parse_film_fields(text) == fields
    assert parse_film_fields(render_blocks({"PLOT": text, "REASONS_TO_LIKE": ""})) == fields


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (PLOT, ((), None, PLOT)),
        ("Plot: " + PLOT, ((), None, PLOT)),
        ("genre: Science Fiction / film noir, Melodrama. A spy.", (("Film-Noir", "Sci-Fi"), None, "A spy.")),
        ("Genres: Comedy and Romance Year: the 1990s Plot: A spy.", (("Comedy", "Romance"), None, "A spy.")),
        ("Genres: Drama.\nYear: (1995).\n\nPlot: A  spy.", (("Drama",), 1995, "A spy.")),
        ("Year: 3021. Plot: A spy.", ((), None, "A spy.")),
        ("A spy. Genres: Drama. Year: 1995.", ((), None, "A spy. Genres: Drama. Year: 1995.")),
        ("#BEGIN_PLOT #END_PLOT", ((), None, "")),
    ],
)
def test_loose_texts(text, fields):
    assert parse_film_fields(text) == fields


def test_a_bracket_goes_with_its_fields_and_a_text_with_those_outside():
    template = "[By {author}, {year}. ]{plot}[ [sic]]"
    assert fill_template(template, {"author": "A", "year": "1", "plot": "P"}) == "By A, 1. P[ [sic]]"
    assert fill_template(template, {"author": "A", "plot": "P"}) == "P[ [sic]]"
    assert fill_template(template, {"author": "A", "year": "1"}) == ""
    assert fill_template("[{a}][{b}]", {"a": "x"}) == "x"


def test_every_real_film_is_read_back(eagle_data):
    folder = eagle_data / "ml-latest-small"
    catalogue, _ = read_movielens(folder, folder / "texts.csv", TEMPLATE)
    assert len(catalogue.entities) == 7073  # as with the overview alone
    without_genre = 0
    for entity in catalogue.entities:
        fields = parse_film_fields(entity.description)
        assert sorted(fields.genres) == sorted(filter(None, entity.fields["genres"].split(", ")))
        assert str(fields.year or "") == entity.fields["year"]
        assert fields.plot == " ".join(entity.fields["overview"].split())
        without_genre += not fields.genres
    assert 0 < without_genre < 50


def test_a_change_by_rule_changes_one_field_and_nothing_else():
    told = {"genres": "War, Drama", "year": "1954", "overview": PLOT}
    text = render_blocks({"PLOT": fill_template(TEMPLATE, told), "REASONS_TO_LIKE": "its sets."})
    before, edits = parse_film_fields(text), field_edits(text)
    assert len(edits) == len(GENRES) + 9  # ten decades from the 1920s on, but for its own
    assert parse_film_fields(edits["also Western"]) == before._replace(genres=("Drama", "War", "Western"))
    assert parse_film_fields(edits["no longer War"]) == before._replace(genres=("Drama",))
    assert parse_film_fields(edits["of the 2010s"]) == before._replace(year=2015)
    assert "of the 1950s" not in edits
    for edit in edits.values():
        after = parse_film_fields(edit)
        assert (after.genres != before.genres) + (after.year != before.year) == 1
        assert edit.endswith(text[text.index(PLOT) :])  # the other blocks too


def test_a_last_genre_stays_and_texts_without_fields_have_no_such_changes():
    edits = field_edits(fill_template(TEMPLATE, {"genres": "War", "year": "", "overview": PLOT}))
    assert len(edits) == len(GENRES) - 1 and "no longer War" not in edits
    assert field_edits(PLOT) == field_edits(f"Year: 1954. Plot: {PLOT}") == {}


def test_a_text_takes_the_fields_of_another_and_keeps_its_plot():
    anchor, other = ("Genres: War. Year: 1954. Plot: A.", "Genres: Comedy, Drama. Year: 2001. Plot: B.")
    assert with_fields_of(anchor, other) == "Genres: War. Year: 1954. Plot: B."
    for edit in field_edits(anchor).values():
        assert edit != anchor and with_fields_of(anchor, edit) == anchor
    assert with_fields_of(anchor, "Genres: Comedy. Plot: B.") == "Genres: War. Plot: B."  # what it has not stays so
    assert with_fields_of("A.", other) == other and with_fields_of(anchor, "B.") == "B."


def test_an_instruction_changes_the_genres_and_the_year_that_it_names():
    text = render_blocks({"PLOT": "Genres: War, Drama. Year: 1954. Plot: A man.", "REASONS_TO_LIKE": "it."})
    more = FieldChange.parse("+Western -War", "")
    assert more(text) == text.replace("War, Drama", "Drama, Western") and more(more(text)) == more(text)
    assert FieldChange.parse("", "1935")(text) == text.replace("1954", "1935")  # and the genres as they were written
    assert FieldChange.parse("-War -Drama", "")(text) == text  # one is left
    assert FieldChange.parse("+War", "")(text) == text
    assert FieldChange.parse("+Western", "1935")("A man.") == "A man."


@pytest.mark.parametrize(
    "genres, year, message",
    [
        ("Western", "", "got 'Western'"),
        ("+Noir", "", "got '\\+Noir'"),
        ("", "35", "got '35'"),
        ("", "1935 ", "'1935 '"),
    ],
)
def test_what_is_no_change_of_fields_is_refused(genres, year, message):
    with pytest.raises(ValueError, match=message):
        FieldChange.parse(genres, year)
