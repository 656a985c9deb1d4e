"""What the page of `eagle-jax explore` asks for of the episodes that the run's evaluation has played."""

import csv
import io

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the pages need starlette: pip install 'eagle_jax[pages]'")

from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN
from eagle_jax.language_model.generation import ScriptedGenerator
from eagle_jax.pages.explored_run import explored_run
from tests.pages.explore_site_test import asks_for_glaciers, open_site
from tests.pages.played_run import EAGLE_ROW, REFERENCE_ROW, played


@pytest.fixture(scope="module")
def evaluated(agent, tmp_path_factory):
    """A site that shows what its evaluation has played, and the records of that."""
    episodes, records = played(agent, tmp_path_factory.mktemp("run"))
    run = explored_run(agent, ScriptedGenerator(asks_for_glaciers, "reference"), seed=3, played=episodes)
    return open_site(run), run, records


def best_of_row(records, row):
    """Of these episodes the one of largest gain, as the list begins."""
    return max(records[row], key=lambda one: one.scores[TRAIN][-1]["utility"] - one.scores[TRAIN][0]["utility"])


def test_the_rows_of_the_evaluation_are_listed_with_their_episodes(evaluated, agent):
    client, _, records = evaluated
    assert 'id="evaluated-row"' in client.get("/").text
    assert client.get("/evaluated").json() == ["anchor", EAGLE_ROW, REFERENCE_ROW]
    told = client.get("/evaluated/1").json()
    best = best_of_row(records, EAGLE_ROW)
    names = agent.catalogue.item_names(best.entity_index) | agent.catalogue.user_names(best.user_index)
    assert len(told) == 6 and {name: told[0][name] for name in names} == names
    assert [one["gain"] for one in told] == sorted((one["gain"] for one in told), reverse=True)
    assert (client.get("/evaluated/3").status_code, client.get("/evaluated/1/6").status_code) == (404, 400)


def test_an_episode_of_the_evaluation_is_told_step_by_step_with_its_own_numbers(evaluated, agent):
    client, run, records = evaluated
    told, record = client.get("/evaluated/1/0").json(), best_of_row(records, EAGLE_ROW)
    assert (told["row"], told["seed"], told["user"]["profile"]) == (EAGLE_ROW, record.seed, record.profile)
    assert [text["action"] for text in told["texts"]] == [None, *(step.action for step in record.steps)]
    for number, text in enumerate(told["texts"]):
        before = max(0, number - 1)
        for encoder in (TRAIN, HELD_OUT):
            scores = [record.scores[encoder][place]["utility"] for place in (before, number)]
            assert text["terms"][0]["values"][encoder] == pytest.approx(scores)
    np.testing.assert_allclose(told["texts"][0]["position"], run.positions["items"][record.entity_index], atol=1e-5)
    new = [word for text in told["texts"][1:] for kind, word in text["words"] if kind == "new"]
    assert new == [step.action.split()[-1] for step in record.steps if step.malformed is None]
    # Of a rewriting that could not be read it says so, and the anchors took no step.
    refused = client.get("/evaluated/2/0").json()["texts"]
    assert all("could not be read" in text["malformed"] for text in refused[1:]) and len(refused) == 3
    assert len(client.get("/evaluated/0/0").json()["texts"]) == 1


def test_the_export_has_the_episodes_that_are_shown_with_and_without_an_exploration(evaluated, agent):
    client, _, records = evaluated
    record = best_of_row(records, EAGLE_ROW)
    alone = client.get("/export/evaluated.json?evaluated=1.0&evaluated=2.1").json()
    assert [one["row"] for one in alone["evaluated"]] == [EAGLE_ROW, REFERENCE_ROW] and "texts" not in alone
    assert [text["text"] for text in alone["evaluated"][0]["texts"]] == [
        record.anchor,
        *(step.description for step in record.steps),
    ]
    name = client.post("/begin", data=dict(zip(("item", "user"), agent.evaluated[0], strict=True))).json()["name"]
    both = client.get(f"/export/{name}.json?evaluated=1.0").json()
    assert len(both["texts"]) == 1 and both["evaluated"] == alone["evaluated"][:1]
    lines = list(csv.DictReader(io.StringIO(client.get(f"/export/{name}.csv?evaluated=1.0").text)))
    assert [(line["row"], line["number"]) for line in lines] == [("", "0"), *((EAGLE_ROW, str(n)) for n in range(3))]
    assert float(lines[-1]["train_utility"]) == pytest.approx(record.scores[TRAIN][-1]["utility"])
    for wrong, status in (("1.x", 400), ("1", 400), ("9.0", 404), ("1.99", 400)):
        assert client.get(f"/export/evaluated.json?evaluated={wrong}").status_code == status
    assert client.get("/export/evaluated.json").status_code == 404


def test_a_run_whose_evaluation_is_not_shown_has_no_list(agent):
    client = open_site(explored_run(agent, ScriptedGenerator(asks_for_glaciers, "reference"), seed=3))
    assert "evaluated-row" not in client.get("/").text
    assert client.get("/evaluated").json() == [] and client.get("/evaluated/0").status_code == 404
