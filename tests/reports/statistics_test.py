"""Intervals against scipy.stats.bootstrap, the normal theory, and their coverage."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from eagle_jax.reports.statistics import (
    BootstrapSettings,
    Interval,
    bootstrap_interval,
    crossed_interval,
    paired_difference,
    separated,
    t_interval,
)

SETTINGS = BootstrapSettings(num_resamples=4000, confidence=0.95, seed=0)


def test_agrees_with_scipy():
    values = np.random.default_rng(0).exponential(size=60)
    peer = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = bootstrap_interval(values, SETTINGS)
    width = peer.high - peer.low
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(peer.low, abs=0.05 * width)
    assert ours.high == pytest.approx(peer.high, abs=0.05 * width)
    assert (ours.num_values, ours.num_clusters) == (60, 60)


def test_confidence_sets_the_width():
    values = np.random.default_rng(2).normal(size=200)
    narrow = bootstrap_interval(values, dataclasses.replace(SETTINGS, confidence=0.6827))
    # One standard error to each side.
    error = values.std() / np.sqrt(200)
    assert narrow.high - narrow.low == pytest.approx(2 * error, rel=0.08)


def test_same_seed_same_interval_whatever_the_block(monkeypatch):
    values = np.random.default_rng(3).normal(size=50)
    first = bootstrap_interval(values, SETTINGS)
    assert first == bootstrap_interval(values, SETTINGS)
    assert first != bootstrap_interval(values, dataclasses.replace(SETTINGS, seed=1))
    monkeypatch.setattr("eagle_jax.reports.statistics._BLOCK_ENTRIES", 500)
    assert first == bootstrap_interval(values, SETTINGS)


def test_clusters_of_copies_count_once():
    rng = np.random.default_rng(4)
    values = rng.normal(size=40)
    labels = [f"pair-{i}" for i in range(40)]
    alone = bootstrap_interval(values, SETTINGS)
    copied = bootstrap_interval(np.tile(values, 5), SETTINGS, clusters=labels * 5)
    assert copied.low == pytest.approx(alone.low) and copied.high == pytest.approx(alone.high)
    assert (copied.num_values, copied.num_clusters) == (200, 40)
    unclustered = bootstrap_interval(np.tile(values, 5), SETTINGS)
    assert unclustered.high - unclustered.low < 0.6 * (alone.high - alone.low)


def test_clusters_of_unequal_size_are_weighted_by_their_values():
    # Two clusters, {0, 0, 0} and {4}: half of the resamples are both (mean 1, not 2), a quarter
    # each the first twice (0) or the second twice (4).
    values, labels = [0, 0, 0, 4], [(1, 2), (1, 2), (1, 2), (1, 3)]
    interval = bootstrap_interval(values, SETTINGS, clusters=labels)
    assert (interval.mean, interval.low, interval.high) == (1.0, 0.0, 4.0)
    inner = dataclasses.replace(SETTINGS, confidence=0.4)
    interval = bootstrap_interval(values, inner, clusters=labels)
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_coverage_with_correlated_seeds():
    rng = np.random.default_rng(5)
    settings = dataclasses.replace(SETTINGS, num_resamples=500)
    labels = np.repeat(np.arange(50), 3)
    covered = {"clustered": 0, "plain": 0}
    for _ in range(200):
        values = np.repeat(rng.normal(size=50), 3) + 0.3 * rng.normal(size=150)
        for name, clusters in (("clustered", labels), ("plain", None)):
            interval = bootstrap_interval(values, settings, clusters=clusters)
            covered[name] += interval.low <= 0.0 <= interval.high
    assert covered["clustered"] >= 180  # 95 % is 190, standard deviation 3
    assert covered["plain"] < 170  # what clustering repairs


def test_pairing_removes_what_the_starts_share():
    rng = np.random.default_rng(6)
    start = 10 * rng.normal(size=80)
    before, after = start + rng.normal(size=80), start + 0.8 + rng.normal(size=80)
    difference = paired_difference(after, before, SETTINGS)
    assert difference.low > 0 and difference.mean == pytest.approx((after - before).mean())
    assert not separated(bootstrap_interval(after, SETTINGS), bootstrap_interval(before, SETTINGS))
    # Student's paired interval is close at this size.
    student = scipy.stats.ttest_rel(after, before).confidence_interval(0.95)
    assert difference.low == pytest.approx(student.low, abs=0.05)
    assert difference.high == pytest.approx(student.high, abs=0.05)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_few_values_have_students_interval(confidence):
    values = np.random.default_rng(7).normal(2.0, 3.0, size=5)
    ours = t_interval(values, confidence)
    peer = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    np.testing.assert_allclose([ours.mean, ours.low, ours.high], [values.mean(), *peer])
    # -1, 0, 1: s = 1, and t of 2 degrees of freedom at 95 % is 4.303.
    by_hand = t_interval([-1, 0, 1], 0.95)
    assert by_hand.high == pytest.approx(4.3027 / 3**0.5, abs=1e-4)
    assert t_interval([2.0, 2.0], confidence) == Interval(mean=2.0, low=2.0, high=2.0, num_values=2, num_clusters=2)


def test_separated_means_above_without_overlap():
    def interval(low, high):
        return Interval(mean=(low + high) / 2, low=low, high=high, num_values=9, num_clusters=9)

    assert separated(interval(2.0, 3.0), interval(0.0, 1.9))
    assert not separated(interval(2.0, 3.0), interval(0.0, 2.0))
    assert not separated(interval(0.0, 1.0), interval(2.0, 3.0))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="1 values are not finite"):
        bootstrap_interval([1.0, np.nan, 2.0], SETTINGS)
    with pytest.raises(ValueError, match="at least two independent"):
        bootstrap_interval([1.0, 2.0], SETTINGS, clusters=["same", "same"])
    with pytest.raises(ValueError, match="3 cluster labels for 2 values"):
        bootstrap_interval([1.0, 2.0], SETTINGS, clusters=[1, 2, 3])
    with pytest.raises(ValueError, match="equal shapes"):
        paired_difference([1.0, 2.0], [1.0], SETTINGS)
    with pytest.raises(ValueError, match="at least two independent values, got 1"):
        t_interval([1.0], 0.95)
    with pytest.raises(ValueError, match="1 values are not finite"):
        t_interval([1.0, np.inf], 0.95)


def test_crossed_factors_are_resampled_as_rows_and_columns_of_their_table_are():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(9, 1)) + 0.5 * rng.normal(size=(1, 7)) + 0.2 * rng.normal(size=(9, 7))
    rows, columns = np.divmod(np.arange(table.size), 7)
    ours = crossed_interval(table.ravel(), SETTINGS, rows, columns)
    means = [table[rng.integers(9, size=9)][:, rng.integers(7, size=7)].mean() for _ in range(20_000)]
    np.testing.assert_allclose([ours.low, ours.high], np.quantile(means, (0.025, 0.975)), atol=0.05)
    assert ours.mean == pytest.approx(table.mean()) and ours.num_clusters == 7
    # Rows that share a column are no evidence of their own: films alone would be too sure.
    films = bootstrap_interval(table.ravel(), SETTINGS)
    assert ours.high - ours.low > 2 * (films.high - films.low)


def test_one_factor_of_its_own_labels_is_the_plain_bootstrap():
    values = np.random.default_rng(1).normal(size=40)
    plain, crossed = bootstrap_interval(values, SETTINGS), crossed_interval(values, SETTINGS, range(40))
    np.testing.assert_allclose([crossed.low, crossed.high], [plain.low, plain.high], atol=0.03)


def test_crossed_intervals_cover_the_mean_that_films_and_users_were_drawn_around():
    rng = np.random.default_rng(2)
    rows, columns = np.divmod(np.arange(15 * 20), 20)
    settings = dataclasses.replace(SETTINGS, num_resamples=300)
    covered = 0
    for _ in range(100):
        values = rng.normal(size=15)[rows] + rng.normal(size=20)[columns] + rng.normal(size=300)
        found = crossed_interval(values, settings, rows, columns)
        covered += found.low <= 0 <= found.high
    assert covered >= 88


def test_crossed_factors_may_lack_cells_and_must_have_levels():
    values, films, users = [1.0, 2.0, 4.0], ["a", "a", "b"], [0, 1, 1]
    found = crossed_interval(values, SETTINGS, films, users)
    assert 1 <= found.low <= found.mean <= found.high <= 4
    with pytest.raises(ValueError, match="two levels"):
        crossed_interval(values, SETTINGS, films, [0, 0, 0])
    with pytest.raises(ValueError, match="2 labels for 3 values"):
        crossed_interval(values, SETTINGS, films, [0, 1])
    with pytest.raises(ValueError, match="not finite"):
        crossed_interval([1.0, np.nan, 2.0], SETTINGS, films, users)
