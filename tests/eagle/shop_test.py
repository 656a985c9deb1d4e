"""A made-up shop goes from its files to an EAGLE report by the config of `docs/catalogue.md`, with an environment
behind an endpoint: the run stops at its budget, goes on, and tells all."""

import json
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from eagle_jax.base.command_line import load_config
from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import to_settings
from eagle_jax.data.sources import fingerprint, load_catalogue
from eagle_jax.eagle.evaluation.systems import HEAD, PLANNER, by_profile, for_others
from eagle_jax.eagle.run import run_eagle
from eagle_jax.eagle.serving.export import export_agent
from eagle_jax.eagle.serving.loading import load_agent
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.language_model.generation import ScriptedGenerator
from eagle_jax.stages.run import Run
from experiments.configs import eagle_minilens_planner
from tests.data.readers.shop import COLLECTIONS, STYLES, draw_shop, write_rows
from tests.language_model.remote.scripted_server import Reply, ScriptedServer, answer
from tests.tiny_runs import TINY_EAGLE

pytest.importorskip("openai")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "catalogue.md"
KEY = "sk-Se1cret-0123456789"
BUDGET = 130  # requests of one run
LISTED = [f"make it {style} as the {COLLECTIONS[0]} collection" for style in STYLES]


def write_text(prompt, rng):
    """Who proposes changes and tells users."""
    if prompt.opening == "#BEGIN_USER_PROFILE":
        return f"likes what is {STYLES[int(rng.integers(len(STYLES)))]}"
    if prompt.opening == "#BEGIN_ACTION":
        collection, style = (names[int(rng.integers(len(names)))] for names in (COLLECTIONS, STYLES))
        return f"make it {style} as the {collection} collection, no. {int(rng.integers(1000))}"
    raise AssertionError(f"nobody asks the generator this: {prompt.text}")


def rewrite(asked, times):
    """Who rewrites products. One request in ten fails at first."""
    if times == 0 and int(asked.body["seed"]) % 10 == 0:
        return Reply(b"busy", status=503)
    before, after = asked.prompt.split("#BEGIN_ACTION ")
    assert "REASONS" not in asked.prompt  # which the data leave empty
    shown = re.search("#BEGIN_DESCRIPTION (.*) #END_DESCRIPTION", before)[1]
    told = f"#BEGIN_DESCRIPTION {shown} {after.split(' #END_ACTION')[0]} #END_DESCRIPTION"
    return answer(told, prompt_tokens=100, completion_tokens=20)


@pytest.fixture
def scripted(monkeypatch):
    """The generator's part is played by `write_text`; the policy is the built-in one."""
    generator = Run.generator

    def either(run, name, **options):
        if name == "minilens/generator":
            return ScriptedGenerator(write_text, name)
        return generator(run, name, **options)

    monkeypatch.setattr(Run, "generator", either)


def config_of_the_page(folder, kind):
    """The page's config, cut down to seconds."""
    block, *_ = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M)
    (folder / "shop.py").write_text(block)
    body = block.split("with config.unlocked():\n")[1].split("    return")[0]
    assert len(body.splitlines()) <= 15
    config = load_config(f"{folder / 'shop.py'}:{kind}")
    without = ("catalogue.", "evaluation.num_reachable")
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict({k: v for k, v in TINY_EAGLE.items() if not k.startswith(without)})
    return config


def with_environment_at(config, base_url, actions=None):
    """The config with the environment behind an endpoint; with candidates of a file of actions, and a planner."""
    with config.unlocked():
        if actions is not None:
            config.listed_actions = ConfigDict({"file": str(actions), "num_candidates": 4})
            config.planner = eagle_minilens_planner.get_config("quick").planner
            config.planner.num_rounds, config.planner.episodes_per_round = 1, 4
            config.planner.dynamics.head = "ridge"
        config.models.environment = "remote/loopback"
        config.remote.loopback = ConfigDict(
            {
                "base_url": base_url,
                "model": "rewriter",
                "api_key_variable": "LOOPBACK_KEY",
                "api": "chat",
                "max_tokens_field": "max_tokens",
                "request_fields": {},
                "concurrency": 4,
                "timeout_seconds": 60.0,
                "max_tries": 3,
                "backoff_seconds": 0.0,
                "max_wait_seconds": 0.0,
                "budget": {"max_requests": BUDGET, "max_tokens": None},
                "prices": {"prompt": 1.0, "completion": 4.0},
            }
        )
    return to_settings(EagleExperiment, config)


