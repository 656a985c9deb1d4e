"""EAGLE with an environment behind an endpoint: it stops at its budget, goes on, and tells all."""

import json
import re
from pathlib import Path

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import to_settings
from eagle_jax.eagle.run import run_eagle
from eagle_jax.eagle.settings import EagleExperiment
from tests.eagle.remote_config import BUDGET, get_config
from tests.eagle.scripted_environment import rewrite
from tests.language_model.remote.scripted_server import Asked, Reply, ScriptedServer, answer

pytest.importorskip("openai")

KEY = "sk-Se1cret-0123456789"
CONFIG = "tests/eagle/remote_config.py"


def script(asked: Asked, times: int):
    # One request in ten fails at first.
    if times == 0 and int(asked.body["seed"]) % 10 == 0:
        return Reply(b"busy", status=503)
    return answer(rewrite(asked.prompt), prompt_tokens=100, completion_tokens=20)


def test_a_run_stops_at_its_budget_and_the_same_command_goes_on(eagle, finished, tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    workdir = finished.copy(tmp_path / "run", since="candidates")
    runs = []
    with ScriptedServer(script) as server:
        config = f"{CONFIG}:{server.base_url}"
        while not runs or (runs[-1][0] == 2 and len(runs) < 5):
            runs.append(eagle.run(workdir, config=config))
            assert len(server.asked) <= BUDGET * len(runs)
    codes = [code for code, *_ in runs]
    assert codes == [2, 0], runs
    line = runs[0][2].splitlines()[-1]
    assert re.match(rf"eagle\.py: rewriter at {server.base_url} .*budget.*{BUDGET} requests", line)
    assert "Traceback" not in runs[0][2]
    answered = [asked.body for asked in server.asked if int(asked.body["seed"]) % 10]
    assert len({json.dumps(body) for body in answered}) == len(answered)  # nothing paid twice
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}

    (usage,) = json.loads((workdir / "remote_usage.json").read_text())
    failed = usage["failed"]["http_503"]
    assert usage["num_requests"] == len(server.asked) == usage["num_answered"] + failed
    assert failed > 0
    assert usage["prompt_tokens"] == 100 * usage["num_answered"]
    assert usage["cost"] == pytest.approx(usage["num_answered"] * (100 * 1 + 20 * 4) / 1e6)
    assert_report_tells(workdir, usage)
    told = [path for path in workdir.rglob("*") if path.is_file()]
    assert [path for path in told if KEY.encode() in path.read_bytes()] == []
    settings = json.loads((workdir / "candidates" / "SETTINGS.json").read_text())
    assert f"rewriter at {server.base_url} (chat)" in json.dumps(settings)


def assert_report_tells(workdir: Path, usage: dict) -> None:
    html, markdown = ((workdir / f"report.{kind}").read_text() for kind in ("html", "md"))
    cells = re.search(r"<h3>Remote language models</h3>.*?<tbody>(.*?)</tbody>", html, re.S)[1]
    numbers = re.findall(r"<td[^>]*>([^<]*)</td>", cells)
    told = [
        str(usage["num_requests"]),
        str(usage["num_answered"]),
        f"http_503: {usage['failed']['http_503']}",
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
    config = get_config("http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="variable LOOPBACK_KEY has to hold the API key"):
        run_eagle(to_settings(EagleExperiment, config), tmp_path / "run")
    assert not (tmp_path / "run").exists()
