"""Summaries and the report on rows that are made up, so that what is to be said is known."""

import json

import numpy as np
import pytest

from eagle_jax.reports.statistics import BootstrapSettings
from eagle_jax.studies.people import alike_pairs, edit_rounds, pair_rewards
from eagle_jax.studies.people.report import (
    PeopleReport,
    alike_sentences,
    edit_sentences,
    pair_sentences,
    write_people_report,
)
from eagle_jax.studies.people.summaries import summarize_alike_pairs, summarize_edits, summarize_pair_rewards

BOOTSTRAP = BootstrapSettings(num_resamples=200, confidence=0.95, seed=0)
NOISE = 0.01 * np.random.default_rng(0).standard_normal(30)


def pair_row(method, group, accuracy, num_feedback=None, features=None, num_prototypes=None):
    return {
        "method": method, "features": features, "num_prototypes": num_prototypes, "group": group,
        "num_feedback": num_feedback, "accuracy": (accuracy + NOISE).tolist(),
    }  # fmt: skip


@pytest.fixture(scope="module")
def rewards():
    """With one pair WALS is ahead, with five PAL is; K = 4 is the best, slots are as good as states."""
    rows = [pair_row(pair_rewards.KNOWN, group, 0.9) for group in ("seen", "new")]
    for method, low, high in ((pair_rewards.WALS, 0.6, 0.7), (pair_rewards.WALS_PRIOR, 0.6, 0.7)):
        rows.append(pair_row(method, "seen", 0.8, 20))
        rows += [pair_row(method, "new", low, 1), pair_row(method, "new", high, 5)]
    for features in (pair_rewards.STATES, pair_rewards.READ_SLOTS):
        for count, seen, new in ((1, 0.52, (0.52, 0.52)), (4, 0.75, (0.55, 0.75))):
            about = {"features": features, "num_prototypes": count}
            rows.append(pair_row(pair_rewards.PAL, "seen", seen, 20, **about))
            for method in (pair_rewards.PAL, pair_rewards.PAL_PLAIN):
                rows += [pair_row(method, "new", value, n, **about) for n, value in zip((1, 5), new, strict=True)]
    return summarize_pair_rewards(rows, BOOTSTRAP)


def test_accuracies_and_differences(rewards):
    assert rewards["best"] == {pair_rewards.STATES: 4, pair_rewards.READ_SLOTS: 4}
    cells = {row["row"]: row["cells"] for row in rewards["table"]}
    assert cells[pair_rewards.WALS]["new 5"]["mean"] == pytest.approx(0.7 + NOISE.mean())
    assert cells[pair_rewards.KNOWN]["new 1"] == cells[pair_rewards.KNOWN]["new 5"]
    said = list(pair_sentences(rewards))
    states = f"{pair_rewards.PAL}, K = 4, {pair_rewards.STATES}"
    assert any(s.startswith(f"With 1 pair or rating: {states} is worse than WALS: -0.050") for s in said)
    assert any(s.startswith(f"With 5 pairs or ratings: {states} is better than WALS: +0.050") for s in said)
    assert any("is not told apart from" in s for s in said)  # slots and states


@pytest.fixture(scope="module")
def edits():
    """Costs fall to 0 where all edits are used, to 1 with CIPHER, and nobody else learns; correlations alike."""
    final = {edit_rounds.ALL_EDITS: 0.0, edit_rounds.CIPHER: 1.0, edit_rounds.CIPHER_KEPT: 1.0}
    rows = []
    for tastes in edit_rounds.TASTES:
        for learner in edit_rounds.LEARNERS:
            cost = np.linspace(3.0, final.get(learner, 3.0), 8)[:, None] + NOISE[None]
            measures = {"cost": cost, "correlation": 1 - cost / 3, "affinity": -cost}
            told = {name: values.tolist() for name, values in measures.items()}
            rows.append({"tastes": tastes, "learner": learner, "malformed": {"length": 2}, **told})
    return summarize_edits(rows, BOOTSTRAP)


