"""The agent of a finished run: the run's own texts and scores, through Python and the command."""

import ast
import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import eagle_jax
from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.prompts import COMPACT, MOVIE, policy_prompt
from eagle_jax.eagle.environment import Start
from eagle_jax.eagle.evaluation.episodes import evaluate_policy
from eagle_jax.eagle.policy import make_policy_fn
from eagle_jax.eagle.serving import export
from eagle_jax.eagle.serving.loading import load_with_reference, read_experiment
from eagle_jax.embeddings.scorer import TRAIN
from tests.programs import ROOT, environment_of
from tests.tiny_runs import WATCHED


@pytest.fixture(scope="module")
def loaded(finished):
    return load_with_reference(finished.workdir)


@pytest.fixture(scope="module")
def agent(loaded):
    return loaded[0]


@pytest.fixture(scope="module")
def records(finished):
    """The evaluation's records by system."""
    lines = (finished.workdir / "evaluation" / "records.jsonl").read_text().splitlines()
    by_system = {}
    for record in map(json.loads, lines):
        by_system.setdefault(record["system"], []).append(record)
    return by_system


def test_it_plays_the_episodes_that_the_run_evaluated(agent, records):
    """The seeds of the evaluation stage: of stage 8, of policies (1), of the row (0), of the batch (0)."""
    of_run = records["EAGLE"]
    names = agent.catalogue.ratings.user_names
    users = [agent.users.find(names[record["user_index"]]) for record in of_run]
    assert [user.profile for user in users] == [record["profile"] for record in of_run]
    starts = [Start(row, row, record["anchor"], record["profile"]) for row, record in enumerate(of_run)]
    seed = derive_seed(derive_seed(derive_seed(0, 8), 1, 0), 0)
    played, tokens, _ = agent.play(starts, users, seed)
    assert len(played) == len(of_run) == 8 and all(count > 100 for count in tokens)
    for ours, theirs in zip(played, of_run, strict=True):
        assert [step.description for step in ours.steps] == [step["description"] for step in theirs["steps"]]
        assert (ours.environment_calls, dict(ours.malformed)) == (theirs["environment_calls"], theirs["malformed"])
        for encoder, path in theirs["scores"].items():
            for one, other in zip(ours.scores[encoder], path, strict=True):
                assert one == pytest.approx(other, abs=1e-5)
        assert ours.distance == pytest.approx(theirs["distance"], abs=1e-4)
    assert {(agent.item(i).description, u) for i, u in agent.evaluated} == {
        (record["anchor"], names[record["user_index"]]) for record in of_run
    }


def test_its_reference_policy_plays_the_episodes_of_its_own_row(loaded, records):
    agent, reference = loaded
    of_run, names = records["reference policy"], agent.catalogue.ratings.user_names
    embeddings = np.stack([agent.users.find(names[record["user_index"]]).embedding for record in of_run])
    starts = [Start(row, row, record["anchor"], record["profile"]) for row, record in enumerate(of_run)]
    environment = agent.environment
    policy_fn = make_policy_fn(reference, environment.book, environment.entity_format, agent.policy_sampling)
    seed = derive_seed(derive_seed(0, 8), 1, 0)
    judging, sizes = agent.judging(embeddings), (agent.horizon, agent.batch_size)
    played = evaluate_policy(judging, starts, seed, policy_fn, environment, *sizes)
    for ours, theirs in zip(played, of_run, strict=True):
        assert [step.description for step in ours.steps] == [step["description"] for step in theirs["steps"]]


def test_a_user_who_comes_in_new_with_the_ratings_of_an_old_one_is_much_like_this_one(agent):
    """Not equal: the old user was solved for before the items' last half step, without what is held out."""
    table = agent.catalogue.ratings
    user = agent.users.find(agent.evaluated[0][1])
    rows = np.flatnonzero(table.user_index == table.user_names.index(user.user_id))
    rated = {table.item_names[table.item_index[row]]: float(table.rating[row]) for row in rows}
    new = agent.new_user(rated, user.profile)
    cosine = new.embedding @ user.embedding / np.linalg.norm(new.embedding) / np.linalg.norm(user.embedding)
    assert cosine > 0.9 and abs(new.bias - user.bias) < 0.3


