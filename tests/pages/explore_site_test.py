"""What the page of `eagle-jax explore` asks for: the map, searches, instructions, the agent, the export."""

import csv
import dataclasses
import io
import json
import re

import numpy as np
import pytest

starlette = pytest.importorskip("starlette", reason="the pages need starlette: pip install 'eagle_jax[pages]'")
from starlette.testclient import TestClient  # noqa: E402

from eagle_jax.base.errors import UserError  # noqa: E402
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN  # noqa: E402
from eagle_jax.language_model.generation import ScriptedGenerator  # noqa: E402
from eagle_jax.pages import explore_site  # noqa: E402
from eagle_jax.pages.explore_site import ExploreSite  # noqa: E402
from eagle_jax.pages.explored_run import explored_run  # noqa: E402

HERE = "http://127.0.0.1:8000"
WICKED = "<img src=x onerror=alert(1)> <script>alert(1)</script> \u202egnihton"


def asks_for_glaciers(prompt, rng):
    return "bring in the glacier."


@pytest.fixture(scope="module")
def run(agent):
    return explored_run(agent, ScriptedGenerator(asks_for_glaciers, "reference"), seed=3)


def open_site(run, token=""):
    return TestClient(ExploreSite(run=run, token=token).app(), base_url=HERE, headers={"Origin": HERE})


@pytest.fixture
def client(run):
    return open_site(run)


@pytest.fixture
def begun(client, agent):
    """What the page is told of the first evaluated pair."""
    item_id, user_id = agent.evaluated[0]
    return client.post("/begin", data={"item": item_id, "user": user_id}).json()


@pytest.fixture
def step(client, begun):
    def send(instruction="", before=0, by="you", **fields):
        data = {"name": begun["name"], "before": before, "by": by, "instruction": instruction, **fields}
        return client.post("/step", data=data)

    return send


def utilities(agent, text, user_id):
    """Encoder -> U and its terms of a text for a user, by the run's own scorers."""
    embedding = agent.users.find(user_id).embedding[None]
    found = {}
    for encoder, scorer in agent.judging(embedding).scorers.items():
        terms = scorer.terms(scorer.embed([text]), np.array([0]))
        found[encoder] = {name: float(values[0]) for name, values in terms._asdict().items() if values is not None}
    return found


def test_the_page_names_the_run_and_runs_nothing_but_its_own_files(client, agent):
    page = client.get("/")
    assert page.status_code == 200 and "120 items and 40 users of minilens" in page.text
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page.text)
    assert scripts == [""] and 'src="/explore.js"' in page.text
    assert not re.findall(r" (?:on\w+|style)=", page.text)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'; connect-src 'self'" in policy
    assert "unsafe" not in policy
    item_id, user_id = agent.evaluated[0]
    assert f'name="item" value="{item_id}"' in page.text and f'name="user" value="{user_id}"' in page.text
    named = set(re.findall(r'<label for="(.*?)"', page.text)) | {"items-id", "users-id"}
    assert set(re.findall(r'<(?:input|textarea)[^>]* id="((?!show)[^"]*)"', page.text)) == named
    for name in ("explore", "page", "map", "texts", "evaluated"):
        script = client.get(f"/{name}.js")
        assert script.headers["content-type"].startswith("text/javascript")
        assert not re.search(r"innerHTML|insertAdjacentHTML|outerHTML|eval\(|document\.write|https?://", script.text)


def test_the_map_is_sent_as_numbers_alone(client, run):
    for kind, positions in run.positions.items():
        sent = np.frombuffer(client.get(f"/positions/{kind}").content, "<f4").reshape(-1, 2)
        np.testing.assert_array_equal(sent, positions)


def test_items_and_users_are_found_and_told(client, run, agent):
    word = agent.item("f9").title.split()[0]
    found = client.get("/found/items", params={"words": word}).json()
    assert found["count"] >= len(found["found"]) > 0
    assert all(word in one["title"] for one in found["found"][:1])
    one = found["found"][0]
    told = client.get(f"/at/items/{one['place']}").json()
    assert (told["id"], told["title"]) == (one["id"], one["title"]) == (f"f{one['place']}", agent.item(one["id"]).title)
    assert told["words"][0] == ["label", "Plot"] and "#BEGIN" not in json.dumps(told)
    name = run.titles("users", 2)["id"]
    (user, *_) = client.get("/found/users", params={"words": name.upper()}).json()["found"]
    assert user["id"] == name and client.get(f"/at/users/{user['place']}").json()["id"] == name
    assert client.get("/found/items").json() == {"count": 0, "found": []}


