"""The script on a tiny table: its rows, what is missing is said, and the objective is that of a float64 sum."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.wals_contenders import draw

ROOT = Path(__file__).parents[2]


def test_ratings_are_of_the_shape_that_is_promised():
    user, item, rating = draw(num_users=400, num_items=300, num_ratings=12_000, seed=1)
    assert len(set(zip(user.tolist(), item.tolist(), strict=True))) == len(user) == len(item) == len(rating)
    assert 10_000 < len(user) <= 12_000 and user.max() < 400 and item.max() < 300
    assert set(rating.tolist()) <= {1.0, 2.0, 3.0, 4.0, 5.0} and rating.std() > 0.5
    counts = np.sort(np.bincount(item, minlength=300))[::-1]
    assert counts[:30].sum() > 0.2 * counts.sum()  # a few items have much


def test_the_script_says_what_is_missing_and_writes_its_table(tmp_path):
    command = [sys.executable, "-m", "benchmarks.wals", "--shape=tiny", "--dim=3", "--rounds=2", "--iterations=2"]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [*command, f"--out={tmp_path}"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["who"]: row for row in json.loads((tmp_path / "results.json").read_text())["compared"]}
    assert {"this build", "cmfrec", "implicit"} == set(rows)
    assert len(rows["this build"]["seconds"]) == 2 and rows["this build"]["ratios"] == [1.0, 1.0]
    assert rows["this build"]["objective"] > 0
    for peer in ("cmfrec", "implicit"):
        if "missing" in rows[peer]:
            assert rows[peer]["missing"] in done.stdout and "is not installed" in rows[peer]["missing"]
