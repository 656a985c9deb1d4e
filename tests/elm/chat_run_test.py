"""ELM on a shop's own files, told in plain chat by a scripted model: the settings of films, with other texts."""

import json

import numpy as np
import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.settings import to_settings
from eagle_jax.data.minilens import grammar
from eagle_jax.data.minilens.world import as_film, draw_films
from eagle_jax.data.prompts import MOVIE, parse_blocks
from eagle_jax.elm.report import report_elm
from eagle_jax.elm.run import ElmRun
from eagle_jax.elm.settings import ElmExperiment
from tests.elm.scripted_teacher import make_tiny
from tests.language_model.remote.scripted_server import ScriptedServer, answer

NUM_ITEMS, NUM_USERS = 32, 24
RNG = np.random.default_rng(0)
TEXTS = [  # in words that the reader knows
    parse_blocks(grammar.tell_film(grammar.draw_telling(as_film(item), "a", RNG)), MOVIE.blocks)["PLOT"]
    for item in draw_films(NUM_ITEMS, RNG)
]
COPIED = 3  # the teacher copies this item's text
DESCRIPTION, REVIEW, PROFILE = "amazon_description", "amazon_positive_review", "amazon_user_profile"


def write_shop(folder):
    ratings = ["buyer,product,stars"]
    for user, taste in enumerate(RNG.normal(size=(NUM_USERS, 4))):
        for item in RNG.permutation(NUM_ITEMS)[:24]:
            ratings.append(f"u{user},p{item},{round(np.clip(3 + taste[item % 4] + 0.3 * RNG.normal(), 1, 5))}")
    items = ["product,name,told", *(f'p{n},Product {n},"{text}"' for n, text in enumerate(TEXTS))]
    for name, lines in {"items.csv": items, "ratings.csv": ratings}.items():
        (folder / name).write_text("\n".join(lines) + "\n")


def script(asked, times):
    """A product by its words in the other order, a buyer by the products that were rated high."""
    turn = asked.body["messages"][-1]["content"]
    told = turn.partition(": ")[2].partition("\n")[0]
    if told == " ".join(TEXTS[COPIED].split()):
        return answer(f"{told}.")
    words = told.replace(".", "").split()
    return answer(f"It is {' '.join(words[::-1][:16])}.\nAnd more")


def experiment(folder, server) -> ElmExperiment:
    config = json.loads(json.dumps(load_config("experiments/configs/elm_films.py:quick").to_dict()))
    config["catalogue"] = {
        "source": "files",
        "files": {
            "items": str(folder / "items.csv"), "item_id": "product", "title": "name", "text": "{told}",
            "ratings": str(folder / "ratings.csv"), "user": "buyer", "item": "product",
            "feedback": "explicit", "rating": "stars", "scale": "1 to 5",
        },
    }  # fmt: skip
    config["split"] |= {
        "test_fraction": 0.3,
        "validation_fraction": 0.1,
        "min_anchor_ratings": 5,
        "min_user_ratings": 15,
    }
    make_tiny(config, server)
    config["models"]["reader"] = "minilens/reader"
    config["tasks"], config["space"]["tasks"] = [DESCRIPTION, REVIEW, PROFILE], [DESCRIPTION, REVIEW]
    config["evaluation"]["curves"]["task"] = DESCRIPTION
    return to_settings(ElmExperiment, config)


def cosine(one, other):
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder)
    with ScriptedServer(script) as server:
        run = ElmRun(experiment(folder, server), tmp_path_factory.mktemp("run"))
        results = run.run()
        prompts = [asked.body["messages"] for asked in server.asked]
    return run, results, prompts


