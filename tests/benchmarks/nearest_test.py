"""The script on a small catalogue: a row, its share of the bare product, and terms as a float64 loop has them."""

import json

import numpy as np
import pytest

from benchmarks.nearest_contenders import utility
from tests.programs import run_module


def test_the_script_writes_its_table(tmp_path):
    arguments = ("--num_items=600", "--num_points=64", "--width=3", "--turns=2", f"--out={tmp_path}")
    done = run_module("benchmarks.nearest", *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    (row,) = json.loads((tmp_path / "results.json").read_text())["compared"]
    assert (row["who"], row["dim"], row["points"], row["difference"]) == ("this build", 3, 64, 0.0)
    assert row["seconds_ratios"] == [1.0, 1.0] and min(row["seconds"]) > 0 and row["bound"] > 0
    assert "| 3 | this build | 64 |" in (tmp_path / "results.md").read_text()


def test_a_turn_gives_the_terms_of_the_first_points():
    _, values = utility(num_items=600, num_points=64, dim=3, checkout=None)(None)
    rng = np.random.default_rng(0)
    catalogue, points = (rng.normal(size=(number, 3)).astype(np.float32) for number in (600, 64))
    to_all = np.linalg.norm(np.float64(catalogue)[None] - np.float64(points)[:, None], axis=2)
    assert values["distances"] == pytest.approx(np.sort(to_all)[:, :3].sum(axis=1), rel=1e-5)
