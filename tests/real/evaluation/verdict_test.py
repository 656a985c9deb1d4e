"""Verdicts on REAL's claims follow from the numbers: worked arithmetic, and other numbers."""

import pytest

from eagle_jax.real.evaluation.claims import (
    CONTRARY_CLAIMS,
    REAL_CLAIMS,
    findings,
    saving_findings,
    savings,
    stability_finding,
    stability_table,
)
from eagle_jax.real.evaluation.verdict import judged_pairs, similarity_bins, verdict
from eagle_jax.reports.verdicts import FAILS, HOLDS, UNDECIDED

_LEVELS = {"random": 0.5, "hard": 0.4, "easy": 0.7, "centroid": 0.7}


def _runs(levels, *, spread=0.01, seeds=3, train=None):
    """`levels` are those of everything that is better when larger; seeds move all but random."""
    rows = []
    for strategy, level in levels.items():
        for seed in range(seeds):
            value = level + spread * (seed - 1) * (strategy != "random")
            rewards = {"loss": 1.0 - value, "rewards/margin": value, "rewards/accuracy": value}
            row = {"strategy": strategy, "num_labels": 200, "seed": seed, "label_error_rate": 1.0 - value}
            row |= {"train": {"rewards/margin": (train or levels)[strategy]}, "held_out": rewards}
            rows.append(row | {"win_rate_true": value, "win_rate_rater": None})
    return rows


def _judged(runs, claims=REAL_CLAIMS):
    return {f.claim: f for f in findings(claims, runs, num_labels=200, confidence=0.95)}


def test_a_claim_holds_if_every_interval_lies_on_its_side():
    found = _judged(_runs(_LEVELS))
    # easy - random is 0.19, 0.20, 0.21: s = 0.01, t of 2 degrees of freedom at 97.5 % is 4.3027,
    # so +- 4.3027 * 0.01 / sqrt(3) = 0.0248; easy - hard is 0.3 on every seed.
    margin = found["easy: larger margin on held-out pairs"]
    assert margin.found == ["easy − random: +0.200 [+0.175, +0.225]", "easy − hard: +0.300 [+0.300, +0.300]"]
    assert margin.verdict == HOLDS
    loss = found["easy: lower loss on held-out pairs"]
    assert loss.found[0] == "easy − random: -0.200 [-0.225, -0.175]" and loss.verdict == HOLDS
    assert found["easy: fewer wrong labels"].verdict == HOLDS
    # centroid - easy is 0 on every seed.
    best = found["centroid is best of all: better win rate by true utility"]
    assert best.found[2] == "centroid − easy: +0.000 [+0.000, +0.000]"
    assert best.verdict == UNDECIDED
    rater = found["easy: better win rate by the rater"]
    assert rater.found == [] and rater.verdict == UNDECIDED


@pytest.mark.parametrize(
    ("runs", "outcome"),
    [
        (_runs(_LEVELS | {"easy": 0.6, "hard": 0.65}), FAILS),  # above one, below the other
        (_runs(_LEVELS | {"easy": 0.3}), FAILS),
        (_runs(_LEVELS, spread=0.1), UNDECIDED),  # 0.2 +- 0.248
        (_runs(_LEVELS, seeds=1), UNDECIDED),
        (_runs(_LEVELS, spread=0.0, seeds=2), UNDECIDED),  # no width, but by chance
        (_runs({"random": 0.5, "easy": 0.7}), UNDECIDED),  # without hard it is half the claim
    ],
)
def test_other_numbers_give_another_verdict(runs, outcome):
    found = _judged(runs)
    for told in ("larger margin", "lower loss"):
        assert found[f"easy: {told} on held-out pairs"].verdict == outcome


def test_small_gaps_are_judged_against_random_large_gaps_and_easy():
    levels = {"random": 0.5, "easy": 0.6}
    gaps = {"implicit_reward_gap_small": 0.7, "implicit_reward_gap_large": 0.55}
    told = "implicit_reward_gap_small: better accuracy on held-out pairs"
    assert _judged(_runs(levels | gaps), CONTRARY_CLAIMS)[told].verdict == HOLDS
    levels["easy"] = 0.8
    assert _judged(_runs(levels | gaps), CONTRARY_CLAIMS)[told].verdict == FAILS


def _rising(accuracies):
    """accuracies: strategy -> accuracy with 100 and with 200 labels."""
    return [
        {"strategy": strategy, "num_labels": budget, "seed": seed, "held_out": {"rewards/accuracy": accuracy + noise}}
        for strategy, pair in accuracies.items()
        for budget, accuracy in zip((100, 200), pair, strict=True)
        for seed in range(3)
        for noise in [0.001 * seed * (strategy != "random")]
    ]


def test_labels_saved_beyond_what_random_saves_by_chance():
    saved = savings(_rising({"random": (0.5, 0.6), "easy": (0.6, 0.7)}), 0.95)
    assert saved["easy"].sentence == "100 of 200 labels, 50 % saved; reached on 3 of 3 seeds"
    assert saved["random"].sentence == "200 of 200 labels, 0 % saved; reached on 3 of 3 seeds"
    easy, centroid = saving_findings(saved)
    assert easy.verdict == HOLDS
    assert "share saved, easy − random: +0.500 [+0.500, +0.500]" in easy.found
    assert centroid.found == [] and centroid.verdict == UNDECIDED
    # Random itself is at its last value with 100 labels: nobody saves more than it.
    flat = savings(_rising({"random": (0.6, 0.6), "easy": (0.6, 0.7)}), 0.95)
    assert flat["random"].sentence.startswith("100 of 200 labels, 50 % saved")
    assert saving_findings(flat)[0].verdict == UNDECIDED
    behind = savings(_rising({"random": (0.5, 0.6), "easy": (0.4, 0.5)}), 0.95)
    assert behind["easy"].sentence == "not reached with 200 labels; reached on 0 of 3 seeds"
    assert saving_findings(behind)[0].verdict == FAILS
    assert savings(_runs(_LEVELS), 0.95) == {}  # one number of labels