def test_costs_and_correlations(edits):
    cells = {(row["tastes"], row["row"]): row["cells"] for row in edits["table"]}
    cipher = cells[edit_rounds.TASTES[0], edit_rounds.CIPHER]
    assert cipher["cost"]["mean"] == pytest.approx(2.0 + NOISE.mean())
    assert cipher["last"]["mean"] == pytest.approx(np.linspace(3, 1, 8)[-2:].mean() + NOISE.mean())
    said = list(edit_sentences(edits))
    start = f"One taste: {edit_rounds.CIPHER} is"
    assert any(
        s.startswith(f"{start} better than {edit_rounds.NOTHING}: -1.000") and "more of the taste" in s for s in said
    )
    assert any(s.startswith(f"{start} worse than {edit_rounds.ALL_EDITS}: +0.500") and "less of it" in s for s in said)


@pytest.fixture(scope="module")
def alike():
    """The least alike half gains 2 nats where all lose 1 and the most alike half loses 4."""
    gains = {"easy": 1.0, alike_pairs.RANDOM_PAIRS: -1.0}
    score = alike_pairs.CHES_MEAN
    gains |= {f"{score}, {alike_pairs.LOW}": 2.0, f"{score}, {alike_pairs.HIGH}": -4.0}
    places = [(name, 16) for name in gains] + [(alike_pairs.RANDOM_PAIRS, 8)]
    runs = [
        {
            "strategy": name, "num_labels": count, "seed": seed, "num_pairs": 8, "label_error_rate": 0.2,
            "mean_true_gap": 1.0, "win_rate_true": 0.5 + 0.01 * seed, "mean_true_utility": 0.1,
            "held_out": {"rewards/accuracy": 0.6},
            "displaced": {"training": gains[name] + 0.1 * seed, "training_share": 0.5, "held_out": 0.0},
        }
        for name, count in places
        for seed in range(3)
    ]  # fmt: skip
    scores = {alike_pairs.CHES: {"gain": -0.5, "similarity": 0.2, "true_gap": 0.0}}
    scores["cosine of mean states"] = {"gain": -0.1, "true_gap": -0.3}
    return summarize_alike_pairs({"runs": runs, "pairs": [{"seed": s, "scores": scores} for s in range(3)]}, 0.95)


def test_displacement(alike):
    cells = {(row["row"], row["num_labels"]): row["cells"] for row in alike["table"]}
    assert cells[alike_pairs.RANDOM_PAIRS, 16]["displaced_training"]["mean"] == pytest.approx(-0.9)
    said = list(alike_sentences(alike))
    low = f"{alike_pairs.CHES_MEAN}, {alike_pairs.LOW} (16 labels)"
    assert any(
        s.startswith(f"{low} against random (16 labels): preferred responses gain more") and "+3.000" in s for s in said
    )
    assert any(s.startswith(f"{low} against random (8 labels)") for s in said)


def test_the_report_is_one_page_with_figures(tmp_path, rewards, edits, alike):
    settings = {
        "pair_rewards": {"tastes": {"feedback_per_seen_user": 20, "rating_noise": 0.3}},
        "alike_pairs": {"kept_share": 0.5},
        "edits": {"max_edits": 3},
    }
    report = PeopleReport(
        title="People <made up>", settings=settings, provenance={"python": "3"}, confidence=0.95, num_resamples=200,
        seed=0, pair_rewards=rewards, edits=edits, alike_pairs=alike,
    )  # fmt: skip
    page = write_people_report(tmp_path, report).read_text()
    assert "People &lt;made up&gt;" in page and page.count("<svg") == 2
    tables = json.loads((tmp_path / "results.json").read_text())["tables"]
    assert [table["section"] for table in tables[:6]] == [
        "What helps, what does not",
        "Rewards",
        "One taste",
        "Two tastes, by the context",
        "Pairs that are too alike",
        "What scores tell of pairs",
    ]
    verdicts = {(row[0], row[1], row[2]): row[4] for row in tables[0]["rows"]}
    states = f"{pair_rewards.PAL}, K = 4, {pair_rewards.STATES}"
    assert verdicts[states, pair_rewards.WALS, "accuracy, 5 pairs or ratings"] == "helps"
    assert verdicts[edit_rounds.CIPHER, edit_rounds.ALL_EDITS, "cost, one taste"] == "harms"  # costs are better low
    low, high = (f"{alike_pairs.CHES_MEAN}, {side} (16 labels)" for side in (alike_pairs.LOW, alike_pairs.HIGH))
    assert verdicts[low, high, "accuracy"] == "not told apart"