def test_the_teacher_is_asked_once_of_every_item_and_its_answers_are_the_examples(done):
    run, _, prompts = done
    train = set(run.spaces.split.entities["train"].tolist())
    test = set(run.spaces.split.entities["test"].tolist())
    of_films = {(row["task"], row["items"][0]): row["target"] for row in run.examples["train"] if row["user"] is None}
    assert set(of_films) == {(task, item) for task in (DESCRIPTION, REVIEW) for item in train - {COPIED}}
    assert {row["user"] for row in run.examples["train"]} - {None} == set(run.spaces.described_users("train"))
    for (_, item), target in of_films.items():
        assert set(target.rstrip(".").split()) <= {"It", "is", *TEXTS[item].replace(".", "").split()}
    # Every question of the spaces once, of held-out ones once more; what was copied also in the second try.
    about = [turns[-1]["content"] for turns in prompts]
    counts = {item: sum(text.partition(": ")[2].startswith(TEXTS[item][:60]) for text in about) for item in train}
    assert all(counts[item] == (4 if item == COPIED else 2) for item in train)
    assert all(row["items"][0] in test for row in run.examples["test"] if row["user"] is None)


def test_what_was_refused_is_counted_by_task_and_reason(done):
    run, _, _ = done
    facts = run.stages["space"].read_json("facts.json")
    told = sum(len(part) for part in run.spaces.split.entities.values())
    assert facts["films_that_the_teacher_told"] == dict.fromkeys((DESCRIPTION, REVIEW), f"{told - 1} of {told}")
    assert facts["malformed"] == {DESCRIPTION: {"copy": 2}, REVIEW: {"copy": 2}, PROFILE: {}}


def test_the_nearest_item_s_text_is_what_the_teacher_said_of_it(done):
    run, results, _ = done
    samples = [json.loads(line) for line in (results / "samples.jsonl").read_text().splitlines()]
    told = {row["target"] for row in run.examples["train"]}
    nearest = [row for row in samples if row["system"] == "nearest"]
    assert {row["task"] for row in nearest} == {DESCRIPTION, REVIEW, PROFILE}
    assert all(row["text"] in told for row in nearest)
    table = json.loads((results / "consistency.json").read_text())
    cells = {(row["group"], row["system"]): set(row["cells"]) for row in table["rows"]}
    for system in ("elm", "teacher", "nearest", "text_only", "text_only_example"):
        assert cells[DESCRIPTION, system] == {"sc", "bc/ndcg", "bc/spearman"}
        assert cells[PROFILE, system] == {"bc/ndcg", "bc/spearman"}


def test_bounds_are_those_of_texts_that_are_known(done):
    run, results, _ = done
    bounds = {row["texts"]: row for row in json.loads((results / "consistency.json").read_text())["bounds"]}
    test = [row for row in run.examples["test"] if row["user"] is None]
    items = {row["items"][0] for row in test}
    spaces = run.spaces
    own = [cosine(spaces.embed([spaces.catalogue.descriptions[i]])[0], spaces.semantic[i]) for i in items]
    assert bounds["the catalogue's text"]["sc"]["mean"] == pytest.approx(np.mean(own), abs=1e-6)
    of_teacher = [cosine(spaces.embed([row["target"]])[0], spaces.semantic[row["items"][0]]) for row in test]
    assert bounds["the teacher's text"]["sc"]["mean"] == pytest.approx(np.mean(of_teacher), abs=1e-6)
    assert bounds["the teacher's text"]["num_outputs"] == len(test)
    at_random = bounds["the teacher's text of a training item at random"]
    assert at_random["sc"]["mean"] < bounds["the teacher's text"]["sc"]["mean"]
    seen = bounds["training items, ELM's text"]
    assert seen["num_outputs"] == 2 * run.experiment.evaluation.training_rows
    read = [row for row in spaces.split.entities["train"] if int(row) != COPIED]
    assert 0 < seen["num_entities"] <= len(read)


def test_the_report_names_teacher_and_refusals(done):
    run, _, _ = done
    text = report_elm(run).with_suffix(".md").read_text(encoding="utf-8")
    assert f"files with {NUM_ITEMS} products and {NUM_USERS} users." in text.replace(run.spaces.catalogue.name, "files")
    assert "## What bounds it" in text and "| training items, ELM's text |" in text
    assert rf"| space.malformed.{DESCRIPTION}.copy |".replace("_", r"\_") in text
