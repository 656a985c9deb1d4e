"""Proposals on disk: whole or not at all, the same after an interruption, in every form the same."""

import csv
import dataclasses
import json

import pyarrow.parquet
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.eagle.serving.files import check_target, write_proposals
from eagle_jax.eagle.serving.requests import asked_items, asked_users
from eagle_jax.language_model.generation import ScriptedGenerator
from tests.same_run import Interrupted


@pytest.fixture(scope="module")
def pairs(agent):
    return agent.pairs(None, None)


def rows(path):
    return [json.loads(line) | {"seconds": 0} for line in path.read_text().splitlines()]


def test_a_file_has_what_python_gets_and_nothing_is_left_beside_it(agent, pairs, tmp_path):
    out = tmp_path / "proposals.jsonl"
    summary = write_proposals(agent, pairs, 4, 3, out)
    expected = [json.loads(json.dumps(one.to_json())) | {"seconds": 0} for one in agent.propose(num=4, seed=3)]
    assert rows(out) == expected
    assert summary == json.loads((tmp_path / "proposals.jsonl.summary.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["proposals.jsonl", "proposals.jsonl.summary.json"]
    assert summary["num_proposals"] == len(expected) and summary["agent"] == "agent_stub_0"
    for name, key in (("left_anchor_share", "left_anchor"), ("unchanged_share", "unchanged")):
        assert summary[name] == pytest.approx(sum(row[key] for row in expected) / len(expected))
    assert summary["environment_calls"] == sum(row["environment_calls"] for row in expected)
    assert summary["num_tokens"] is None  # scripts count none
    with pytest.raises(UserError, match="proposals.jsonl: is there already; remove it or name another file"):
        write_proposals(agent, pairs, 4, 3, out)


def watched(agent, stop_at=None):
    """The agent and what its policy is asked, which ends in an interruption after so many prompts."""
    asked = []

    def act(prompt, rng):
        if len(asked) == stop_at:
            raise Interrupted
        asked.append(prompt)
        return agent.policy.fn(prompt, rng)

    return dataclasses.replace(agent, policy=ScriptedGenerator(act, agent.policy.name)), asked


def test_an_interrupted_command_goes_on_and_ends_with_the_same_file(agent, pairs, tmp_path):
    write_proposals(agent, pairs, 4, 3, tmp_path / "whole.jsonl")
    out = tmp_path / "proposals.jsonl"
    stopped, first = watched(agent, 3 * 4)
    with pytest.raises(Interrupted):
        write_proposals(stopped, pairs, 4, 3, out)
    assert not out.exists() and (tmp_path / "proposals.jsonl.parts").is_dir()
    with pytest.raises(UserError, match="seed: 3 there, 4 now"):
        write_proposals(agent, pairs, 4, 4, out)
    resumed, then = watched(agent)
    write_proposals(resumed, pairs, 4, 3, out)
    # A batch is one pair: its 4 episodes, asked twice. The second batch was stopped half way.
    assert (len(pairs), len(first), len(then)) == (3, 3 * 4, 2 * 2 * 4)
    assert rows(out) == rows(tmp_path / "whole.jsonl")
    assert not (tmp_path / "proposals.jsonl.parts").exists()


@pytest.mark.parametrize("end", [".csv", ".parquet"])
def test_tables_have_the_same_numbers(agent, pairs, tmp_path, end):
    out, plain = tmp_path / f"proposals{end}", tmp_path / "proposals.jsonl"
    for path in (out, plain):
        write_proposals(agent, pairs, 2, 0, path)
    if end == ".csv":
        table = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    else:
        table = pyarrow.parquet.read_table(out).to_pylist()
    expected = rows(plain)
    assert len(table) == len(expected)
    for row, one in zip(table, expected, strict=True):
        for name in ("item_id", "title", "user_id", "text"):
            assert row[name] == one[name]
        for name in ("rank", "predicted_rating", "rating_low", "nearer_share", "environment_calls"):
            assert float(row[name]) == one[name]
        for encoder in ("train", "held_out"):
            assert float(row[f"{encoder}_utility"]) == one["utility"][encoder]["utility"]
            assert float(row[f"{encoder}_user_term"]) == one["utility"][encoder]["user_term"]
            assert float(row[f"{encoder}_gain"]) == one["gain"][encoder]
        for name in ("steps", "nearest", "malformed"):
            assert json.loads(row[name]) == one[name]
        assert str(row["left_anchor"]) == str(one["left_anchor"])
        assert (row["near_copy_of"] or None) == one["near_copy_of"]
        assert (row["num_tokens"] or None) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("proposals.txt", "must end in one of .jsonl, .csv, .parquet"),
        ("absent/proposals.csv", "absent: there is no such folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_at_once(tmp_path, name, said):
    with pytest.raises(UserError, match=said):
        check_target(tmp_path / name)


def test_items_and_users_are_read_from_lists_and_files(agent, tmp_path):
    film, other = agent.catalogue.entities[:2]
    assert asked_items(agent, f"{film.entity_id}, {other.entity_id}") == [film.entity_id, other.entity_id]
    (tmp_path / "items.txt").write_text(f"{film.entity_id}\n\n{other.description}\n")
    known, new = asked_items(agent, str(tmp_path / "items.txt"))
    assert known == film.entity_id
    assert (new.entity_id, new.title, new.description) == ("items.txt:3", "", other.description)
    lines = [{"item_id": film.entity_id}, {"text": other.description, "title": "Mine", "item_id": "m1"}]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    known, new = asked_items(agent, str(tmp_path / "items.jsonl"))
    assert (known, new.entity_id, new.title) == (film.entity_id, "m1", "Mine")

    ratings = {film.entity_id: 5, other.entity_id: 1.0}
    lines = [{"user_id": "u3"}, {"ratings": ratings}, {"ratings": ratings, "profile": "mine", "user_id": "me"}]
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    known, written, given = asked_users(agent, str(tmp_path / "users.jsonl"), 0)
    assert (known, written.user_id, given.user_id, given.profile) == ("u3", "users.jsonl:2", "me", "mine")
    assert written.profile == f"loves {film.title} and not {other.title}"
    assert (written.embedding == given.embedding).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "line 1: is no JSON"),
        ("3", "line 1: an object was expected, got int"),
        ('{"text": "x"}', "item 'x.jsonl:1': the text cannot be read: missing_block"),
        ('{"id": "x"}', "x.jsonl:1: unknown key 'id'; allowed are: item_id, text, title"),
        ('{"item_id": 3}', "x.jsonl:1: item_id must be of type str, got 3"),
        ('{"title": "x"}', "x.jsonl:1: needs item_id or text"),
    ],
)
def test_a_file_of_items_is_refused_by_its_line(agent, tmp_path, content, said):
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        asked_items(agent, str(path))
    with pytest.raises(UserError, match="y.txt: there is no such file"):
        asked_items(agent, str(tmp_path / "y.txt"))
