"""Tables over seeds by hand and against SciPy; labels saved on curves whose crossings are known."""

import numpy as np
import pytest
import scipy.stats

from eagle_jax.real.evaluation.table import (
    Cell,
    SeedMean,
    labels_saved,
    labels_to_reach,
    paired_differences,
    seed_means,
)


def run(strategy, seed, accuracy, num_labels=100, **more):
    return {
        "strategy": strategy,
        "num_labels": num_labels,
        "seed": seed,
        "rater": "nobody",
        "held_out": {"rewards/accuracy": accuracy},
        **more,
    }


ACCURACY = "held_out/rewards/accuracy"


def test_means_and_intervals_agree_with_scipy():
    values = {"easy": [0.7, 0.8, 0.75, 0.9, 0.6], "random": [0.5, 0.6, 0.65, 0.5, 0.7]}
    runs = [run(name, seed, v) for name, column in values.items() for seed, v in enumerate(column)]
    means = seed_means(runs, 0.9)
    assert list(means) == [Cell("easy", 100, ACCURACY), Cell("random", 100, ACCURACY)]
    for name, column in values.items():
        peer = scipy.stats.t.interval(0.9, 4, np.mean(column), scipy.stats.sem(column))
        ours = means[Cell(name, 100, ACCURACY)]
        np.testing.assert_allclose(ours, [np.mean(column), *peer, 5])
    differences = paired_differences(runs, 0.9)
    paired = scipy.stats.ttest_rel(values["easy"], values["random"]).confidence_interval(0.9)
    assert list(differences) == [Cell("easy", 100, ACCURACY)]
    # 0.2, 0.2, 0.1, 0.4, -0.1: the mean is 0.16.
    np.testing.assert_allclose(differences[Cell("easy", 100, ACCURACY)], [0.16, *paired, 5])
    turned = paired_differences(runs, 0.9, baseline="easy")
    np.testing.assert_allclose(turned[Cell("random", 100, ACCURACY)][:2], [-0.16, -paired.high])


def test_pairs_are_those_of_equal_seeds_whatever_their_order():
    easy = [run("easy", seed, 10 * seed + 1.0) for seed in (2, 0, 1)]
    random = [run("random", seed, 10.0 * seed) for seed in (0, 1, 2)]
    difference = paired_differences(easy + random, 0.95)
    assert difference[Cell("easy", 100, ACCURACY)] == SeedMean(1.0, 1.0, 1.0, 3)


def test_what_some_runs_do_not_have_is_left_out_and_seen_in_the_count():
    runs = [run("easy", seed, 0.5, win_rate_rater=rate) for seed, rate in enumerate([0.2, None])]
    runs += [run("random", seed, 0.5, win_rate_rater=rate) for seed, rate in enumerate([0.1, 0.4])]
    runs += [run("hard", seed, 0.5, win_rate_rater=None) for seed in (0, 1)]
    means = seed_means(runs, 0.95)
    assert means[Cell("easy", 100, "win_rate_rater")] == SeedMean(0.2, None, None, 1)
    assert means[Cell("random", 100, "win_rate_rater")].num_seeds == 2
    assert Cell("hard", 100, "win_rate_rater") not in means
    difference = paired_differences(runs, 0.95)[Cell("easy", 100, "win_rate_rater")]
    assert difference == SeedMean(pytest.approx(0.1), None, None, 1)


def test_runs_that_cannot_be_told_are_named():
    with pytest.raises(ValueError, match="'easy', num_labels 100, seed 1, .*accuracy'.* nan"):
        seed_means([run("easy", 0, 0.5), run("easy", 1, np.nan)], 0.95)
    with pytest.raises(ValueError, match="'easy', num_labels 100, seed 0, .*two rows"):
        seed_means([run("easy", 0, 0.5)] * 2, 0.95)
    unpaired = [run("easy", 0, 0.5), run("easy", 1, 0.5), run("random", 0, 0.5)]
    with pytest.raises(ValueError, match="'easy', num_labels 100, seed 1: .*no run of 'random'"):
        paired_differences(unpaired, 0.95)
    with pytest.raises(ValueError, match="no run of 'random' has the metric 'loss'"):
        labels_saved(unpaired, "loss")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (0.65, 150.0),  # half of the way from 0.6 to 0.7
        (0.6, 100.0),
        (0.7, 200.0),
        (0.5, 100.0),  # the smallest that was tried
        (0.72, 200 + 200 * 0.02 / 0.1),  # the first crossing, although the curve falls again
        (0.81, None),
    ],
)
def test_labels_to_reach_by_hand(target, expected):
    reached = labels_to_reach({200: 0.7, 100: 0.6, 400: 0.8, 800: 0.71}, target)
    assert reached == (None if expected is None else pytest.approx(expected))


def curves(strategy, *by_seed, budgets=(100, 200, 400)):
    return [
        run(strategy, seed, value, budget)
        for seed, values in enumerate(by_seed)
        for budget, value in zip(budgets, values, strict=True)
    ]


def test_labels_saved_by_hand():
    runs = [
        *curves("random", (0.5, 0.6, 0.7), (0.5, 0.7, 0.8)),  # mean 0.5, 0.65, 0.75
        *curves("easy", (0.6, 0.8, 0.9), (0.7, 0.9, 0.9)),  # mean 0.65, 0.85, 0.9
        *curves("hard", (0.5, 0.5, 0.6), (0.5, 0.6, 0.8)),  # mean 0.5, 0.55, 0.7
    ]
    saved = labels_saved(runs, ACCURACY)
    # 0.75 lies half of the way from 0.65 to 0.85: 150 of 400. Seeds: 0.7 at 150, 0.8 at 150.
    half_way = pytest.approx({0: 0.625, 1: 0.625})
    assert saved["easy"] == (pytest.approx(150), pytest.approx(0.625), half_way)
    assert saved["hard"] == (None, None, {0: None, 1: 0.0})
    assert saved["random"] == (400, 0, {0: 0, 1: 0})
    # The control shows a curve that no longer rises.
    flat = curves("random", (0.7, 0.7, 0.7), (0.5, 0.9, 0.8))
    assert labels_saved(flat, ACCURACY)["random"].by_seed == {0: 0.75, 1: pytest.approx(0.5625)}


def test_curves_drawn_from_a_law_give_its_saving():
    """accuracy = 1 - (c n)^(-1/2): with c = 4 a quarter of the labels does as well."""
    budgets = np.arange(100, 2001, 100)
    laws = {"random": 1.0, "easy": 4.0, "hard": 0.25}
    runs = [
        row
        for name, factor in laws.items()
        for row in curves(name, 1 - (factor * budgets) ** -0.5, budgets=budgets.tolist())
    ]
    saved = labels_saved(runs, ACCURACY)
    assert saved["easy"].share_saved == pytest.approx(0.75, abs=1e-9)
    assert saved["hard"].share_saved is None and saved["random"].share_saved == 0.0
