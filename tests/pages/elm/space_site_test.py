"""ELM's space: places of points, what is near them, what the ELM says there, and the page in a browser."""

import csv
import io
import re

import numpy as np
import pytest

starlette = pytest.importorskip("starlette", reason="the pages need starlette: pip install 'eagle_jax[pages]'")
from starlette.testclient import TestClient  # noqa: E402

from eagle_jax.base.errors import UserError  # noqa: E402
from eagle_jax.data.tasks import BEHAVIORAL, SEMANTIC, TASKS, elm_prompt  # noqa: E402
from eagle_jax.elm.dialogue import Explorer, Ranker, Space  # noqa: E402
from eagle_jax.embeddings.concept_activation import ConceptActivation  # noqa: E402
from eagle_jax.language_model.generation import Generation, SamplingSettings  # noqa: E402
from eagle_jax.pages.elm.space import SpacePoint, elm_space  # noqa: E402
from eagle_jax.pages.elm.space_site import ElmSpaceSite  # noqa: E402
from eagle_jax.pages.explore import explore_command  # noqa: E402
from tests.pages import browser  # noqa: E402
from tests.pages.elm.made_up_elm_run import write_elm_run  # noqa: E402
from tests.pages.served_site import served, waits_for  # noqa: E402

HERE = "http://127.0.0.1:8000"
WICKED = "<img src=x onerror=alert(1)> =1+1 \u202egnihton"
WIDTH = 6
GREEDY = SamplingSettings(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=8)
NORTH = np.eye(WIDTH)[1]
FUNNY = ConceptActivation(
    direction=NORTH, bias=0.0, spread=0.5, quality=0.9, penalty=1.0, num_positives=9, gradient_norm=0.0
)


class Speaking:
    """An ELM that says how long the vector is that it reads; of one below 1 nothing that can be read."""

    def __init__(self):
        self.asked, self.seeds = [], []

    def generate(self, prompts, sampling, seed):
        self.asked += prompts
        self.seeds.append(seed)
        lengths = [float(np.linalg.norm(prompt.embeddings[0][1])) for prompt in prompts]
        return [
            Generation(
                text=f"{length:.2f} {WICKED}",
                token_ids=None,
                log_probs=None,
                stop_reason="stop" if length >= 1 else "length",
            )
            for length in lengths
        ]


def embed(texts):
    """P: what a text says is how far east it lies."""
    return np.array([[float(text.split()[0])] + [0.5] * (WIDTH - 1) for text in texts])


@pytest.fixture
def space(world):
    entities = world.catalogue.entities
    vectors = np.random.default_rng(0).normal(2.0, 1.0, (len(entities), WIDTH))
    items = Space(
        ids=[entity.entity_id for entity in entities],
        titles=[entity.title for entity in entities],
        vectors=vectors,
        activations={"funny": FUNNY},
    )
    explorer = Explorer(
        elm=Speaking(),
        book="compact",
        sampling=GREEDY,
        how="linear",
        spaces={SEMANTIC: items, BEHAVIORAL: items},
        of_items=Ranker(embed, vectors),
        of_profiles=Ranker(embed, vectors),
        predicted_ratings=lambda vector: np.zeros(len(entities)),
    )
    return elm_space("ELM <b>of</b> tests", explorer, world.catalogue, ("summary", "similarities", "pitch"), seed=7)


@pytest.fixture
def client(space):
    return TestClient(ElmSpaceSite(space=space, token="").app(), base_url=HERE, headers={"Origin": HERE})


@pytest.fixture
def name(client):
    return re.search(r'data-name="(.*?)"', client.get("/").text)[1]


def test_the_map_is_that_of_the_items(space, client):
    centred = space.vectors - space.vectors.mean(axis=0)
    _, scales, axes = np.linalg.svd(centred, full_matrices=False)
    ours, theirs = (positions - positions.mean(axis=0) for positions in (space.positions, centred @ axes[:2].T))
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-4)  # each axis may point either way
    sent = np.frombuffer(client.get("/positions/items").content, "<f4").reshape(-1, 2)
    np.testing.assert_array_equal(sent, space.positions)
    assert f"{100 * scales[0] ** 2 / (scales**2).sum():.0f} and" in client.get("/").text