def _stability(last):
    names = ("strategy", "seed", "step", "quantiles", "rank_correlation", "easy_overlap")
    return [
        dict(zip(names, ("easy", seed, step, [0.1, 0.2, median, 0.4, 0.5], correlation, None), strict=True))
        for seed in range(3)
        for step, median, correlation in ((0, 0.3, 1.0), (20, 0.9, 0.2), (50 - seed, 0.35, last + 0.01 * (seed - 1)))
    ]


@pytest.mark.parametrize(("last", "outcome"), [(0.95, HOLDS), (0.91, UNDECIDED), (0.5, FAILS)])
def test_stability_is_judged_by_the_last_checkpoint(last, outcome):
    finding = stability_finding(stability_table(_stability(last), 0.95))
    assert finding.verdict == outcome
    assert finding.found == [
        f"easy, step 50: {last:.3f} [{last - 0.0248:.3f}, {last + 0.0248:.3f}], median similarity 0.300 → 0.350"
    ]
    assert stability_finding([]).found == []


def _pairs(wrong):
    """400 pairs of random in order of similarity; `wrong` of each quarter have wrong labels."""
    rows = [(place / 400, 1.0 - place / 400, place % 100 < wrong[place // 100]) for place in range(400)]
    rows += [(0.0, 0.0, None)] * 100  # without a label
    return [
        {"strategy": "random", "similarity": similarity, "true_gap": gap, "is_error": is_error}
        for similarity, gap, is_error in rows
    ]


def test_bins_of_similarity_have_wilsons_interval():
    pairs = judged_pairs(_pairs((10, 10, 40, 40)), "random")
    first, last = similarity_bins(pairs, 2, 0.95)
    # Wilson for 20 of 200: (20 + z^2/2 +- z sqrt(20 * 180 / 200 + z^2/4)) / (200 + z^2), z = 1.96.
    error = first["error"]
    assert (error.mean, error.low, error.high) == pytest.approx((0.1, 0.0657, 0.1494), abs=1e-4)
    assert first["similarity"] == pytest.approx(199 / 800) and last["error"].mean == 0.4
    assert first["gap"].mean == pytest.approx(1 - 199 / 800)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ((10, 20, 30, 40), "10 % [5.5 %, 17.4 %] wrong labels, the most similar 40 % [30.9 %, "
                           "49.8 %]: dissimilar pairs are easier to label."),
        ((40, 30, 20, 10), "dissimilar pairs are harder to label."),
        ((20, 20, 20, 22), "no difference is shown."),
    ],
)  # fmt: skip
def test_summary_tells_whether_similar_pairs_are_harder_to_label(wrong, said):
    assert any(sentence.endswith(said) for sentence in _said(_runs(_LEVELS), _pairs(wrong)))


def _said(runs, pairs=()):
    at = {"num_labels": 200, "confidence": 0.95}
    real, contrary = (findings(claims, runs, **at) for claims in (REAL_CLAIMS, CONTRARY_CLAIMS))
    return list(verdict(runs, pairs, real, contrary, **at))


def test_summary_follows_the_numbers():
    said = _said(_runs(_LEVELS | {"centroid": 0.45}, train=_LEVELS | {"hard": 0.9}))
    for sentence in (
        "12 models were trained: strategies centroid, easy, hard, random; labels 200; seeds: 3. "
        "Claims are judged with 200 labels.",
        "What REAL claims of easy holds for margin, loss, wins by true utility, wrong labels.",
        "What REAL claims of centroid does not hold for margin, loss, wins by true utility, wrong "
        "labels, best of all in wins by true utility.",
        "What the contrary paper claims of implicit_reward_gap_small was not measured in this run.",
        "Accuracy on held-out pairs (chance: 0.5), highest first: easy 0.700, random 0.500, "
        "centroid 0.450, hard 0.400.",
        "Margin on the own pairs of each strategy in its last epoch, highest first: hard "
        "0.900, easy 0.700, centroid 0.700, random 0.500; on the held-out pairs, the same for all: "
        "easy 0.700, random 0.500, centroid 0.450, hard 0.400.",
    ):
        assert sentence in said
    assert not any("Win rate by the rater" in sentence for sentence in said)


def test_one_seed_decides_nothing_and_says_so():
    said = _said(_runs(_LEVELS, seeds=1))
    assert said[0].endswith("Fewer than 3 seeds decide nothing.")
    assert (
        "What REAL claims of easy is not decided here for margin, loss, wins by true utility, wrong labels."
    ) in said
    # Without hard half of the claim is missing.
    found = _judged(_runs({"random": 0.5, "easy": 0.7}, seeds=1))
    assert found["easy: larger margin on held-out pairs"].found == [
        "easy − random: +0.190 (one seed, no interval)",
        "easy − hard: not measured",
    ]
