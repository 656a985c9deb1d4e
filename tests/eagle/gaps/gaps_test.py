"""From an agent's catalogue to regions with users, items and texts by name, and the page on them."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.eagle.gaps import run
from eagle_jax.eagle.gaps.command import gaps
from eagle_jax.eagle.gaps.gaps import find_gaps
from eagle_jax.eagle.gaps.report import gap_sentences, make_gaps_report
from eagle_jax.eagle.gaps.run import imagine, write_gaps
from eagle_jax.eagle.gaps.settings import GapSettings, WalkSettings
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN
from eagle_jax.reports.results import read_tables
from tests.scripted_agent import WORDS

SETTINGS = GapSettings(num_centers=80, num_draws=49, num_groups=4, num_regions=5)
WALK = WalkSettings(num_walks=150, num_steps=2, instructions_per_step=1)


@pytest.fixture(scope="module")
def texts(agent, tmp_path_factory):
    told = dataclasses.replace(agent, instructions=[f"bring in the {word}." for word in WORDS[:5]])
    return imagine(told, tmp_path_factory.mktemp("gaps"), WALK, 0, None)


@pytest.fixture(scope="module")
def found(agent, texts):
    return find_gaps(agent.catalogue, agent.scorers, texts, SETTINGS)


def test_regions_come_in_their_order_each_with_a_text_that_was_imagined(found, texts):
    assert [gap.rank for gap in found] == list(range(1, len(found) + 1)) and 2 <= len(found) <= 5
    assert all(one.excess >= other.excess for one, other in zip(found, found[1:], strict=False))
    for gap in found:
        assert gap.unmet == pytest.approx(gap.demand - gap.supply) and gap.unmet > 0
        assert gap.text in texts and gap.is_told_apart == (gap.chance <= SETTINGS.level)


def test_what_is_unmet_is_shared_out_among_all_users(agent, found):
    """The mean over groups, by their users, is that of the region."""
    names, num_users = agent.catalogue.ratings.user_names, len(agent.scorers[TRAIN].user_embeddings)
    titles = {entity.title for entity in agent.catalogue.entities}
    for gap in found:
        assert sum(group["num_users"] for group in gap.groups) == num_users
        total = sum(group["num_users"] * group["unmet"] for group in gap.groups)
        assert total / num_users == pytest.approx(gap.unmet, rel=1e-4)
        assert gap.groups[0]["unmet"] > 0 and set(gap.users) <= set(names)
        assert all(set(group["likes"]) <= titles for group in gap.groups)


def test_nearest_items_are_those_whose_predicted_ratings_differ_least(agent, found):
    scorer = agent.scorers[TRAIN]
    users, items = np.float64(scorer.user_embeddings), np.float64(scorer.catalogue_embeddings)
    for gap in found[:2]:
        (text,) = np.float64(scorer.embed([gap.text]))
        apart = np.sqrt(np.mean((users @ (items - text).T) ** 2, axis=0))
        order = np.argsort(apart, kind="stable")[: len(gap.nearest)]
        assert [one["distance"] for one in gap.nearest] == pytest.approx(apart[order].tolist(), rel=1e-4, abs=1e-5)
        assert {one["item_id"] for one in gap.nearest} <= {entity.entity_id for entity in agent.catalogue.entities}
        for encoder in (TRAIN, HELD_OUT):
            assert 0 <= gap.better_than[encoder] <= 1


def test_the_files_and_the_page_say_the_same(agent, found, texts, tmp_path):
    write_gaps(found, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "gaps.jsonl").read_text().splitlines()]
    assert rows == json.loads(json.dumps([gap.to_json() for gap in found]))
    with (tmp_path / "gaps.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [json.loads(row["nearest"]) for row in table] == [row["nearest"] for row in rows]
    assert [float(row["unmet"]) for row in table] == [row["unmet"] for row in rows]
    page, source = make_gaps_report(tmp_path, agent.catalogue, found, len(texts), SETTINGS, WALK)
    regions = next(one for one in read_tables(source.read_text()) if one["section"] == "Regions")
    assert [row[regions["columns"].index("Unmet demand")] for row in regions["rows"]] == [
        f"{row['unmet']:.2f}" for row in rows
    ]
    told = page.read_text()
    assert f'<h2 id="region-{len(rows)}">' in told and rows[0]["nearest"][0]["title"] in told


def test_a_catalogue_where_nothing_is_told_apart_is_said_to_lack_nothing(found):
    alike = [dataclasses.replace(gap, chance=0.4, is_told_apart=False) for gap in found]
    assert gap_sentences(alike, SETTINGS) == [
        "No gap is told apart from chance, the largest as often as in 40 % of complete catalogues."
    ]
    assert gap_sentences([], SETTINGS) == ["No gap is told apart from chance."]
    apart = [
        dataclasses.replace(found[0], chance=0.02, is_told_apart=True, demand=9, supply=4.04, found=7, expected=15.2)
    ]
    assert gap_sentences([*apart, *alike[1:2]], SETTINGS) == [
        "1 of the 2 regions told below lack more than 95 % of complete catalogues do anywhere.",
        "The largest gap: 9.0 items that the mean user would want and 4.0 that are there; 7 items where 15 would be.",
    ]


def test_without_an_action_that_could_be_applied_a_list_is_asked_for(agent, tmp_path):
    with pytest.raises(UserError, match="name a list by --instructions"):
        imagine(agent, tmp_path, WALK, 0, None)
    with pytest.raises(UserError, match="no genres and year"):
        imagine(agent, tmp_path, None, 0, None)


def test_the_command_says_what_it_found_and_goes_on_from_its_walks(agent, tmp_path, monkeypatch, capsys):
    told = dataclasses.replace(agent, instructions=[f"bring in the {word}." for word in WORDS[:5]])
    monkeypatch.setattr(run, "load_agent", lambda workdir: told)
    flags = [f"--workdir={tmp_path}", "--walks=40", "--steps=2", "--told_at_once=1", "--regions=3", "--groups=2"]
    gaps(flags)
    first, rows = capsys.readouterr().out, (tmp_path / "gaps" / "gaps.jsonl").read_text()
    assert first.splitlines()[-1] == f"report: {tmp_path / 'gaps' / 'report.html'}"
    assert 1 <= len(rows.splitlines()) <= 3
    before = told.environment.num_calls
    gaps(flags)
    assert capsys.readouterr().out == first and (tmp_path / "gaps" / "gaps.jsonl").read_text() == rows
    assert told.environment.num_calls == before
    with pytest.raises(UserError, match="made with other settings: num_walks"):
        gaps([*flags, "--walks=41"])