@pytest.fixture
def command(compilation_cache):
    """Runs `eagle-jax`: exit code, stdout and stderr; `watch` as in watched_run.py."""

    def run(*arguments, watch=()):
        program = [str(WATCHED), "eagle_jax", *watch] if watch else ["-m", "eagle_jax"]
        environment = environment_of(cache=compilation_cache)
        done = subprocess.run(
            [sys.executable, *program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    return run


def lines_of(path):
    return [json.loads(line) | {"seconds": 0} for line in path.read_text().splitlines()]


def test_the_command_killed_between_two_batches_ends_with_what_python_gets(agent, finished, command, tmp_path):
    workdir = finished.copy(tmp_path / "run")
    known = agent.evaluated[0][1]
    lines = {"ratings": {"f1": 5, "f2": 1}, "profile": "loves noir."}, {"user_id": known}
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    items = [item for item, _ in agent.evaluated[:3]]
    out = workdir / "proposals.jsonl"
    flags = [
        "propose",
        f"--workdir={workdir}",
        f"--items={','.join(items)}",
        f"--users={tmp_path / 'users.jsonl'}",
        "--num=2",
        "--actions=2",  # four pairs of a batch of 16, then two
        f"--out={out}",
    ]
    code, _, stderr = command(*flags, watch=["after", "proposals.jsonl.parts/parts/00000.json"])
    assert code == -signal.SIGKILL, stderr
    assert not out.exists() and len(list((workdir / "proposals.jsonl.parts" / "parts").iterdir())) == 1
    code, stdout, stderr = command(*flags)
    assert code == 0, stderr
    assert stdout.startswith(f"agent_g_optimal_0 of {workdir}: 6 pairs of an item and a user, up to 2 texts for each\n")
    assert stdout.endswith(f"proposals: {out}\n") and "left_anchor_share" in stdout
    guest = agent.new_user({"f1": 5, "f2": 1}, "loves noir.", "users.jsonl:1")
    expected = [json.loads(json.dumps(one.to_json())) for one in agent.propose(items, [guest, known], num=2, actions=2)]
    assert [one["text"] for one in lines_of(out)] == [one["text"] for one in expected]
    for ours, theirs in zip(lines_of(out), expected, strict=True):
        assert ours["nearest"][0]["item_id"] == theirs["nearest"][0]["item_id"]
        assert ours["utility"][TRAIN] == pytest.approx(theirs["utility"][TRAIN], abs=1e-5)
    summary = json.loads((workdir / "proposals.jsonl.summary.json").read_text())
    assert (summary["num_proposals"], summary["actions"]) == (len(expected), 2) and summary["num_tokens"] > 1000


def test_nothing_was_written_into_the_run(finished):
    assert (
        sorted(path.name for path in finished.workdir.iterdir() if path.suffix in (".sqlite", ".lock", ".parts")) == []
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: run / "absent", "absent: there is no such folder"),
        (lambda run: run / "catalogue", "holds no run; --workdir has to name that of a finished experiments.eagle"),
        (
            lambda run: (run / "results.json").unlink(),
            "has no results.json, so its run is not finished: run its command",
        ),
        (lambda run: (run / "evaluation" / "MANIFEST.json").unlink(), None),
        (
            lambda run: (run / "design" / "MANIFEST.json").unlink(),
            "design: is not complete, so its run is not finished",
        ),
        (lambda run: (run / "results.json").write_text("{"), "results.json: cannot be read: .*; run its command again"),
        (
            lambda run: (run / "results.json").write_text('{"report": "elm/report", "settings": {}}'),
            "is a run of elm, not",
        ),
        (
            lambda run: (run / "results.json").write_text('{"report": "eagle/report", "settings": {}}'),
            "results.json: was written by another version: settings: missing setting",
        ),
        (lambda run: (run / "encoders" / "train.npz").write_bytes(b"PK"), "train.npz: has 2 bytes where"),
    ],
)
def test_what_is_no_finished_run_is_refused_in_one_sentence(finished, tmp_path, spoil, said):
    run = finished.copy(tmp_path / "run")
    changed = spoil(run)
    workdir = changed if hasattr(changed, "parent") else run
    if said is None:  # the evaluation is not asked for anything
        assert eagle_jax.load_agent(workdir).name == "agent_g_optimal_0"
        return
    with pytest.raises(UserError, match=said) as refused:
        eagle_jax.load_agent(workdir)
    assert "\n" not in str(refused.value)


def test_artifacts_and_report_tell_ids_and_titles_beside_positions(agent, finished):
    """Against the catalogue itself, which the world of the config makes again."""
    items, names = agent.catalogue.entities, agent.catalogue.ratings.user_names

    def read(file):
        return [json.loads(line) for line in (finished.workdir / file).read_text().splitlines()]

    def check_item(row):
        entity = items[row["entity_index"]]
        assert (row["item_id"], row["title"]) == (entity.entity_id, entity.title)

    records, candidates = read("evaluation/records.jsonl"), read("candidates/candidates.jsonl")
    (chosen,) = json.loads((finished.workdir / "design" / "chosen.json").read_text()).values()
    assert len(records) >= 24 and len(candidates) == 3 and chosen
    for row in (*records, *candidates, *chosen):
        check_item(row)
    train = agent.users.profiles  # in the order of the split's parts
    for row in (*records, *read("profiles/profiles.jsonl")):
        assert row["user_id"] == names[row["user_index"]] and train[row["user_index"]] == row["profile"]
    asked_for = np.load(finished.workdir / "candidates" / "next.npz")["user_index"]
    for row, users in zip(candidates, asked_for, strict=True):
        for candidate, user in zip(row["candidates"], users, strict=True):
            assert candidate["user_id"] == (None if candidate["user"] is None else names[user])
    told = read("catalogue/items.jsonl")
    assert [(row["item_index"], row["item_id"], row["title"]) for row in told] == [
        (place, entity.entity_id, entity.title) for place, entity in enumerate(items)
    ]
    assert read("catalogue/users.jsonl") == [{"user_index": place, "user_id": name} for place, name in enumerate(names)]
    results = json.loads((finished.workdir / "results.json").read_text())
    report = (finished.workdir / "report.md").read_text()
    assert len(results["episodes"]) == 2
    for episode in results["episodes"]:
        check_item(episode)
        assert f"{episode['title']} ({episode['item_id']}) for user {episode['user_id']}" in report


