"""The blind A/B rater form: eleven questions, the answers of a rater, and what they score.

The same questions are put to people (`eagle_jax.pages`) and to language models
(`data.prompts.rater_prompt`). Which text is the generated one is drawn at random (`blind_order`) and
kept apart from the form. A model's answers are one block of number and answer, easy to write for a
very small one too:
    #BEGIN_ANSWERS 1 A 2 A 3 4 4 2 5 4 6 3 7 2 8 A 9 2 10 2 11 A #END_ANSWERS
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from eagle_jax.data.prompts import MalformedText, parse_blocks

BlindLabel = Literal["A", "B"]
# RaterQuestion number -> "A" or "B" (choices) or a score of 1 to 5.
RaterAnswers = Mapping[int, BlindLabel | int]


@dataclasses.dataclass(frozen=True)
class RaterQuestion:
    """What is asked (`{noun}`: what the texts tell of) and what may be answered.

    ends: what the scores 1 and 5 mean; None: the answer is A or B.
    same_of_other: the number of the question that asks this of the other text; None: it is about both.
    """

    text: str
    ends: tuple[str, str] | None = None
    same_of_other: int | None = None

    @property
    def options(self) -> tuple[str, ...]:
        return ("A", "B") if self.ends is None else ("1", "2", "3", "4", "5")


_HEIGHT, _AGREEMENT = ("lowest", "highest"), ("disagree", "agree")
# Of Tennenholtz et al. 2024, appendix; in the project's words, numbers are the paper's.
QUESTIONS = {
    1: RaterQuestion("Which text would this user prefer?"),
    2: RaterQuestion("Which text fits the preferences in the profile better?"),
    3: RaterQuestion("What score would this user give text A?", _HEIGHT, same_of_other=4),
    4: RaterQuestion("What score would this user give text B?", _HEIGHT, same_of_other=3),
    5: RaterQuestion("Texts A and B are very different.", _AGREEMENT),
    6: RaterQuestion("I would choose the {noun} of text A.", _AGREEMENT, same_of_other=7),
    7: RaterQuestion("I would choose the {noun} of text B.", _AGREEMENT, same_of_other=6),
    8: RaterQuestion("Which text do you prefer yourself?"),
    9: RaterQuestion("Text A tells of a {noun} that really exists.", _AGREEMENT, same_of_other=10),
    10: RaterQuestion("Text B tells of a {noun} that really exists.", _AGREEMENT, same_of_other=9),
    11: RaterQuestion("Which text would a wider audience like?"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RaterScores:
    """What one form says about the generated text; means over forms are the paper's columns.

    user_utility: 1 when the user would prefer the generated text (question 1), else 0.
    distance_score: how different the texts are (question 5), 1-5 mapped to 0-1.
    rater_utility: 1 when the rater prefers the generated text (question 8), else 0.
    consistency: how far questions 2, 3, 4 agree with question 1: the mean of "2 is as 1" and "the
        higher of the scores 3 and 4 is that of 1" (equal scores count half).
    """

    user_utility: float
    distance_score: float
    rater_utility: float
    consistency: float


def blind_order(seed: int, form_index: int) -> BlindLabel:
    """Label A or B: where the generated text of this form is shown, at random by seed."""
    return "AB"[int(np.random.default_rng((seed, form_index)).integers(2))]


def place_blind(generated: str, existing: str, generated_label: BlindLabel) -> tuple[str, str]:
    """(text_a, text_b) with the generated text at `generated_label`."""
    if generated_label not in ("A", "B"):
        raise ValueError(f"generated_label must be 'A' or 'B', got {generated_label!r}")
    return (generated, existing) if generated_label == "A" else (existing, generated)


def parse_rater_answers(text: str) -> RaterAnswers:
    """Read the answer block of one form.

    Raises `MalformedText`: the reasons of `parse_blocks` and of `read_rater_answer`, `missing_answers`
    (not number and answer for each question), `wrong_question` (numbers not 1 to 11 in order).
    """
    words = parse_blocks(text, ("ANSWERS",))["ANSWERS"].split()
    if len(words) != 2 * len(QUESTIONS):
        raise MalformedText("missing_answers", f"expected {2 * len(QUESTIONS)} words, found {len(words)}")
    answers: dict[int, BlindLabel | int] = {}
    for expected, number, answer in zip(QUESTIONS, words[0::2], words[1::2], strict=True):
        if number != str(expected):
            raise MalformedText("wrong_question", f"expected {expected}, found {number!r}")
        answers[expected] = read_rater_answer(expected, answer.upper())
    return answers


def read_rater_answer(number: int, word: str, questions: Mapping[int, RaterQuestion] = QUESTIONS) -> BlindLabel | int:
    """The answer to one of the questions; raises `MalformedText`: `not_a_choice` (neither A nor B) or
    `not_a_score` (no whole number from 1 to 5)."""
    question = questions[number]
    if word not in question.options:
        reason = "not_a_choice" if question.ends is None else "not_a_score"
        raise MalformedText(reason, f"question {number}: expected one of {', '.join(question.options)}, found {word!r}")
    return word if question.ends is None else int(word)


def with_generated_at_a(answers: RaterAnswers, generated_label: BlindLabel) -> RaterAnswers:
    """What the same rater would have answered had the generated text been A: answers of forms with
    different orders can be compared, and "A" is a vote for the generated text."""
    if generated_label == "A":
        return answers
    other = {"A": "B", "B": "A"}
    taken = {number: answers[question.same_of_other or number] for number, question in QUESTIONS.items()}
    return {number: other.get(answer, answer) for number, answer in taken.items()}


def score_answers(answers: RaterAnswers, generated_label: BlindLabel) -> RaterScores:
    """Scores of the generated text, shown at `generated_label`, from one rater's answers."""
    answers = with_generated_at_a(answers, generated_label)
    margin = answers[3] - answers[4]
    scores_agree = 0.5 if margin == 0 else float((margin > 0) == (answers[1] == "A"))
    return RaterScores(
        user_utility=float(answers[1] == "A"),
        distance_score=(answers[5] - 1) / 4,
        rater_utility=float(answers[8] == "A"),
        consistency=(float(answers[2] == answers[1]) + scores_agree) / 2,
    )
