"""ELM's raters' form: what is asked of which text, and that raters' agreement with it comes out as it was made."""

import dataclasses
import re

import numpy as np
import pytest

starlette = pytest.importorskip("starlette", reason="the pages need starlette: pip install 'eagle_jax[pages]'")
from starlette.testclient import TestClient  # noqa: E402

from eagle_jax.base.errors import CorruptArtifactError, UserError  # noqa: E402
from eagle_jax.data.prompts import parse_blocks  # noqa: E402
from eagle_jax.data.sources import load_catalogue  # noqa: E402
from eagle_jax.language_model.generation import ScriptedGenerator  # noqa: E402
from eagle_jax.pages.elm.rated_run import read_rated_elm_run  # noqa: E402
from eagle_jax.pages.elm.rater_form import ASKED_TASKS, normalized_answers  # noqa: E402
from eagle_jax.pages.model_rater import ask_model  # noqa: E402
from eagle_jax.pages.rate import rating_command  # noqa: E402
from eagle_jax.pages.rating_csv import read_csv, to_csv  # noqa: E402
from eagle_jax.pages.rating_results import results  # noqa: E402
from eagle_jax.pages.rating_site import RatingSite  # noqa: E402
from eagle_jax.pages.rating_store import RatingStore  # noqa: E402
from tests.pages.elm.made_up_elm_run import MOVIE_TASKS, UNREAD, tiny_experiment, write_elm_run  # noqa: E402

HERE = "http://127.0.0.1:8000"
ARGUE = {"convince1", "convince2", "convince3", "dissuade1", "dissuade2"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_rated_elm_run(write_elm_run(tmp_path_factory.mktemp("elm")))


def open_store(run, tmp_path, raters=2):
    return RatingStore(tmp_path / "ratings.sqlite", {}, run.checks, raters, 0, is_blind=run.is_blind)


def rate_all(store, run, errors, seed=0):
    """Of each text its first film's number says what is true of it: even ones are agreed with, odd ones not."""
    rng = np.random.default_rng(seed)
    for error in errors:
        code = store.new_rater()
        while (form := store.current_form(code)) is not None:
            item = run.items[form.item]
            answers = {
                number: 5 if (item.entity_index % 2 == 0) != (rng.random() < error) else 1 for number in item.questions
            }
            store.answer(code, form.place, answers | (form.expected or {}))


def test_each_of_the_paper_s_tasks_has_its_statements():
    """Appendix C: consistency, coherence and one of the task's own; two more of those that argue."""
    assert set(ASKED_TASKS) == set(MOVIE_TASKS) and len(MOVIE_TASKS) == 24
    assert {name for name, asked in ASKED_TASKS.items() if list(asked.questions) == [1, 2, 3, 4, 5]} == ARGUE
    assert all(list(asked.questions) == [1, 2, 3] for name, asked in ASKED_TASKS.items() if name not in ARGUE)
    for name, asked in ASKED_TASKS.items():
        texts = [question.text.format(noun="film") for question in asked.questions.values()]
        assert "consistent with" in texts[0] and "coherent" in texts[1], name
        assert len({*texts}) == len(texts) and not any("{" in text for text in texts)
        assert all(question.options == ("1", "2", "3", "4", "5") for question in asked.questions.values())


def test_answers_are_told_from_0_to_1():
    assert normalized_answers({1: 1, 2: 3, 3: 5}) == {"consistency": 0.0, "coherence": 0.5, "quality": 1.0}


def test_the_films_own_texts_stand_above_what_the_model_wrote(run):
    catalogue, _ = load_catalogue(tiny_experiment().catalogue)
    assert [item.row for item in run.items] == [name for name in MOVIE_TASKS for _ in range(1 + (name != UNREAD[0]))]
    first, last = run.items[0], run.items[-1]
    own = parse_blocks(catalogue.entities[10].description, catalogue.entity_format.blocks)
    assert first.about == {"The film": own} and first.name == ("summary", "0", "10", "")
    assert first.texts("A") == {"The summary": {"": "summary 0: <b>words</b> of the model"}}
    assert list(last.about) == ["Film A", "Film B"] and last.name == ("common_with_nn", "0", "11", "30")
    assert run.measured["SC"]["summary"]["mean"] == 0.5 and "similarities" not in run.measured["BC"]


def test_the_first_examples_of_each_task(tmp_path):
    run = read_rated_elm_run(write_elm_run(tmp_path), num_starts=1)
    assert [item.row for item in run.items] == MOVIE_TASKS


def test_a_form_shows_one_text_and_its_statements(run, tmp_path):
    store = open_store(run, tmp_path)
    site = RatingSite(run=run, store=store, consent=run.form.consent, token="", key="key")
    client = TestClient(site.app(), base_url=HERE, headers={"Origin": HERE}, follow_redirects=False)
    assert "Each was written by a program" in client.get("/").text
    location = client.post("/begin", data={"agreed": "yes"}).headers["location"]
    seen = 0
    while "nothing left" not in (page := client.get(location).text):
        form = store.current_form(location.split("/")[-1])
        item = run.items[form.item]
        assert form.label == "A" and "<b>" not in page and "&lt;b&gt;words" in page
        assert re.findall("<legend>(.*?)</legend>", page) == [
            f"{number}. {question.text.format(noun='film')}" for number, question in item.questions.items()
        ]
        assert page.count("strongly agree") == len(item.questions)
        assert ("question 1 with" in page) == (form.expected is not None)
        some = {"place": form.place, "q1": "2"}
        assert "Please answer questions 2, 3" in client.post(location, data=some).text
        sent = {f"q{number}": str((form.expected or {}).get(number, 4)) for number in item.questions}
        assert client.post(location, data=sent | {"place": form.place}).status_code == 303
        seen += 1
    kept = store.forms()
    assert len(kept) == seen and sum(form.expected is None for form in kept) == len(run.items) == 47
    assert sum(form.expected is not None for form in kept) >= 5 and all(form.passed for form in kept if form.expected)
    page = client.get("/results/key").text
    assert "Task quality" in page and "Answers A among" not in page
    assert re.search(r"summary</th><td>0\.50.*?<td>0\.50.*?<td>0\.75<br>", page, re.S)


@pytest.mark.parametrize("error", [0.1, 0.3])
def test_rates_and_alpha_of_raters_who_err_are_recovered(tmp_path, error):
    """Half of the texts are good. Of two values ordinal alpha is the nominal one: 1 - D_o / D_e by hand."""
    run = read_rated_elm_run(write_elm_run(tmp_path, per_task=20))
    tasks = {"summary", "convince2"}
    run = dataclasses.replace(run, items=[item for item in run.items if item.row in tasks])
    store = open_store(run, tmp_path, raters=4)
    rate_all(store, run, [error] * 4)
    (people,) = results(run, store.forms())["groups"]
    rows = {line["row"]: line for line in people["rows"]}
    assert set(rows) == tasks and rows["summary"]["num_forms"] == 80
    assert rows["summary"]["cells"]["short"] is None and rows["summary"]["measured"]["SC"]["mean"] == 0.5
    for name in ("consistency", "coherence", "quality", "short"):
        cell = rows["convince2"]["cells"][name]
        assert cell.by_item.low <= 0.5 <= cell.by_item.high and cell.by_item.high - cell.by_item.low < 0.5
    first = people["agreement"][0]
    alpha = 1 - 2 * error * (1 - error) / 0.5
    assert first.num_items == 40 and first.low - 0.05 <= alpha <= first.high + 0.05
    assert people["agreement"][4].num_items == 20 and people["first"] is None


def test_what_one_machine_exports_another_takes_over(run, tmp_path):
    store = open_store(run, tmp_path)
    rate_all(store, run, [0.2, 0.2])
    file = tmp_path / "ratings.csv"
    file.write_text(to_csv(store.forms(), run.items))
    forms = read_csv(file, run.items)
    assert [dataclasses.replace(form, seconds=None) for form in forms] == [
        dataclasses.replace(form, seconds=None) for form in store.forms()
    ]
    lines = file.read_text().splitlines()
    (place,) = [place for place, line in enumerate(lines) if ",summary,0,10,," in line][:1]
    lines[place] = lines[place].removesuffix(",,") + ",4,"
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"line {place + 1}: q4: is not asked about this text"):
        read_csv(file, run.items)


