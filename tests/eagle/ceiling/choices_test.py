"""What choosing gains, against a loop over every pair of an anchor and a user."""

import numpy as np
import pytest

from eagle_jax.eagle.ceiling.choices import (
    ANY_INSTRUCTION,
    BEST_REWRITING,
    FIELD_CHANGE,
    FOR_ANOTHER,
    ONE_INSTRUCTION,
    OTHER_ENTITIES,
    Worth,
    choices,
    gains,
    measure,
)
from eagle_jax.eagle.ceiling.report import ceiling_sentences
from eagle_jax.eagle.ceiling.stage import is_above_noise
from eagle_jax.reports.statistics import BootstrapSettings

NUM_ANCHORS, NUM_USERS, NUM_REWRITES, NUM_CHANGES, NUM_FILMS = 4, 7, 5, 2, 3
BOOTSTRAP = BootstrapSettings(num_resamples=300, confidence=0.95, seed=0)


def drawn(rng, num_users=NUM_USERS):
    num_texts = 1 + NUM_REWRITES + NUM_CHANGES + NUM_FILMS
    personal = rng.normal(size=(num_users, num_texts))
    return Worth(rng.normal(size=num_texts), personal - personal.mean(axis=0), 0.3 * rng.normal(size=num_texts))


@pytest.fixture
def worths():
    rng = np.random.default_rng(0)
    return {name: [drawn(rng) for _ in range(NUM_ANCHORS)] for name in ("train", "held_out")}


def total(worth, user, text):
    return worth.common[text] + worth.personal[user, text] + worth.other[text]


def test_every_choice_is_what_a_loop_finds(worths):
    found = choices([own.part("utility") for own in worths["train"]], NUM_REWRITES, NUM_FILMS)
    rewrites = range(1, 1 + NUM_REWRITES)
    changes = range(rewrites.stop, rewrites.stop + NUM_CHANGES)
    films = range(changes.stop, changes.stop + NUM_FILMS)

    def mean_gain(text):
        of_pairs = [total(own, u, text) - total(own, u, 0) for own in worths["train"] for u in range(NUM_USERS)]
        return sum(of_pairs) / len(of_pairs)

    fixed = max([0, *rewrites], key=mean_gain)
    judged = {name: gains(weights, worths["held_out"], "utility") for name, weights in found.items()}
    for a, (own, judge) in enumerate(zip(worths["train"], worths["held_out"], strict=True)):
        for u in range(NUM_USERS):
            best, for_next = (
                max([0, *rewrites], key=lambda text, own=own, user=user: total(own, user, text))
                for user in (u, (u + 1) % NUM_USERS)
            )
            film = max([0, *films], key=lambda text, own=own, u=u: total(own, u, text))
            change = max([0, *changes], key=lambda text, own=own, u=u: total(own, u, text))
            chosen = {BEST_REWRITING: best, FOR_ANOTHER: for_next, ONE_INSTRUCTION: fixed}
            chosen |= {FIELD_CHANGE: change, OTHER_ENTITIES: film}
            wanted = {name: total(judge, u, text) for name, text in chosen.items()}
            wanted[ANY_INSTRUCTION] = sum(total(judge, u, text) for text in rewrites) / NUM_REWRITES
            assert wanted.keys() == judged.keys()
            for name, value in wanted.items():
                assert judged[name][a, u] == pytest.approx(value - total(judge, u, 0))


def test_parts_add_up_and_the_reward_never_thinks_less_of_its_choice(worths):
    weights = choices([own.part("utility") for own in worths["train"]], NUM_REWRITES, NUM_FILMS)[BEST_REWRITING]
    parts = {name: gains(weights, worths["train"], name) for name in ("utility", "user_term", "common", "other")}
    personal = gains(weights, worths["train"], "personal")
    np.testing.assert_allclose(parts["user_term"], parts["common"] + personal)
    np.testing.assert_allclose(parts["utility"], parts["user_term"] + parts["other"])
    assert (parts["utility"] >= 0).all()


def test_a_judge_that_shares_nothing_with_the_reward_leaves_the_ceiling_in_the_noise():
    """The reward chooses among errors of its own: the winner's curse, which another encoder does not share."""
    rng = np.random.default_rng(3)
    unrelated = {name: [drawn(rng, 40) for _ in range(12)] for name in ("train", "independent")}
    found = measure(unrelated, "train", list("abcde"), NUM_FILMS, BOOTSTRAP) | {"judge": "independent"}
    (best,) = (row["cells"] for row in found["rows"] if row["choice"] == BEST_REWRITING)
    assert best["train/user_term"]["low"] > 0.5 and not is_above_noise(found)
    assert "within noise" in ceiling_sentences(found)[0]
    assert abs(found["reliability"]["independent"]["personal"]) < 0.1


def test_a_judge_that_agrees_lifts_it_out(worths):
    same = {"train": worths["train"], "independent": worths["train"]}
    found = measure(same, "train", list("abcde"), NUM_FILMS, BOOTSTRAP) | {"judge": "independent"}
    assert is_above_noise(found) and "within noise" not in ceiling_sentences(found)[0]
    assert found["reliability"]["independent"]["personal"] == pytest.approx(1)
    assert found["favourite"] in list("abcde") and 0 < found["favourite_share"] <= 1


def test_what_was_chosen_for_others_keeps_what_everybody_likes_and_nothing_personal():
    rng = np.random.default_rng(4)
    worths = {name: [drawn(rng, 200) for _ in range(20)] for name in ("train",)}
    cells = {
        row["choice"]: row["cells"] for row in measure(worths, "train", list("abcde"), NUM_FILMS, BOOTSTRAP)["rows"]
    }
    own, others = cells[BEST_REWRITING], cells[FOR_ANOTHER]
    assert own["train/personal"]["low"] > 0.5
    assert others["train/personal"]["low"] < 0 < others["train/personal"]["high"] < 0.2
    assert others["train/common"]["mean"] == pytest.approx(own["train/common"]["mean"])