def test_a_point_is_between_two_items_and_then_along_a_concept_vector(space):
    first, second = space.vectors[3], space.vectors[5]
    point = SpacePoint(first="f3", second="f5", alpha=0.25, tag="funny", spreads=2.0)
    np.testing.assert_allclose(space.vector(point), 0.75 * first + 0.25 * second + 2.0 * 0.5 * NORTH)
    np.testing.assert_array_equal(space.vector(SpacePoint(first="f3")), first)
    position, nearest = space.look(point)
    distances = np.linalg.norm(space.vectors - space.vector(point), axis=1)
    assert [near["item_id"] for near in nearest] == [f"f{place}" for place in np.argsort(distances)[:5]]
    assert nearest[0]["distance"] == pytest.approx(distances.min())
    np.testing.assert_allclose(position, space.plane.axes @ (space.vector(point) - space.plane.mean), rtol=1e-6)
    assert space.look(SpacePoint(first="f3"))[0] == pytest.approx(space.positions[3], abs=1e-5)


def test_the_elm_reads_the_point_and_its_text_is_read_back(space):
    point = SpacePoint(first="f3", second="f5", alpha=0.5)
    told = space.tell(point, "pitch", 4)
    elm = space.explorer.elm
    (prompt,), (kind, vector) = elm.asked, elm.asked[0].embeddings[0]
    assert (prompt.prompt, kind, elm.seeds) == (elm_prompt("compact", TASKS["pitch"]), SEMANTIC, [11])
    np.testing.assert_array_equal(vector, space.vector(point))
    assert told.reply.text == f"{np.linalg.norm(vector):.2f} {WICKED}"
    (made,) = embed([told.reply.text])
    cosine = made @ vector / np.linalg.norm(made) / np.linalg.norm(vector)
    assert told.reply.cosines == pytest.approx((cosine,), rel=1e-5)
    assert told.read_back == pytest.approx(space.plane.axes @ (made - space.plane.mean), rel=1e-5)


def test_the_page_runs_nothing_but_its_own_files(client, space):
    page = client.get("/")
    assert "<b>of" not in page.text and "ELM &lt;b&gt;of&lt;/b&gt; tests" in page.text
    assert re.findall(r"<script[^>]*>(.*?)</script>", page.text) == [""] and 'src="/space.js"' in page.text
    assert re.findall(r"<option[^>]*>(.*?)</option>", page.text) == ["none", "funny", "summary", "pitch"]
    assert "unsafe" not in page.headers["content-security-policy"]
    for script in ("space", "page", "map", "texts"):
        text = client.get(f"/{script}.js").text
        assert not re.search(r"innerHTML|insertAdjacentHTML|outerHTML|eval\(|document\.write|https?://", text)


def test_items_are_found_and_told(client, space):
    found = client.get("/found/items", params={"words": "f9"}).json()["found"]
    assert found[0] == {"place": 9, "id": "f9", "title": space.catalogue.entities[9].title}
    told = client.get("/at/items/9").json()
    assert told["id"] == "f9" and told["words"][0] == ["label", "Plot"]
    assert client.get("/found/items", params={"words": "begin_plot"}).json()["count"] == 0


def test_what_was_told_is_kept_and_exported(client, name):
    point = {"first": "f3", "second": "f5", "alpha": "0.5", "tag": "", "spreads": "0"}
    looked = client.post("/look", data=point).json()
    assert looked["path"][-1] == looked["position"] and len(looked["path"]) == 3 and len(looked["nearest"]) == 5
    told = client.post("/tell", data=point | {"name": name, "task": "summary"}).json()
    assert told["number"] == 1 and told["position"] == looked["position"] and told["text"].endswith("\\u202egnihton")
    alone = {"first": "f4", "tag": "funny", "spreads": "-1.5", "name": name, "task": "pitch"}
    assert client.post("/tell", data=alone).json()["number"] == 2
    export = client.get(f"/export/{name}.json").json()
    assert [one["point"]["first"] for one in export["told"]] == ["f3", "f4"] and export["seed"] == 7
    assert export["told"][0]["reply"]["text"].endswith(WICKED)
    rows = list(csv.DictReader(io.StringIO(client.get(f"/export/{name}.csv").text)))
    assert [(row["tag"], row["spreads"]) for row in rows] == [("", "0.0"), ("funny", "-1.5")]
    assert float(rows[0]["sc"]) == told["sc"]