def test_a_shop_from_files_of_every_kind_to_a_report(tmp_path, monkeypatch, scripted):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    products, ratings = draw_shop()
    assert (len(products), len({row["customer"] for row in ratings})) == (500, 3000)
    made = {}
    for kind in ("csv", "jsonl", "parquet"):
        for name, rows in (("products", products), ("ratings", ratings)):
            write_rows(tmp_path / f"{name}.{kind}", rows)
        config = config_of_the_page(tmp_path, kind)
        made[kind] = fingerprint(load_catalogue(to_settings(EagleExperiment, config).catalogue)[0])
    assert made["csv"] == made["jsonl"] == made["parquet"]

    workdir = tmp_path / "run"
    with ScriptedServer(rewrite) as server:
        actions = tmp_path / "actions.csv"
        actions.write_text("kind,action\n" + "".join(f"style,{action}\n" for action in LISTED))
        experiment = with_environment_at(config, server.base_url, actions)
        with pytest.raises(UserError, match=rf"rewriter at {server.base_url} .*budget.*{BUDGET} requests"):
            run_eagle(experiment, workdir)
        assert len(server.asked) <= BUDGET
        report = run_eagle(experiment, workdir)
        num_requests = len(server.asked)
        assert_the_head_acts(load_agent(workdir, "action_head"), workdir)
        assert_the_planner_acts(load_agent(workdir), workdir)
    assert report.name == "report.html" and "EAGLE on a shop" in report.read_text()
    answered = [asked.body for asked in server.asked[:num_requests] if int(asked.body["seed"]) % 10]
    assert len({json.dumps(body) for body in answered}) == len(answered)  # nothing paid twice
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
    files = [path for path in workdir.rglob("*") if path.is_file()]
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    settings = json.loads((workdir / "candidates" / "SETTINGS.json").read_text())
    assert f"rewriter at {server.base_url} (chat)" in json.dumps(settings)

    facts = json.loads((workdir / "catalogue" / "facts.json").read_text())
    assert (facts["num_entities"], facts["num_users"]) == (500, 3000)
    assert facts["num_training_ratings"] + facts["num_held_out_ratings"] == len(ratings)
    assert facts["held_out_rmse"] < facts["baseline_rmse"]  # tastes are there and are found
    told = (workdir / "report.md").read_text()
    assert "product" in told and "absent: of the held-out ratings: no user has 5" in told
    assert_usage_is_told(workdir, num_requests)


def assert_the_head_acts(agent, workdir):
    """In rows of the evaluation, and asked for proposals: with the actions of the list alone."""
    records = [json.loads(line) for line in (workdir / "evaluation" / "records.jsonl").read_text().splitlines()]
    for system in (HEAD, for_others(HEAD), by_profile(HEAD)):
        acted = [step["action"] for record in records if record["system"] == system for step in record["steps"]]
        assert len(acted) == 2 * 8 and set(acted) <= set(LISTED)
    proposals = list(agent.propose(num=2))
    assert {step.action for one in proposals for step in one.steps} <= set(LISTED)
    assert agent.name == "action_head" and len(proposals) > 8  # two for a pair where they differ
    with pytest.raises(UserError, match="action_head is no model"):
        export_agent(workdir, workdir.parent / "policy", "action_head")


def assert_the_planner_acts(agent, workdir):
    """Asked for where no agent is named: with what the candidates and its own episodes are about."""
    rows = {row["row"]: row for row in json.loads((workdir / "evaluation" / "table.json").read_text())}
    facts = json.loads((workdir / "planner_0" / "facts.json").read_text())
    assert facts["environment_calls"] == 4 * 2 and len(facts["rounds"]) == 1
    known = json.loads((workdir / "planner_0" / "actions.json").read_text())
    assert agent.name == "planner_0" and set(LISTED) & set(known)
    assert {rows[name]["num_episodes"] for name in (PLANNER, for_others(PLANNER), by_profile(PLANNER))} == {8}
    compared = [(c["row"], c["baseline"]) for c in json.loads((workdir / "evaluation/comparisons.json").read_text())]
    assert {(PLANNER, "EAGLE, g_optimal"), (PLANNER, for_others(PLANNER))} <= set(compared)
    proposals = list(agent.propose(num=1))
    assert {step.action for one in proposals for step in one.steps} <= set(known) and len(proposals) == 8
    assert "The planner's model" in (workdir / "report.md").read_text()


def assert_usage_is_told(workdir, num_requests):
    """Of the remote model, in its file and in both reports."""
    (usage,) = json.loads((workdir / "remote_usage.json").read_text())
    failed = usage["failed"]["http_503"]
    assert usage["num_requests"] == num_requests == usage["num_answered"] + failed
    assert failed > 0
    assert usage["prompt_tokens"] == 100 * usage["num_answered"]
    assert usage["cost"] == pytest.approx(usage["num_answered"] * (100 * 1 + 20 * 4) / 1e6)
    html, markdown = ((workdir / f"report.{kind}").read_text() for kind in ("html", "md"))
    cells = re.search(r"<h3>Remote language models</h3>.*?<tbody>(.*?)</tbody>", html, re.S)[1]
    numbers = re.findall(r"<td[^>]*>([^<]*)</td>", cells)
    told = [
        str(usage["num_requests"]),
        str(usage["num_answered"]),
        f"http_503: {failed}",
        str(usage["num_cached"]),
        str(usage["prompt_tokens"]),
        str(usage["completion_tokens"]),
        "0",
        f"{usage['cost']:.4g}",
    ]
    assert numbers == told
    row = next(line for line in markdown.splitlines() if line.startswith("| remote/loopback"))
    assert [cell.strip().replace("\\", "") for cell in row.split("|")[2:-1]] == told


def test_a_missing_key_is_told_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.delenv("LOOPBACK_KEY", raising=False)
    experiment = with_environment_at(
        load_config("experiments/configs/eagle_minilens.py:quick"), "http://127.0.0.1:9/v1"
    )
    with pytest.raises(UserError, match="variable LOOPBACK_KEY has to hold the API key"):
        run_eagle(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()
