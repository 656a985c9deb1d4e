"""Tables and curves of consistency: worked means, clusters, pairing, separation, counts."""

import json

import numpy as np
import pytest

from eagle_jax.elm.evaluation.consistency_table import (
    ConsistencyRecord,
    compare_consistency,
    consistency_curve,
    semantic_path,
    summarize_consistency,
)
from eagle_jax.embeddings.interpolation import interpolate
from eagle_jax.reports.statistics import BootstrapSettings, bootstrap_interval

SETTINGS = BootstrapSettings(num_resamples=500, confidence=0.95, seed=0)
SINGLE = {"single": ("summary", "pitch")}


def record(system, task, item, seed, value, malformed=None):
    return ConsistencyRecord(
        system=system, task=task, entities=(item,), seed=seed, scores={"sc": value}, malformed=malformed
    )


def written(system, shift, seeds, num_items=12):
    """Items differ much, and alike for every system."""
    rng = np.random.default_rng(1)
    level = rng.normal(size=num_items)
    return [
        record(system, task, item, seed, level[item] + shift + 0.01 * rng.normal())
        for task in SINGLE["single"]
        for item in range(num_items)
        for seed in seeds
    ]


def compare(records, system="elm", baseline="nearest"):
    return compare_consistency(records, "single", SINGLE["single"], [(system, baseline)], SETTINGS)


def test_means_count_every_output_and_resample_items():
    records = [
        record("elm", "summary", 0, 0, 0.9),
        record("elm", "summary", 1, 0, -1.0, "length"),
        record("elm", "pitch", 0, 1, 0.5),
        record("nearest", "summary", 0, 0, 0.3),
        record("nearest", "summary", 1, 0, 0.1),
    ]
    rows = summarize_consistency(records, {"summary": ["summary"], **SINGLE}, SETTINGS)
    assert [(r["group"], r["system"]) for r in rows] == [
        ("summary", "elm"),
        ("summary", "nearest"),
        ("single", "elm"),
        ("single", "nearest"),
    ]
    assert rows[0]["cells"]["sc"]["mean"] == pytest.approx(-0.05)  # the malformed one counts
    assert rows[0]["malformed"] == {"length": 1}
    assert rows[2]["cells"]["sc"]["mean"] == pytest.approx((0.9 - 1.0 + 0.5) / 3)
    assert [rows[2][n] for n in ("num_outputs", "num_entities", "num_seeds")] == [3, 2, 2]
    expected = bootstrap_interval([0.9, -1.0, 0.5], SETTINGS, clusters=[0, 1, 0])
    assert rows[2]["cells"]["sc"]["low"] == expected.low
    json.dumps(rows, allow_nan=False)


def test_differences_are_paired_and_separation_is_stricter():
    records = written("elm", 0.2, range(3)) + written("nearest", 0.0, range(1))
    (compared,) = compare(records)
    assert compared["difference"]["mean"] == pytest.approx(0.2, abs=0.01)
    assert compared["difference"]["low"] > 0.18
    assert not compared["separated"]  # the items' spread is wider than the difference
    far = written("elm", 9.0, range(3)) + written("nearest", 0.0, range(1))
    assert compare(far)[0]["separated"]
    assert not compare(far, "nearest", "elm")[0]["separated"]
    assert compared["system_mean"]["mean"] == pytest.approx(
        summarize_consistency(records, SINGLE, SETTINGS)[0]["cells"]["sc"]["mean"]
    )
    json.dumps(compared, allow_nan=False)


def test_rows_that_do_not_match_are_refused():
    whole, part = written("elm", 0.0, [0]), written("nearest", 0.0, [0])[:-1]
    with pytest.raises(ValueError, match="answered other rows"):
        compare(whole + part)
    with pytest.raises(ValueError, match="no output of 'nearest'"):
        compare(whole)
    odd = ConsistencyRecord(system="elm", task="pitch", entities=(3,), seed=0, scores={"bc": 1.0}, malformed=None)
    with pytest.raises(ValueError, match="task pitch has .'bc'., others .'sc'."):
        summarize_consistency([*whole, odd], SINGLE, SETTINGS)
    with pytest.raises(ValueError, match="not finite"):
        summarize_consistency([*whole, record("elm", "pitch", 0, 1, np.nan)], SINGLE, SETTINGS)


def read_numbers(texts):
    """P of texts that spell their own embedding."""
    return np.array([[float(number) for number in text.split()] for text in texts])


def spelled(points):
    return [[" ".join(map(str, row)) for row in of_position] for of_position in points]


def test_interpolation_curve_of_a_perfect_decoder():
    first, second = np.array([[1.0, 0.0]] * 3), np.array([[0.0, 1.0]] * 3)
    alphas = [0.0, 0.5, 1.0]
    points = np.stack([interpolate(first, second, alpha) for alpha in alphas])
    texts = spelled(points)
    texts[1][2] = None
    targets = {"sc/point": points, "sc/first": first, "sc/second": second}
    rows = consistency_curve(alphas, texts, semantic_path(read_numbers, texts, targets), [0, 1, 2], SETTINGS)
    means = {name: [row["cells"][name]["mean"] for row in rows] for name in targets}
    halfway = np.sqrt(0.5)
    np.testing.assert_allclose(means["sc/point"], [1, (1 + 1 - 1) / 3, 1])
    np.testing.assert_allclose(means["sc/first"], [1, (2 * halfway - 1) / 3, 0], atol=1e-12)
    np.testing.assert_allclose(means["sc/second"], [0, (2 * halfway - 1) / 3, 1], atol=1e-12)
    assert [row["num_malformed"] for row in rows] == [0, 1, 0]
    assert [row["position"] for row in rows] == alphas
    json.dumps(rows, allow_nan=False)
