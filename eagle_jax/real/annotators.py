"""Who says which of two responses is better: a simulated annotator, and a language model as rater.

Labels that the data itself has are read in `data/preferences.py`. Axis letter: N questions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import MalformedText, PromptBook, compare_prompt
from eagle_jax.language_model.generation import Generation, SamplingSettings, TextGenerator, parse_generation

FIRST, SECOND, NEITHER = 0, 1, -1


class Question(NamedTuple):
    """Which of two responses to a prompt is better?"""

    prompt: str
    first: str
    second: str


class Answers(NamedTuple):
    """What a rater said of N pairs, each asked about in both orders.

    as_given, swapped: [N], the better response (0 first, 1 second, -1 malformed) when the first was
      shown as text a, and when the second was.
    malformed: reason -> number of answers, of 2 N.
    """

    as_given: np.ndarray
    swapped: np.ndarray
    malformed: Counter[str]

    @property
    def readable(self) -> np.ndarray:
        """[N] bool: both answers could be read."""
        return (self.as_given != NEITHER) & (self.swapped != NEITHER)

    @property
    def agreed(self) -> np.ndarray:
        """[N] bool: both answers could be read and name the same response."""
        return self.readable & (self.as_given == self.swapped)

    @property
    def preferred(self) -> np.ndarray:
        """[N]: 0 first, 1 second, -1 without agreement or with a malformed answer."""
        return np.where(self.agreed, self.as_given, NEITHER)

    @property
    def agreement(self) -> float | None:
        """Share of the readable pairs on which both orders agree; None without such a pair."""
        return float(self.agreed.sum() / self.readable.sum()) if self.readable.any() else None


def simulated_answers(utility_gaps: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """Bradley and Terry's (1952) annotator: P(first) = sigmoid(gap / temperature), 0 or 1 [N].

    Their error grows as the gap shrinks: REAL's reason for pairs that are far apart.

    Args:
      utility_gaps: [N], utility of the first response minus that of the second.
      temperature: > 0, in units of utility: at this gap 27 % of the answers are wrong.

    Raises:
      ValueError: a gap that is not finite, a temperature that is not above 0.
    """
    gaps = np.asarray(utility_gaps, np.float64)
    if not np.isfinite(gaps).all():
        row = np.flatnonzero(~np.isfinite(gaps))[0]
        raise ValueError(f"pair {row}: the gap in utility must be finite, got {gaps[row]}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"the annotator's temperature must be above 0, got {temperature}")
    probability = expit(gaps / temperature)
    return np.where(rng.random(len(probability)) < probability, FIRST, SECOND)


def rate_questions(
    questions: Sequence[Question], generator: TextGenerator, book: PromptBook, sampling: SamplingSettings, seed: int
) -> Answers:
    """Ask a language model about each pair in both orders, with one call of `generator`.

    A rater who looks at the order contradicts itself: the pair gets no label (Zheng et al. 2023,
    section 3.4). A malformed answer is counted and not asked for again.

    Raises:
      UserError: an empty text or two identical responses, naming the question.
    """
    for row, question in enumerate(questions):
        _check(row, question)
    prompts = [compare_prompt(book, *question) for question in questions]
    prompts += [compare_prompt(book, prompt, second, first) for prompt, first, second in questions]
    malformed: Counter[str] = Counter()
    shown_first = np.full(len(prompts), NEITHER)  # FIRST where text a is better
    for row, generation in enumerate(generator.generate(prompts, sampling, seed)):
        try:
            shown_first[row] = _choice(generation)
        except MalformedText as error:
            malformed[error.reason] += 1
    as_given, swapped = np.split(shown_first, 2)
    return Answers(as_given, np.where(swapped == NEITHER, NEITHER, 1 - swapped), malformed)


def _check(row: int, question: Question) -> None:
    for name, text in question._asdict().items():
        if not text.strip():
            raise UserError(f"question {row}: its {name!r} is empty; leave such rows out")
    if question.first.split() == question.second.split():
        raise UserError(
            f"question {row}: both responses are {question.first[:80]!r} (but for white space); "
            "there is nothing to compare, leave such rows out"
        )


def _choice(generation: Generation) -> int:
    answer = parse_generation(generation, ["ANSWER"])["ANSWER"]
    if answer not in ("a", "b", "A", "B"):
        raise MalformedText("not_a_choice", f"expected a or b, found {answer[:80]!r}")
    return FIRST if answer in "aA" else SECOND