def test_an_exported_policy_is_asked_from_outside_as_its_card_says(agent, finished, records, command, tmp_path):
    """The card's Python, with transformers in a process of its own, gives the likeliest text that ours gives."""
    pytest.importorskip("torch")
    folder = tmp_path / "policy"
    code, stdout, stderr = command("export", f"--workdir={finished.workdir}", f"--out={folder}")
    assert (code, stdout) == (0, f"card: {folder / 'README.md'}\n"), stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy"]
    card = (folder / "README.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", card, re.S | re.M)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    record = records["EAGLE"][0]
    prompt = policy_prompt(COMPACT, MOVIE, record["anchor"], record["profile"])
    greedy = dataclasses.replace(agent.policy_sampling, temperature=0.0)
    (ours,) = agent.policy.generate([prompt], greedy, 0)
    assert done.stdout.strip() == ours.text.strip() != ""
    (curl,) = re.findall(r"^curl .*$", card, re.M)
    *_, flag, body = shlex.split(curl)
    assert (flag, json.loads(body)["prompt"], json.loads(body)["stop"]) == ("-d", prompt.text, ["#END_ACTION"])
    assert f"```text\n{record['steps'][0]['action']}\n```" in card and "vllm serve . " in card
    (cell,) = (
        row["cells"]
        for row in json.loads((finished.workdir / "results.json").read_text())["table"]
        if row["system"] == "EAGLE"
    )
    (line,) = (line for line in card.splitlines() if line.startswith("| EAGLE, g"))
    assert line.split(" | ")[1].startswith(f"{cell['train/utility']['mean']:.3f} [")
    assert "Apache License 2.0" in (folder / "NOTICE").read_text() and "license: apache-2.0" in card
    with pytest.raises(UserError, match="is there already; name a new folder"):
        export.export_agent(finished.workdir, folder)


def test_the_card_of_a_model_that_chats_asks_in_turns(agent, finished):
    chats = SimpleNamespace(model=SimpleNamespace(tokenizer=SimpleNamespace(chat_template="{{ messages }}")))
    experiment = read_experiment(finished.workdir)
    models = dataclasses.replace(experiment.models, policy="weights/Qwen3-0.6B")
    catalogue = SimpleNamespace(source="own")
    told = SimpleNamespace(models=models, catalogue=catalogue, title=experiment.title)
    card = export.model_card(dataclasses.replace(agent, policy=chats), told, finished.workdir)
    assert "license: other" in card and "trained from Qwen3-0.6B, whose licence holds for these too." in card
    assert "files of your own, whose terms hold" in card
    (program,) = re.findall(r"^```python\n(.*?)^```", card, re.S | re.M)
    ast.parse(program)
    assert (
        "tokenizer.apply_chat_template(turn, add_generation_prompt=True" in program
        and "tokenizer(prompt" not in program
    )
    (curl,) = re.findall(r"^curl .*$", card, re.M)
    (turn,) = json.loads(shlex.split(curl)[-1])["messages"]
    assert turn["role"] == "user" and turn["content"].endswith("#BEGIN_ACTION") and "/v1/chat/completions" in curl


def test_what_the_pretrained_model_says_of_its_licence_comes_along(agent, finished, tmp_path, monkeypatch):
    pretrained = tmp_path / "pretrained"
    pretrained.mkdir()
    for name in ("LICENSE.txt", "NOTICE", "README.md", "model.safetensors"):
        (pretrained / name).write_text(f"of the pretrained: {name}")
    monkeypatch.setattr(export, "load_agent", lambda workdir, name: agent)
    monkeypatch.setattr(export, "model_path", lambda name: pretrained)
    card = export.export_agent(finished.workdir, tmp_path / "policy")
    folder = card.parent
    assert (folder / "LICENSE.txt").read_text() == "of the pretrained: LICENSE.txt"
    assert (folder / "NOTICE").read_text().endswith("of the pretrained: NOTICE")
    assert card.read_text().startswith("---\nlibrary_name: transformers\n")
    model = finished.workdir / agent.name / "model" / "model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == model.read_bytes()