def test_a_typed_instruction_changes_the_text_and_every_term_is_the_scorers_own(client, step, begun, agent):
    item_id, user_id = agent.evaluated[0]
    plot, others = agent.item(item_id).description.split(" #END_PLOT ")
    told = step("bring in the lantern.").json()
    assert (told["number"], told["before"], told["by"], told["environment_calls"]) == (1, 0, "you", 1)
    assert told["action"] == "bring in the lantern." and told["malformed"] is None
    # The scripted environment adds the instruction's last word to the plot.
    same = plot.removeprefix("#BEGIN_PLOT ")
    assert told["words"][:3] == [["label", "Plot"], ["same", same], ["new", "lantern."]]
    assert [kind for kind, _ in told["words"][3:]] == ["label", "same"] * 2
    texts = [f"{plot} #END_PLOT {others}", f"{plot} lantern. #END_PLOT {others}"]
    before, after = (utilities(agent, text, user_id) for text in texts)
    assert before[TRAIN]["utility"] != after[TRAIN]["utility"]
    names = ["utility", "user_term", "neighbor_distance_term", "common_part", "personal_part"]
    assert [line["heading"].split(",")[0] for line in told["terms"][:3]] == ["U", "User term", "Neighbor term"]
    for name, line in zip(names, told["terms"], strict=True):
        for encoder in (TRAIN, HELD_OUT):
            assert line["values"][encoder] == pytest.approx([before[encoder][name], after[encoder][name]], abs=1e-5)
    embedding = agent.scorers[TRAIN].embed([texts[1]])
    distances = np.linalg.norm(agent.scorers[TRAIN].catalogue_embeddings - embedding, axis=1)
    assert [near["item_id"] for near in told["nearest"]] == [f"f{place}" for place in np.argsort(distances)[:5]]
    assert begun["text"]["nearest"][0] == {"item_id": item_id, "title": agent.item(item_id).title, "distance": 0.0}


def test_the_place_of_a_text_is_on_the_map_of_the_items(run, begun, step, agent):
    place = int(agent.evaluated[0][0].removeprefix("f"))
    np.testing.assert_allclose(begun["text"]["position"], run.positions["items"][place], atol=1e-5)
    assert step("bring in the lantern.").json()["position"] != begun["text"]["position"]
    embedding = agent.users.find(agent.evaluated[0][1]).embedding
    # A small step there on the map changes <z_u, z> by as much as no other direction would.
    growth = np.array(begun["growth"])
    assert np.linalg.norm(growth) == pytest.approx(1)
    assert growth @ run.plane.axes @ embedding == pytest.approx(np.linalg.norm(run.plane.axes @ embedding), rel=1e-5)


def test_one_goes_on_from_any_text(step):
    assert step("bring in the lantern.").json()["number"] == 1
    second = step("bring in the orchard.", before=1).json()
    assert [text for kind, text in second["words"] if kind == "new"] == ["orchard."]
    assert "lantern." in second["words"][1][1]
    other = step("bring in the harvest.", before=0).json()
    assert (other["number"], other["before"]) == (3, 0) and "lantern" not in json.dumps(other["words"])


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        ("bring in the velvet.", "The environment’s answer could not be read (missing_block)"),
        ("end it #END_ACTION here", "The instruction could not be read (wrong_markers)"),
    ],
)
def test_what_could_not_be_rewritten_is_told(step, begun, instruction, said):
    told = step(instruction).json()
    assert told["malformed"] == f"{said}, so the text is as it was before."
    assert told["words"] == begun["text"]["words"] and told["position"] == begun["text"]["position"]
    assert all(before == after for line in told["terms"] for before, after in line["values"].values())


def test_the_agent_acts_step_by_step_and_the_same_seed_acts_alike(client, agent, run):
    def watched():
        site = open_site(run)
        name = site.post("/begin", data=dict(zip(("item", "user"), agent.evaluated[0], strict=True))).json()["name"]
        return [site.post("/step", data={"name": name, "before": before, "by": "agent"}).json() for before in range(4)]

    steps = watched()
    assert watched() == steps
    assert {told["by"] for told in steps} == {"agent"} and [told["before"] for told in steps] == [0, 1, 2, 3]
    assert len({told["action"] for told in steps}) > 1


