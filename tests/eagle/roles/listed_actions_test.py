"""The list of actions: the package's own, another one, and what is wrong with a file."""

import dataclasses
from collections import Counter

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.prompts import MOVIE, PRODUCT
from eagle_jax.eagle.candidate_stage import run_candidate_stage
from eagle_jax.eagle.roles.chat_words import SENTENCE, answer_start
from eagle_jax.eagle.roles.listed_actions import ActionList, ListedActionSettings, read_actions_file
from eagle_jax.language_model.generation import ScriptedGenerator
from tests.eagle.candidate_stage_test import SETTINGS, played_by, propose_anything, rewrite_by_grammar

OWN = ListedActionSettings(file="", num_candidates=5)


def test_the_packages_list_has_some_sixty_instructions_of_seven_kinds():
    actions = read_actions_file("", MOVIE)
    kinds = Counter(kind for kind, _ in actions)
    assert list(kinds) == ["genre", "period", "era", "place", "tone", "people", "plot"] and min(kinds.values()) >= 5
    assert 55 <= len(actions) <= 65
    # An edit knows how to begin for all of them.
    assert [action for _, action in actions if not answer_start(SENTENCE, action)] == []


def test_draws_are_distinct_of_the_list_and_follow_from_the_seed():
    listed = ActionList.read(OWN, MOVIE)
    drawn = [listed.draw(seed) for seed in range(80)]
    assert all(len(set(one)) == 5 for one in drawn) and listed.draw(3) == drawn[3]
    assert {pair for one in drawn for pair in one} == set(listed.actions)  # 400 draws of 59
    assert ActionList.read(None, PRODUCT).draw(0) == []


@pytest.mark.parametrize(
    "text, message",
    [
        ("kind,action\nplace,Set it in Rome.\nplace, Set it in  Rome.\n", "line 3: expected an action that no line"),
        ("kind,action\nplace,\n", "line 2: expected an action"),
        ("kind,action\nplace,Set #BEGIN_PLOT it.\n", "line 2: marker_in_text"),
        ("kind,text\nplace,Set it in Rome.\n", "action"),
    ],
)
def test_what_is_no_list_is_refused_by_line(tmp_path, text, message):
    path = tmp_path / "actions.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_actions_file(str(path), MOVIE)
    assert "actions.csv" in str(caught.value)


def test_a_list_that_is_missing_or_too_short_is_said(tmp_path):
    with pytest.raises(UserError, match="no list of actions for a product, so name a CSV"):
        ActionList.read(OWN, PRODUCT)
    with pytest.raises(UserError, match="nowhere.csv is not there"):
        read_actions_file(str(tmp_path / "nowhere.csv"), MOVIE)
    (tmp_path / "two.csv").write_text("kind,action\nplace,Set it in Rome.\ntone,Make it gay.\n")
    with pytest.raises(UserError, match="num_candidates is 5, but the list has 2"):
        ActionList.read(dataclasses.replace(OWN, file=str(tmp_path / "two.csv")), PRODUCT)


def test_listed_candidates_stand_behind_those_of_the_generator(tmp_path, world):
    (tmp_path / "mine.csv").write_text("kind,action\ntone,make the mood grim.\ntone,make the mood warm.\n")

    def run(listed):
        stage = StageFolder(tmp_path / str(listed) / "candidates", {})
        played = played_by(world, ScriptedGenerator(rewrite_by_grammar))
        sets = run_candidate_stage(stage, played, ScriptedGenerator(propose_anything), SETTINGS, 5, listed)
        return sets, stage.read_jsonl("candidates.jsonl")

    without, _ = run(None)
    sets, rows = run(ListedActionSettings(file=str(tmp_path / "mine.csv"), num_candidates=2))
    for before, made, row in zip(without, sets, rows, strict=True):
        assert made.actions[:20] == before.actions
        assert sorted(made.actions[20:]) == ["make the mood grim.", "make the mood warm."]
        assert {one["category"] for one in row["candidates"][20:]} == {"tone"}
        assert made.is_valid[20:].all() and len(made.next_embeddings) == 22
