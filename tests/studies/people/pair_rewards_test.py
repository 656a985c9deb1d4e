"""PAL beside WALS on a few users: everything is measured on the same held-out pairs, and learns something."""

import dataclasses

import numpy as np
import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.settings import to_settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.studies.people import pair_rewards
from eagle_jax.studies.people.pair_rewards import PairRewardSettings, measure_pair_rewards, slot_features, unit_variance
from eagle_jax.studies.people.tastes import draw_people

QUICK = to_settings(
    PairRewardSettings, load_config("experiments/configs/people_minilens.py:quick").pair_rewards.to_dict()
)
SETTINGS = dataclasses.replace(
    QUICK,
    num_prototypes=(4,),
    num_feedback=(1, 20),
    tastes=dataclasses.replace(QUICK.tastes, feedback_per_seen_user=40),
    pal=dataclasses.replace(QUICK.pal, num_steps=200),
)


def test_rows_of_all_methods(tmp_path):
    people = draw_people(SETTINGS.tastes, 0)
    features = {pair_rewards.READ_SLOTS: unit_variance(slot_features(people.films))}
    stage = StageFolder(tmp_path / "pair_rewards", {})
    rows = measure_pair_rewards(people, features, SETTINGS, 0, stage)
    assert measure_pair_rewards(people, features, SETTINGS, 0, stage) == rows  # of parts that are there
    means = {(row["method"], row["group"], row["num_feedback"]): np.mean(row["accuracy"]) for row in rows}
    assert {len(row["accuracy"]) for row in rows if row["group"] == "new"} == {20}
    best = means[pair_rewards.KNOWN, "new", None]
    for method in (pair_rewards.WALS, pair_rewards.WALS_PRIOR, pair_rewards.PAL):
        assert 0.55 < means[method, "seen", 40] < means[pair_rewards.KNOWN, "seen", None]
        assert 0.52 < means[method, "new", 20] < best
    assert best == pytest.approx(0.86, abs=0.03)  # what the annotator's own noise leaves
