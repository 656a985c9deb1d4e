"""Annotators whose errors are known: the simulated one, and raters asked in both orders."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import scipy.stats

from eagle_jax.base.errors import UserError
from eagle_jax.data.minilens import requests
from eagle_jax.data.prompts import COMPACT, DETAILED, parse_blocks
from eagle_jax.language_model.generation import SamplingSettings, ScriptedGenerator
from eagle_jax.real.annotators import Question, rate_questions, simulated_answers

SAMPLING = SamplingSettings(temperature=0.5, top_k=0, top_p=1.0, max_new_tokens=4)
# The better response is the one with the larger number.
QUESTIONS = [
    Question("which?", "7 points", "3 points"),
    Question("which?", "1 point", "2 points"),
    Question("\n\nHuman: so?\n\nAssistant:", "#BEGIN_PLOT 9 #END_PLOT", "4"),
]
BETTER = [0, 1, 0]


def shown(prompt, name):
    """The number in a text that the prompt shows."""
    shown_blocks = prompt.text[prompt.text.index("#BEGIN_REQUEST") :].removesuffix(prompt.opening)
    text = parse_blocks(shown_blocks, ["REQUEST", "TEXT_A", "TEXT_B"])[name]
    return next(int(word) for word in text.split() if word.isdigit())


def perfect(prompt, rng):
    is_a = shown(prompt, "TEXT_A") > shown(prompt, "TEXT_B")
    return f"{'a' if is_a else 'b'} #END_ANSWER"


def rate(fn, questions=QUESTIONS, book=COMPACT, seed=0):
    return rate_questions(questions, ScriptedGenerator(fn), book, SAMPLING, seed)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_simulated_annotator_errs_as_often_as_bradley_and_terry(temperature):
    for index, gap in enumerate((2.0, -0.7, 0.1)):
        rng = np.random.default_rng([index, int(10 * temperature)])
        preferred = simulated_answers(np.full(20_000, gap), temperature, rng)
        errors = np.sum(preferred == (gap > 0))  # the second is preferred although gap > 0, or v.v.
        rate = 1 / (1 + np.exp(abs(gap) / temperature))
        assert scipy.stats.binomtest(int(errors), 20_000, rate).pvalue > 1e-3


def test_huge_gaps_are_no_overflow_and_what_is_no_number_is_refused():
    rng = np.random.default_rng(0)
    assert simulated_answers(np.array([1e9, -1e9]), 1e-6, rng).tolist() == [0, 1]
    for temperature in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"temperature must be above 0, got {temperature}"):
            simulated_answers(np.ones(2), temperature, rng)
    with pytest.raises(ValueError, match="pair 1: .* must be finite, got nan"):
        simulated_answers(np.array([0.0, np.nan]), 1.0, rng)


@pytest.mark.parametrize("book", [COMPACT, DETAILED], ids=["compact", "detailed"])
def test_a_perfect_rater_agrees_with_itself(book):
    answers = rate(perfect, book=book)
    assert answers.preferred.tolist() == BETTER
    assert answers.agreed.all() and answers.agreement == 1.0
    assert answers.malformed == Counter()


@pytest.mark.parametrize("letter", ["a", "A", "b"])
def test_a_rater_who_always_says_the_same_prefers_nothing(letter):
    answers = rate(lambda prompt, rng: f"{letter} #END_ANSWER")
    assert answers.preferred.tolist() == [-1, -1, -1]
    assert answers.agreement == 0.0
    assert answers.readable.all() and not answers.malformed


def test_a_noisy_raters_agreement_and_errors_follow_from_its_noise():
    """Wrong with probability e in each order: both right (1-e)^2, both wrong e^2, else no label."""
    error = 0.2

    def noisy(prompt, rng):
        right = perfect(prompt, rng)
        return right if rng.random() > error else {"a": "b", "b": "a"}[right[0]] + right[1:]

    answers = rate(noisy, QUESTIONS[:2] * 1000)
    expected = {"right": (1 - error) ** 2, "wrong": error**2, "none": 2 * error * (1 - error)}
    better = np.tile(BETTER[:2], 1000)
    outcomes = {"right": better, "wrong": 1 - better, "none": -1}
    found = {name: np.sum(answers.preferred == outcome) for name, outcome in outcomes.items()}
    for name, share in expected.items():
        assert scipy.stats.binomtest(int(found[name]), 2000, share).pvalue > 1e-3, name
    assert answers.agreement == 1 - found["none"] / 2000


def test_the_worlds_teacher_as_a_rater_errs_where_films_are_close():
    """MiniLens' own rater knows the profile's words, not the taste: it errs, most at small gaps."""
    asked = requests.draw_requests(200, 0)
    films = requests.supervised_examples(400, 1, num_films=2, strength=0.0, dialect="a")
    texts = [film.completion.removesuffix(film.prompt.stop[0]).strip() for film in films]
    pairs = list(zip(asked, texts[::2], texts[1::2], strict=True))
    answers = rate(requests.answer_compare, [Question(r.prompt.text, *two) for r, *two in pairs])
    gaps = np.array([np.subtract(*(requests.true_utility(r, text) for text in two)) for r, *two in pairs])
    # The same films in both orders: only where it finds them alike does it draw its answer.
    assert not answers.malformed and answers.agreement > 0.8
    is_wrong = answers.preferred == (gaps > 0)
    is_close = np.abs(gaps) < np.median(np.abs(gaps))
    close, far = (is_wrong[answers.agreed & part].mean() for part in (is_close, ~is_close))
    assert far < 0.15 < close < 0.5


def test_malformed_answers_are_counted_and_give_no_label():
    def fn(prompt, rng):
        pair = (shown(prompt, "TEXT_A"), shown(prompt, "TEXT_B"))
        broken = {
            (3, 7): "neither #END_ANSWER",  # the first pair, swapped
            (1, 2): "#END_ANSWER",
            (2, 1): "a #BEGIN_PLOT #END_ANSWER",
        }
        return broken.get(pair) or perfect(prompt, rng)

    answers = rate(fn)
    assert answers.preferred.tolist() == [-1, -1, 0]
    assert answers.as_given.tolist() == [0, -1, 0] and answers.swapped.tolist() == [-1, -1, 0]
    assert answers.malformed == Counter(not_a_choice=1, empty_block=1, wrong_markers=1)
    assert answers.agreement == 1.0  # one pair could be read in both orders


def test_one_call_asks_about_both_orders_and_answers_that_do_not_end_leave_nothing():
    calls = []

    class Endless(ScriptedGenerator):
        def generate(self, prompts, sampling, seed):
            calls.append((len(prompts), sampling, seed))
            made = super().generate(prompts, sampling, seed)
            return [dataclasses.replace(generation, stop_reason="length") for generation in made]

    answers = rate_questions(QUESTIONS, Endless(perfect), COMPACT, SAMPLING, 11)
    assert calls == [(6, SAMPLING, 11)]
    assert answers.malformed == Counter(length=6)
    assert answers.preferred.tolist() == [-1, -1, -1] and answers.agreement is None


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(" \n", "x", "y"), "question 1: its 'prompt' is empty"),
        (Question("p", "", "y"), "question 1: its 'first' is empty"),
        (Question("p", "x", "\t"), "question 1: its 'second' is empty"),
        (Question("p", "x  y", "x y"), "question 1: both responses are 'x  y'"),
    ],
)
def test_questions_that_ask_nothing_are_named_before_anybody_is_asked(question, message):
    def never(prompt, rng):
        raise AssertionError("asked")

    with pytest.raises(UserError, match=message):
        rate(never, [QUESTIONS[0], question])
    assert rate(never, []).agreement is None
