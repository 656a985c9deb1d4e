"""CHES on the tiny REAL run: which pairs are kept, and what training on them did to preferred responses."""

import ast
import dataclasses

import numpy as np
import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.settings import to_settings
from eagle_jax.real.settings import RealExperiment
from eagle_jax.studies.people.alike_pairs import CHES, CHES_MEAN, HIGH, LOW, AlikePairSettings, AlikePairsRun
from tests.tiny_runs import TINY_REAL


@pytest.fixture(scope="module")
def experiment():
    config = load_config("experiments/configs/real_minilens.py:quick").to_dict()
    for name, value in TINY_REAL.items():
        *folders, key = name.split(".")
        target = config
        for folder in folders:
            target = target[folder]
        target[key] = ast.literal_eval(value) if isinstance(value, str) else value
    return to_settings(RealExperiment, config)


@pytest.fixture(scope="module")
def prepared(experiment, finished_real, tmp_path_factory):
    """The tiny run up to its labelled pairs, read by this study, and the scores of the random ones."""
    policies = [path.name for path in finished_real.workdir.glob("policy_*")]
    workdir = finished_real.copy(tmp_path_factory.mktemp("people") / "dpo", without=policies)
    (workdir / "experiment.json").unlink()
    run = AlikePairsRun(dataclasses.replace(experiment, num_labels=(12,)), workdir)
    start = run.prepare()
    run.labelled = {0: {plan.strategy: plan.pairs for plan in run.plans(0)}}
    return run, start, run._score(0)


def test_all_selections_have_as_many_labels_and_ches_keeps_half(prepared):
    run, _, scores = prepared
    plans = {(plan.strategy, plan.num_labels): plan.pairs for plan in run._selections(0, scores, 0.5)}
    assert [len(plans[strategy, 12]) for strategy in ("easy", "random")] == [12, 12]
    assert plans["random", 6] == plans["random", 12][:6]
    low, high = (plans[f"{CHES_MEAN}, {side}", 12] for side in (LOW, HIGH))
    assert sorted(low + high) == sorted(plans["random", 12]) and len(low) == 6
    of_pair = dict(zip(plans["random", 12], scores[CHES_MEAN], strict=True))
    assert max(of_pair[pair] for pair in low) <= min(of_pair[pair] for pair in high)
    assert not np.allclose(scores[CHES], scores[CHES_MEAN])


def test_a_policy_is_measured_on_what_it_was_trained_on(prepared):
    run, start, scores = prepared
    (plan,) = (p for p in run._selections(0, scores, 0.5) if (p.strategy, p.num_labels) == ("random", 12))
    row = run._run(plan, start)
    assert row["num_pairs"] == len(row["gains"]) == 12 and np.ptp(row["gains"]) > 0
    assert row["displaced"]["training"] == pytest.approx(np.mean(row["gains"]))
    assert row["displaced"]["training_share"] == np.mean(np.array(row["gains"]) < 0)
    assert run._run(plan, start) == row  # read, not trained again
    relations = run._relations(0, scores, [row])["scores"]
    assert set(relations) == {CHES, CHES_MEAN, "cosine of mean states"}
    assert all(-1 <= value <= 1 for told in relations.values() for value in told.values())


def test_one_number_of_labels(experiment):
    with pytest.raises(ValueError, match=r"real.num_labels must be one number, .* got \(8, 12\)"):
        AlikePairSettings(real=experiment, kept_share=0.5)