def test_agent_reference_and_best_of_n_are_played_beside_each_other(client, begun, agent):
    def play(**fields):
        return client.post("/episode", data={"name": begun["name"], **fields}).json()

    one, best = play(by="agent"), play(by="agent", best_of=4)
    reference, best_reference = play(by="reference"), play(by="reference", best_of=4)
    assert reference["actions"] == ["bring in the glacier."] * agent.horizon
    assert (one["by"], one["best_of"], best["best_of"]) == ("agent", None, 4)
    assert len(one["actions"]) == agent.horizon == len(one["positions"]) - 1
    assert best["environment_calls"] > one["environment_calls"] and best_reference["environment_calls"] == 8
    reward = {name: told["text"]["terms"][0]["values"][TRAIN] for name, told in (("one", one), ("best", best))}
    assert reward["best"][1] >= max(reward["one"])  # the single episode and the item are among its texts
    assert [kind for kind, _ in reference["text"]["words"]].count("new") == 1
    assert play(by="agent", best_of=4) != best  # asked for again it draws anew


def test_half_surrogates_are_shown_and_taken_along(agent, run):
    odd = dataclasses.replace(agent.catalogue.entities[3], title="half \ud83d")
    entities = (*agent.catalogue.entities[:3], odd, *agent.catalogue.entities[4:])
    catalogue = dataclasses.replace(agent.catalogue, entities=entities)
    site = open_site(dataclasses.replace(run, agent=dataclasses.replace(agent, catalogue=catalogue)))
    told = site.post("/begin", data={"item": "f3", "user": agent.evaluated[0][1]}).json()
    assert told["item"]["title"] == "half \\ud83d"
    assert site.get(f"/export/{told['name']}.json").json()["item"]["title"] == odd.title
    assert site.get(f"/export/{told['name']}.csv").status_code == 200


def test_text_from_models_and_people_is_inert(agent, run, step):
    told = step(WICKED).json()
    assert told["action"].endswith("\\u202egnihton")  # told, and not acted on; the script makes text nodes of it
    evil = dataclasses.replace(agent, name=WICKED)
    page = open_site(dataclasses.replace(run, agent=evil)).get("/")
    assert "<img" not in page.text and "<script>" not in page.text and "\u202e" not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/positions/films", "films: the map has items and users"),
        ("/found/films?words=a", "films: the map has items and users"),
        ("/at/items/120", "120: there are 120 items"),
        ("/at/users/999999", "999999: there are 40 users"),
        ("/export/nothing.json", "there is no such exploration, or no more; begin anew"),
        ("/export/nothing.csv", "there is no such exploration, or no more; begin anew"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(client, address, said):
    answer = client.get(address)
    assert (answer.status_code, answer.json()) == (404, {"error": said})


def test_unknown_ids_are_named_with_what_was_meant(client, agent):
    item_id, user_id = agent.evaluated[0]
    for item, user, said in (
        (f"{item_id}x", user_id, "no item"),
        (item_id, "nobody", "no user"),
        ("", "", "no item ''"),
    ):
        answer = client.post("/begin", data={"item": item, "user": user})
        assert answer.status_code == 404 and said in answer.json()["error"]
    assert f"did you mean {item_id!r}?" in client.post("/begin", data={"item": f"{item_id}x"}).json()["error"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"instruction": "  "}, "instruction: is empty; say what is to change"),
        ({"instruction": "a" * 1001}, "instruction: has 1001 characters, at most 1000 are read"),
        ({"before": 1, "instruction": "a"}, "before=1: there are the texts 0 to 0"),
        ({"before": "x", "instruction": "a"}, "before=x: must be a whole number"),
        ({"by": "nobody"}, "by=nobody: must be one of you, agent, reference"),
    ],
)
def test_a_wrong_field_of_a_step_is_named(step, fields, said):
    answer = step(**fields)
    assert (answer.status_code, answer.json()) == (400, {"error": said})


def test_a_wrong_field_of_an_episode_is_named(client, begun):
    for fields, said in (
        ({"by": "agent", "best_of": 51}, "best_of=51: must be from 1 to 50"),
        ({"by": "agent", "best_of": "-1"}, "best_of=-1: must be a whole number"),
        ({"by": "you"}, "by=you: must be one of agent, reference"),
    ):
        answer = client.post("/episode", data={"name": begun["name"], **fields})
        assert (answer.status_code, answer.json()) == (400, {"error": said})
    assert client.post("/episode", data={"name": "nothing", "by": "agent"}).status_code == 404


