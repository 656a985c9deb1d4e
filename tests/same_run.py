"""Whether two runs were the same, bit by bit, whatever time they took."""

import json
from pathlib import Path

import chex
import jax


class Interrupted(Exception):
    """What a test raises inside of a training, to go on later."""


def without_times(history):
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in history]


def validation_rewards(result):
    """By iteration."""
    return {row["step"]: row["validation/reward"] for row in result.history if "validation/reward" in row}


def assert_same_run(one, other):
    for name in ("params", "best_params"):
        chex.assert_trees_all_equal(jax.device_get(getattr(one, name)), jax.device_get(getattr(other, name)))
    assert one.best_step == other.best_step
    assert without_times(one.history) == without_times(other.history)


def finished_files(workdir: Path) -> dict[str, object]:
    """Every file of the finished stages, apart from times and what is kept for resuming only."""
    found = {}
    for path in workdir.rglob("*"):
        name = path.relative_to(workdir).as_posix()
        inner = set(path.relative_to(workdir).parts[1:])  # () for the report, which tells times
        if not inner or path.is_dir() or inner & {"MANIFEST.json", "checkpoints", "tensorboard"}:
            continue
        found[name] = path.read_bytes()
        if path.name == "metrics.jsonl":
            found[name] = without_times(map(json.loads, path.read_text().splitlines()))
    return found
