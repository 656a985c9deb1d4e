"""The map of a run, what is found on it by words, and why a folder or a flag is refused."""

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.eagle.environment import Start
from eagle_jax.embeddings.scorer import TRAIN
from eagle_jax.language_model.generation import ScriptedGenerator
from eagle_jax.pages.explore import explore_command
from eagle_jax.pages.explored_run import BY_AGENT, BY_REFERENCE, ITEMS, USERS, Findable, explored_run, find
from experiments import cli

FILMS = [
    Findable("f1", "the red desert", "the red desert a tale of sand and grief"),
    Findable("f2", "desert", "desert a tale of a cook"),
    Findable("f10", "grief", "grief a cook leaves the red house for the desert"),
    Findable("f20", "f1", "f1 a race"),
    Findable("f30", "", "untitled"),
]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("desert", [1, 0, 2]),  # the title begins with it, the title holds it, the text does
        ("  Red DESERT ", [0, 2]),
        ("f1", [0, 3]),  # the id before a title of the same letters; f10 is another one
        ("cook grief", [2]),  # all words, wherever they stand
        ("coo", [1, 2]),
        ("glacier", []),
        (" ", []),
    ],
)
def test_what_is_found_and_in_which_order(asked, expected):
    assert find(asked, FILMS) == expected


def test_items_and_users_are_where_their_embeddings_are(agent):
    run = explored_run(agent, agent.policy, seed=0)
    catalogue = np.asarray(agent.scorers[TRAIN].catalogue_embeddings)
    assert run.positions[ITEMS].shape == (120, 2) and run.positions[ITEMS].dtype == np.float32
    centred = catalogue - catalogue.mean(axis=0)
    np.testing.assert_allclose(
        run.positions[ITEMS] @ run.plane.axes, centred @ run.plane.axes.T @ run.plane.axes, atol=1e-5
    )
    assert list(run.users) == sorted(agent.users.profiles) and len(run.positions[USERS]) == len(run.users)
    user = agent.users.find(run.titles(USERS, 3)["id"])
    np.testing.assert_allclose(
        run.positions[USERS][3], run.plane.axes @ (user.embedding - catalogue.mean(axis=0)), atol=1e-5
    )
    assert run.text(USERS, 3) == run.titles(USERS, 3)["title"] == user.profile
    assert run.titles(ITEMS, 5) == {"id": "f5", "title": agent.item("f5").title}
    assert run.text(ITEMS, 5) == agent.item("f5").description


def test_words_are_found_in_texts_and_not_in_their_marks(agent):
    run = explored_run(agent, agent.policy, seed=0)
    assert find("#begin_plot", run.findable[ITEMS]) == []
    word = agent.item("f9").description.split()[3]
    found = find(word, run.findable[ITEMS])
    holds = [word in f"{one.title} {one.description}".casefold() for one in agent.catalogue.entities]
    assert sorted(found) == np.flatnonzero(holds).tolist() and 9 in found
    (place,) = find(f"user number {run.users[4]}", run.findable[USERS])[:1]
    assert run.text(USERS, place).startswith(f"user number {run.users[4]}")


def test_agent_and_reference_policy_are_asked_alike(agent):
    """The same model in both places says the same; each gets the profile of the state."""
    run = explored_run(agent, agent.policy, seed=0)
    user = agent.users.find(agent.evaluated[0][1])
    players = run.players(user.embedding[None])
    states = agent.environment.reset([Start(0, 0, agent.item("f1").description, user.profile)] * 4)
    by_agent, by_reference = (players[name](states, 7) for name in (BY_AGENT, BY_REFERENCE))
    assert by_agent == by_reference and len({one.text for one in by_agent}) > 1
    parrot = explored_run(agent, ScriptedGenerator(lambda prompt, rng: prompt.text), seed=0)
    (said,) = parrot.players(user.embedding[None])[BY_REFERENCE](states[:1], 0)
    assert user.profile in said.text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--seed=-1"], "--seed=-1: must be at least 0"),
        (["--port=-1"], "--port=-1: must be at least 0"),
        (["--port=99999"], "--port=99999: "),
        (["--num=3"], "unrecognized arguments: --num=3; eagle-jax explore --help"),
        (["--host=256.0.0.1"], "--host=256.0.0.1 --port=0: "),
    ],
)
def test_wrong_flags_are_named_before_anything_is_loaded(flags, said, tmp_path):
    with pytest.raises(UserError) as error:
        explore_command([f"--workdir={tmp_path}", "--port=0", *flags])
    assert said in str(error.value)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("eagle_jax.pages.explore.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"need starlette and uvicorn: pip install 'eagle_jax\[pages\]'"):
        explore_command([f"--workdir={tmp_path}"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path / "absent", "there is no such folder"),
        (lambda path: path, "holds no run; --workdir has to name that of a finished experiments.eagle"),
        (lambda path: (path / "results.json").write_text("{") and path, "results.json: cannot be read"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused(make, said, tmp_path):
    with pytest.raises(UserError, match=said) as refused:
        explore_command([f"--workdir={make(tmp_path)}", "--port=0"])
    assert "\n" not in str(refused.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"results.json"}


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.explore([f"--workdir={tmp_path}", "--port=0"])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1 and "holds no run" in said.err
