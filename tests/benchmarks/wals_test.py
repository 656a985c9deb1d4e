"""The script on a tiny table: its rows, what is missing is said, and the objective is that of a float64 sum."""

import json

import numpy as np

from benchmarks.wals_contenders import draw
from tests.programs import run_module


def test_ratings_are_of_the_shape_that_is_promised():
    user, item, rating = draw(num_users=400, num_items=300, num_ratings=12_000, seed=1)
    assert len(set(zip(user.tolist(), item.tolist(), strict=True))) == len(user) == len(item) == len(rating)
    assert 10_000 < len(user) <= 12_000 and user.max() < 400 and item.max() < 300
    assert set(rating.tolist()) <= {1.0, 2.0, 3.0, 4.0, 5.0} and rating.std() > 0.5
    counts = np.sort(np.bincount(item, minlength=300))[::-1]
    assert counts[:30].sum() > 0.2 * counts.sum()  # a few items have much


def test_the_script_says_what_is_missing_and_writes_its_table(tmp_path):
    arguments = ("--shape=tiny", "--dim=3", "--rounds=2", "--iterations=2", f"--out={tmp_path}")
    done = run_module("benchmarks.wals", *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["who"]: row for row in json.loads((tmp_path / "results.json").read_text())["compared"]}
    assert {"this build", "cmfrec", "implicit"} == set(rows)
    assert len(rows["this build"]["seconds"]) == 2 and rows["this build"]["ratios"] == [1.0, 1.0]
    assert rows["this build"]["objective"] > 0
    for peer in ("cmfrec", "implicit"):
        if "missing" in rows[peer]:
            assert rows[peer]["missing"] in done.stdout and "is not installed" in rows[peer]["missing"]