def test_a_model_is_not_asked_this_form(run, tmp_path):
    with pytest.raises(UserError, match="only EAGLE's form is put to a model"):
        ask_model(run, open_store(run, tmp_path), ScriptedGenerator(lambda prompt, rng: ""), 0)


def test_the_command_knows_the_run(tmp_path):
    workdir = write_elm_run(tmp_path)
    rating_command([f"--workdir={workdir}", f"--export={tmp_path / 'none.csv'}"])
    assert (tmp_path / "none.csv").read_text().startswith("rater,kind,place,row,") and (
        tmp_path / "none.csv"
    ).read_text().endswith("q1,q2,q3,q4,q5\n")


def without_results(workdir):
    (workdir / "results.json").unlink()


def without_answers(workdir):
    (workdir / "answers" / "MANIFEST.json").unlink()


def changed(workdir):
    with open(workdir / "answers" / "parts" / "00000.json", "a") as file:
        file.write("\n")


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (without_results, UserError, "has no results.json, so its run is not finished"),
        (without_answers, UserError, "answers: is not complete, so its run is not finished"),
        (changed, CorruptArtifactError, "parts/00000.json: has "),
    ],
)
def test_a_run_that_is_not_finished_or_was_changed_is_refused(spoil, error, said, tmp_path):
    workdir = write_elm_run(tmp_path)
    spoil(workdir)
    with pytest.raises(error, match=said):
        rating_command([f"--workdir={workdir}", "--port=0"])
    assert not list(tmp_path.rglob("ratings.sqlite"))