def test_a_model_that_refuses_is_told_and_nothing_is_lost(agent, run):
    def fails(prompt, rng):
        raise UserError("the endpoint does not answer")

    environment = dataclasses.replace(agent.environment, generator=ScriptedGenerator(fails))
    site = open_site(dataclasses.replace(run, agent=dataclasses.replace(agent, environment=environment)))
    begun = site.post("/begin", data=dict(zip(("item", "user"), agent.evaluated[0], strict=True))).json()
    answer = site.post("/step", data={"name": begun["name"], "before": 0, "by": "you", "instruction": "a"})
    assert (answer.status_code, answer.json()) == (400, {"error": "the endpoint does not answer"})
    assert len(site.get(f"/export/{begun['name']}.json").json()["texts"]) == 1


def test_the_export_holds_every_text_in_full(client, begun, step, agent):
    step("bring in the lantern.")
    step("=1+1 bring in the velvet.", before=1)
    step("bring in the orchard.")
    client.post("/episode", data={"name": begun["name"], "by": "reference", "best_of": 2})
    export = client.get(f"/export/{begun['name']}.json")
    assert export.headers["content-disposition"] == "attachment; filename=exploration.json"
    told = export.json()
    item_id, user_id = agent.evaluated[0]
    assert (told["agent"], told["reference"], told["seed"]) == ("agent_stub_0", "reference", 3)
    assert (told["item"]["item_id"], told["user"]["user_id"]) == (item_id, user_id)
    texts, (episode,) = told["texts"], told["episodes"]
    assert [text["before"] for text in texts] == [None, 0, 1, 0]
    assert texts[0]["text"] == agent.item(item_id).description and texts[2]["text"] == texts[1]["text"]
    assert texts[2]["action"] == "=1+1 bring in the velvet." and texts[2]["malformed"] == "environment:missing_block"
    assert all(len(text["nearest"]) == 5 and set(text["scores"]) == {TRAIN, HELD_OUT} for text in texts)
    assert (episode["by"], episode["best_of"], episode["environment_calls"]) == ("reference", 2, 4)

    export = client.get(f"/export/{begun['name']}.csv")
    assert export.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(export.text)))
    every = [*texts, *episode["path"]]
    assert [row["text"] for row in rows] == [text["text"] for text in every]
    assert [row["episode"] for row in rows] == [""] * 4 + ["1"] * len(episode["path"])
    assert rows[2]["action"] == "'=1+1 bring in the velvet."  # a spreadsheet would compute it
    for row, text in zip(rows, every, strict=True):
        assert float(row["held_out_user_term"]) == text["scores"][HELD_OUT]["user_term"]
        assert [float(row["x"]), float(row["y"])] == text["position"]
        assert json.loads(row["nearest"]) == text["nearest"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", ""])
def test_what_another_site_sends_is_refused(client, origin):
    assert client.post("/begin", data={}, headers={"Origin": origin}).status_code == 403


def test_with_a_token_in_the_address_nothing_is_there_without_it(run, agent):
    client = open_site(run, token="secret")
    there = {"Host": "10.0.0.5:8000", "Origin": "http://10.0.0.5:8000"}
    for address in ("/", "/explore.js", "/positions/items", "/at/items/0"):
        assert client.get(address, headers=there).status_code == 404
        assert client.get(f"/secret{address}", headers=there).status_code == 200
    page = client.get("/secret/", headers=there).text
    assert 'src="/secret/explore.js"' in page and 'href="/secret/style.css"' in page
    fields = dict(zip(("item", "user"), agent.evaluated[0], strict=True))
    assert client.post("/begin", data=fields, headers=there).status_code == 404
    assert client.post("/secret/begin", data=fields, headers=there).status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 404


@pytest.mark.parametrize("path", ["/../web.py", "/%2e%2e/web.py", "/export/..%2f..%2fresults.json", "/scripts/map.js"])
def test_no_other_file_is_served(client, path):
    assert client.get(path).status_code == 404


def test_the_oldest_explorations_are_forgotten(run, agent, monkeypatch):
    monkeypatch.setattr(explore_site, "_MOST_EXPLORATIONS", 2)
    client = open_site(run)
    fields = dict(zip(("item", "user"), agent.evaluated[0], strict=True))
    names = [client.post("/begin", data=fields).json()["name"] for _ in range(3)]
    assert len(set(names)) == 3
    assert [client.get(f"/export/{name}.json").status_code for name in names] == [404, 200, 200]
