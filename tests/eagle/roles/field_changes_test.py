"""What instructions change in a text's fields: by the list, at an accepted answer alone, refused by line."""

import dataclasses

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.film_fields import parse_film_fields
from eagle_jax.data.prompts import COMPACT, MOVIE, parse_blocks, render_blocks
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.eagle.roles.field_changes import read_field_changes
from eagle_jax.eagle.roles.listed_actions import read_actions_file
from eagle_jax.eagle.roles.rewrite_formats import RewriteSettings
from eagle_jax.language_model.generation import ScriptedGenerator
from tests.eagle.roles.rewrite_formats_test import SAMPLING

CHANGES = read_field_changes("", MOVIE)
PLOT = "Genres: Comedy. Year: 2001. Plot: A dog runs away from a farm."
TEXT = render_blocks({"PLOT": PLOT, "REASONS_TO_LIKE": "", "REASONS_TO_DISLIKE": ""})
ANSWER = "In this western, a sheriff rides out with the children to find him."
WESTERN = "Make it a western."


def environment(answer, changes):
    return LLMEnvironment(
        generator=ScriptedGenerator(lambda prompt, rng: answer),
        book=COMPACT,
        entity_format=MOVIE,
        sampling=SAMPLING,
        rewriting=RewriteSettings(format="edit", max_tries=2),
        field_changes=changes,
    )


def test_the_list_names_its_own_actions_and_what_each_kind_changes():
    kinds = {action: kind for kind, action in read_actions_file("", MOVIE)}
    assert CHANGES.keys() <= kinds.keys()
    for action, kind in kinds.items():
        change = CHANGES.get(action)
        if kind == "genre":
            assert change.year is None and change.more + change.less
        elif kind == "era":
            assert str(change.year)[:3] + "0s" in action and not change.more + change.less
        elif change is not None:
            assert change.year is None and change.more and not change.less


def test_an_accepted_answer_changes_its_fields_and_a_refused_one_nothing():
    (step,) = environment(ANSWER, CHANGES).step([TEXT], [WESTERN], 0)
    assert parse_film_fields(step.description)[:2] == (("Comedy", "Western"), 2001)
    (plain,) = environment(ANSWER, {}).step([TEXT], [WESTERN], 0)
    assert plain == dataclasses.replace(step, description=step.description.replace("Comedy, Western", "Comedy"))
    assert parse_blocks(plain.description, MOVIE.blocks, may_be_empty=True)["PLOT"] == f"{PLOT} {ANSWER}"
    (refused,) = environment("No.", CHANGES).step([TEXT], [WESTERN], 0)
    assert refused.description == TEXT and refused.malformed
    (unlisted,) = environment(ANSWER, CHANGES).step([TEXT], ["Make it a western with horses."], 0)
    assert parse_film_fields(unlisted.description).genres == ("Comedy",)


@pytest.mark.parametrize(
    "cells, message", [("Western,", "line 3: genres: expected"), (",1750", "line 3: year: expected")]
)
def test_what_is_no_change_is_refused_by_line(tmp_path, cells, message):
    path = tmp_path / "mine.csv"
    path.write_text(f"kind,action,genres,year\ngenre,One.,+War,1935\ngenre,Two.,{cells}\n")
    with pytest.raises(UserError, match=message):
        read_field_changes(str(path), MOVIE)
    path.write_text("kind,action\ngenre,One.\n")
    assert read_field_changes(str(path), MOVIE) == {}
