"""The blind A/B rater form: eleven questions, the answers of a rater, and what they score.

The same form serves people (`rater_form`) and language models (`base.prompts.rater_prompt`). Which
text is the generated one is drawn at random (`blind_order`) and kept apart from the form. Answers
are one block of number and answer, easy to write for a person and for a very small model:
    #BEGIN_ANSWERS 1 A 2 A 3 4 4 2 5 4 6 3 7 2 8 A 9 2 10 2 11 A #END_ANSWERS
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from eagle_jax.data.prompts import EntityFormat, MalformedText, begin, end, parse_blocks

_CHOICE_QUESTIONS = (1, 2, 8, 11)
_QUESTIONS = (
    "Which text would this user prefer? (A or B)",
    "Which text fits the preferences in the profile better? (A or B)",
    "What score would this user give text A? (1 lowest, 5 highest)",
    "What score would this user give text B? (1 lowest, 5 highest)",
    "Texts A and B are very different. (1 disagree, 5 agree)",
    "I would choose the {noun} of text A. (1 disagree, 5 agree)",
    "I would choose the {noun} of text B. (1 disagree, 5 agree)",
    "Which text do you prefer yourself? (A or B)",
    "Text A tells of a {noun} that really exists. (1 disagree, 5 agree)",
    "Text B tells of a {noun} that really exists. (1 disagree, 5 agree)",
    "Which text would a wider audience like? (A or B)",
)


BlindLabel = Literal["A", "B"]
# Question number -> "A" or "B" (1, 2, 8, 11) or a score of 1 to 5 (the others).
RaterAnswers = Mapping[int, BlindLabel | int]


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


def rater_form(entity_format: EntityFormat, text_a: str, text_b: str, profile: str) -> str:
    """The form as a person reads it: profile, both texts block by block, questions, answer block.

    Raises `MalformedText` when a text does not have the blocks of `entity_format`.
    """
    lines = ["The user", profile.strip(), ""]
    for label, text in (("A", text_a), ("B", text_b)):
        lines.append(f"Text {label}")
        for name, content in parse_blocks(text, entity_format.blocks).items():
            lines.append(f"{name.replace('_', ' ').capitalize()}: {content}")
        lines.append("")
    lines.append("Questions")
    lines += [
        f"{number}. {question.format(noun=entity_format.noun)}" for number, question in enumerate(_QUESTIONS, start=1)
    ]
    blanks = " ".join(f"{number} _" for number in range(1, len(_QUESTIONS) + 1))
    lines += ["", "One answer after each number", f"{begin('ANSWERS')} {blanks} {end('ANSWERS')}"]
    return "\n".join(lines) + "\n"


def parse_rater_answers(text: str) -> RaterAnswers:
    """Read the answer block of one form.

    Raises `MalformedText`: the reasons of `parse_blocks`, `missing_answers` (not number and answer
    for each question), `wrong_question` (numbers not 1 to 11 in order), `not_a_choice` (neither A
    nor B), `not_a_score` (no whole number from 1 to 5).
    """
    words = parse_blocks(text, ("ANSWERS",))["ANSWERS"].split()
    if len(words) != 2 * len(_QUESTIONS):
        raise MalformedText("missing_answers", f"expected {2 * len(_QUESTIONS)} words, found {len(words)}")
    answers: dict[int, BlindLabel | int] = {}
    pairs = zip(words[0::2], words[1::2], strict=True)
    for expected, (number, answer) in enumerate(pairs, start=1):
        if number != str(expected):
            raise MalformedText("wrong_question", f"expected {expected}, found {number!r}")
        if expected in _CHOICE_QUESTIONS:
            if answer not in ("A", "B", "a", "b"):
                raise MalformedText("not_a_choice", f"question {expected}: {answer!r}")
            answers[expected] = answer.upper()
        else:
            if answer not in ("1", "2", "3", "4", "5"):
                raise MalformedText("not_a_score", f"question {expected}: {answer!r}")
            answers[expected] = int(answer)
    return answers


def score_answers(answers: RaterAnswers, generated_label: BlindLabel) -> RaterScores:
    """Scores of the generated text, shown at `generated_label`, from one rater's answers."""
    margin = answers[3] - answers[4]
    scores_agree = 0.5 if margin == 0 else float((margin > 0) == (answers[1] == "A"))
    return RaterScores(
        user_utility=float(answers[1] == generated_label),
        distance_score=(answers[5] - 1) / 4,
        rater_utility=float(answers[8] == generated_label),
        consistency=(float(answers[2] == answers[1]) + scores_agree) / 2,
    )
