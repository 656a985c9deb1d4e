"""The benchmark's peers select the same pairs and its figures are what they are called."""

import json

import numpy as np
import pytest

from benchmarks import pair_contenders
from benchmarks.pair_table import rows_of
from benchmarks.rounds import Turn
from tests.programs import run_module


def test_ratios_are_of_seconds_per_prompt():
    # Ours: 4 s and 8 s for 400 prompts, 10 and 20 ms each; theirs 100 and 50 ms: 10 and 2.5 times.
    turns = {
        "ours": [Turn(4.0, 1.0, {"pairs": [[0, 1], [2, 3], [0, 2]]}, 1.0), Turn(8.0, 1.0, {}, 1.0)],
        "NumPy": [Turn(2.0, 1.0, {"pairs": [[0, 1], [1, 3]]}, 1.0), Turn(1.0, 1.0, {}, 1.0)],
    }
    settings = {"ours": {"number": 400}, "NumPy": {"number": 20}}
    ours, peer = rows_of("easy", 8, turns, settings)
    np.testing.assert_allclose(ours["ratios"], [1.0, 1.0])
    np.testing.assert_allclose(peer["ratios"], [10.0, 2.5])
    np.testing.assert_allclose(peer["microseconds"], [1e5, 5e4])
    assert ours["equal_pairs"] == 1.0 and peer["equal_pairs"] == 0.5


def test_a_stream_is_of_many_different_prompts():
    run = pair_contenders.stream(
        strategy="easy", num_responses=3, width=4, number=100, seed=0, rows_per_shard=40, rows_per_program=16
    )
    assert run(0)[1] == {"selected": 100}


def test_the_script_writes_its_table(tmp_path):
    pytest.importorskip("sklearn")
    flags = {"out": tmp_path, "rounds": 1, "strategies": "centroid", "responses": 6, "width": 8, "prompts": 48}
    flags |= {"peer_prompts": 32, "starts": 10, "stream": 0, "piece": 16}
    done = run_module("benchmarks.pair_selection", *(f"--{name}={value}" for name, value in flags.items()))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "results.json").read_text())
    assert [row["who"] for row in record["compared"]] == ["ours", "scikit-learn, 10 starts"]
    assert record["compared"][1]["equal_pairs"] >= 0.9
    assert (tmp_path / "results.md").read_text().strip() in done.stdout