def test_what_cannot_be_read_is_told(space, client, name):
    space.vectors[3] *= 0.01
    told = client.post("/tell", data={"first": "f3", "name": name, "task": "summary"}).json()
    assert (told["text"], told["sc"], told["read_back"]) == (None, None, None) and told["malformed"]


@pytest.mark.parametrize(
    ("address", "fields", "status", "said"),
    [
        ("/look", {"first": "f3", "alpha": "1.5"}, 400, None),
        ("/look", {"first": "f3", "second": "f5", "alpha": "1.5"}, 400, "alpha must lie in [0, 1], got 1.5"),
        ("/look", {"first": "f3", "second": "f5", "alpha": "x"}, 400, "alpha=x: must be a number"),
        ("/look", {"first": "f3", "spreads": "nan"}, 400, "spreads=nan: must be a number"),
        ("/look", {"first": "f3", "tag": "sad"}, 400, "tag=sad: has no concept vector here; those of funny are there"),
        ("/look", {"first": "f3", "tag": "funny", "spreads": "9"}, 400, "spreads=9: must be from -5 to 5"),
        ("/look", {"first": "f99999"}, 400, "no item 'f99999'"),
        ("/tell", {"first": "f3", "task": "similarities"}, 400, "task=similarities: must be one of summary, pitch"),
        ("/tell", {"first": "f3", "task": "summary", "name": "x"}, 404, "there is no such page, or no more"),
        ("/export/x.json", None, 404, "there is no such page, or no more"),
        ("/at/items/120", None, 404, "120: there are 120 items"),
    ],
)
def test_a_mistake_is_one_sentence(client, name, address, fields, status, said):
    answer = client.get(address) if fields is None else client.post(address, data={"name": name} | fields)
    if said is None:  # alpha says nothing where there is one item
        assert answer.status_code == 200
        return
    assert answer.status_code == status and said in answer.json()["error"]


def test_nothing_read_is_no_table(client, name):
    assert client.get(f"/export/{name}.csv").json() == {"error": "nothing has been read yet"}


def test_the_command_refuses_what_is_no_finished_elm_run(tmp_path):
    workdir = write_elm_run(tmp_path / "elm")
    with pytest.raises(UserError, match="--agent=a: .* is a run of experiments.elm, which has no agents"):
        explore_command([f"--workdir={workdir}", "--agent=a", "--port=0"])
    with pytest.raises(UserError, match="catalogue: is not complete, so its run is not finished"):
        explore_command([f"--workdir={workdir}", "--port=0"])


@browser.needed
def test_in_a_browser_by_keyboard_on_a_small_screen_in_the_dark(space, tmp_path):
    with served(ElmSpaceSite(space=space, token="").app()) as address, browser.opened(tmp_path / "profile") as page:
        browser.make_small(page)
        page.open(address)
        waits_for(page, "document.body.dataset.ready === 'yes'")
        browser.check_on_a_small_screen(page)
        page.tab_to("id === 'items-words'")
        page.call("Input.insertText", text="f9")
        page.tab_to("innerText === 'Search'")
        page.space()
        waits_for(page, "document.querySelector('#items-found button')")
        page.tab_to("innerText.startsWith('f9: ')")
        page.space()
        assert page.run("document.querySelector('#first').value") == "f9"
        page.tab_to("id === 'alpha'")
        for _ in range(2):
            page.press("ArrowRight")
        waits_for(page, "document.querySelector('#alpha-told').textContent === '0.6'")
        page.tab_to("innerText === 'Read this point'")
        page.space()
        waits_for(page, "document.querySelector('#texts section')")
        assert page.run("document.querySelector('#texts h3').innerText") == "Point 1: f9 to f1, 0.6 of the way"
        assert "<img src=x" in page.run("document.querySelector('#texts section').innerText")
        assert page.run("document.images.length") == 0
        browser.check_on_a_small_screen(page)
