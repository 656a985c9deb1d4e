"""Provenance says what made an artifact and nothing of the environment."""

import json
import subprocess
from importlib.metadata import version
from pathlib import Path

from eagle_jax.base.provenance import provenance


def test_versions_and_json():
    found = json.loads(json.dumps(provenance()))
    assert found["packages"]["jax"] == version("jax")
    assert found["device"].startswith("8 x ")  # conftest.py asks for eight


def test_commit_is_that_of_the_clone():
    root = Path(__file__).parents[2]
    git = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True)
    commit = provenance()["commit"]
    if git.returncode == 0:
        assert commit.removesuffix("+changes") == git.stdout.strip()
    else:
        assert commit is None


def test_no_environment_variable_is_told(monkeypatch):
    monkeypatch.setenv("EAGLE_SECRET", "a-value-that-must-not-show")
    assert "a-value-that-must-not-show" not in json.dumps(provenance())
