"""A rater rates finished episodes blind: shares worked by hand, whatever the order of the texts."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from eagle_jax.data.minilens.corpus import draw_examples
from eagle_jax.data.prompts import COMPACT, render_blocks
from eagle_jax.eagle.environment import Step
from eagle_jax.eagle.evaluation.rater import rate_episodes
from eagle_jax.eagle.evaluation.rater_form import RaterScores
from eagle_jax.language_model.generation import SamplingSettings, ScriptedGenerator
from tests.eagle.evaluation.records import make_record

SAMPLING = SamplingSettings(temperature=0.5, top_k=0, top_p=1.0, max_new_tokens=32)


def record(anchor, *texts):
    """An episode on notes of digits; the rater below prefers the note of the larger sum."""
    anchor, *notes = [render_blocks({"NOTE": text}) for text in (anchor, *texts)]
    steps = [Step(action="x", description=note, malformed=None) for note in notes]
    return make_record([0.0] * (1 + len(steps)), steps, anchor=anchor, profile="likes sums")


RECORDS = [
    record("1 1", "5", "3 4"),  # better: 7 against 2
    record("9"),  # no step
    record("5", "1", "2 1"),  # worse: 3 against 5
    record("4", "8", "4"),  # there and back: the anchor's text
    record("2", "3"),  # better
    record("0", "6 6"),  # better
]


def total(text):
    return sum(int(word) for word in text.split() if word.isdigit())


def shown(prompt):
    """What stands at A and at B."""
    text_a, text_b = prompt.text.split("#BEGIN_NOTE ")[1:]
    return text_a.split(" #END_NOTE")[0], text_b.split(" #END_NOTE")[0]


def answers(user, rater, different):
    own = f"1 {user} 2 {user} 3 3 4 3 5 {different}"
    return f"{own} 6 3 7 3 8 {rater} 9 3 10 3 11 {rater} #END_ANSWERS"


def by_sum(prompt, rng):
    """The user likes large sums, the rater small ones; lower case, as MiniLens-LM writes."""
    a, b = map(total, shown(prompt))
    larger, smaller = ("a", "b") if a > b else ("b", "a")
    return answers(larger, smaller, min(5, 1 + abs(a - b)))


def rate(fn, records=RECORDS, seed=0):
    return rate_episodes(records, ScriptedGenerator(fn), COMPACT, SAMPLING, seed)


@pytest.mark.parametrize("seed", range(6))
def test_scores_by_hand_whatever_the_order(seed):
    scores, malformed = rate(by_sum, seed=seed)

    def scored(better, distance_score):
        return RaterScores(
            user_utility=better, rater_utility=1 - better, distance_score=distance_score, consistency=0.75
        )

    assert scores == [
        scored(1.0, 1.0),  # 5 apart: score 5
        None,
        scored(0.0, 0.5),  # 2 apart: score 3
        None,
        scored(1.0, 0.25),  # 1 apart: score 2
        scored(1.0, 1.0),
    ]
    assert not malformed


def test_orders_do_differ_and_follow_the_seed():
    def places(seed):
        seen = []
        rate(lambda prompt, rng: seen.append(shown(prompt)) or by_sum(prompt, rng), seed=seed)
        return seen

    texts = [("3 4", "1 1"), ("2 1", "5"), ("3", "2"), ("6 6", "0")]  # generated, anchor
    orders = set()
    for seed in range(20):
        assert [sorted(pair) for pair in places(seed)] == [sorted(pair) for pair in texts]
        assert places(seed) == places(seed)
        orders.add(tuple(pair == own for pair, own in zip(places(seed), texts, strict=True)))
    assert len(orders) > 8  # of 16


@pytest.mark.parametrize("said", ["a", "ab"])
def test_a_rater_who_says_a_or_anything_scores_one_half(said):
    """Its noise is independent of the order."""
    scores, _ = rate(lambda prompt, rng: answers(rng.choice([*said]), "a", 3), RECORDS[:1] * 400)
    assert abs(np.mean([score.user_utility for score in scores]) - 0.5) < 0.1  # 4 deviations


def test_the_rater_sees_profile_and_texts_and_one_call_asks_for_all():
    class Counting(ScriptedGenerator):
        calls = []

        def generate(self, prompts, sampling, seed):
            self.calls.append(len(prompts))
            assert sampling == SAMPLING
            profile = "#BEGIN_USER_PROFILE likes sums #END_USER_PROFILE"
            assert all(profile in prompt.text for prompt in prompts)
            return super().generate(prompts, sampling, seed)

    rate_episodes(RECORDS, Counting(by_sum), COMPACT, SAMPLING, 0)
    assert Counting.calls == [4]


def test_malformed_answers_are_counted_and_not_asked_for_again():
    def fn(prompt, rng):
        notes = {*shown(prompt)}
        if "3 4" in notes:
            return "a b #END_ANSWERS"
        if "2 1" in notes:
            return answers("c", "a", 3)
        return answers("a", "a", 9) if "6 6" in notes else by_sum(prompt, rng)

    scores, malformed = rate(fn)
    assert [score is None for score in scores] == [True, True, True, True, False, True]
    assert malformed == Counter(missing_answers=1, not_a_choice=1, not_a_score=1)


def test_an_answer_that_does_not_end_is_malformed():
    class Endless(ScriptedGenerator):
        def generate(self, prompts, sampling, seed):
            made = super().generate(prompts, sampling, seed)
            return [dataclasses.replace(generation, stop_reason="length") for generation in made]

    scores, malformed = rate_episodes(RECORDS, Endless(by_sum), COMPACT, SAMPLING, 0)
    assert scores == [None] * 6 and malformed == Counter(length=4)


def test_the_answers_that_minilens_lm_learns_are_read():
    """The world's own teacher as the rater: every completion of the corpus is well-formed."""
    examples = iter(draw_examples("rater", "a", 40, 3))
    scores, malformed = rate(lambda prompt, rng: next(examples).completion, RECORDS[:1] * 40)
    assert not malformed and None not in scores
    assert len({score.distance_score for score in scores}) > 2


def test_nothing_to_compare_asks_nobody():
    def never(prompt, rng):
        raise AssertionError("asked")

    assert rate(never, [RECORDS[1], RECORDS[3]]) == ([None, None], Counter())
