"""What people are asked about a text, as data. EAGLE's form stands here, ELM's in `pages.elm.rater_form`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from eagle_jax.eagle.evaluation.rater_form import QUESTIONS, BlindLabel, RaterAnswers, score_answers

NamedBlocks = Mapping[str, str]  # by name; one without a name has ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatingForm:
    """What all forms of a run have in common.

    consent: told before anything is asked, by paragraph; one may have another text. lead: told before the questions.
    checked: numbers of the questions that an attention check tells the answers of.
    columns: name -> heading of what `score` gives for the answers to a form, from 0 to 1, of the text that stands at
    a label; a name is missing where it was not asked. told: what the columns are. of_questions: how the table of
    agreement calls the question of a number; {noun}: what the texts tell of.
    """

    consent: Sequence[str]
    lead: str
    checked: tuple[int, ...]
    columns: Mapping[str, str]
    told: str
    score: Callable[[RaterAnswers, BlindLabel], Mapping[str, float]]
    of_questions: Mapping[int, str]


KEPT = (
    "Your answers are kept under a number that is drawn for you, with how long each form took; your name "
    "is not asked for. They are used for research on such programs."
)
VOLUNTARY = (
    "Taking part is up to you. You may stop at any time by closing the page, and go on later with a code "
    "that every page shows. Some of the forms check that forms are read."
)


def _of_new_text(question: str) -> str:
    """As if the new text had stood at A."""
    for label, name in (("A", "new text"), ("B", "anchor")):
        question = question.replace(f"text {label}", f"the {name}").replace(f"Text {label}", f"The {name}")
    return question


EAGLE_FORM = RatingForm(
    consent=(
        "You are asked to compare texts, two at a time: one tells of something that exists, the other was "
        "written by a program. You are not told which is which.",
        KEPT,
        VOLUNTARY,
    ),
    lead="",
    checked=(1, 5),
    columns={
        "user_utility": "User utility",
        "rater_utility": "Rater utility",
        "distance_score": "Distance",
        "consistency": "Consistency",
    },
    told="The paper’s columns are shares of forms for the new text, as in Tennenholtz et al. 2024: the user would "
    "prefer it (question 1), the rater does (8); how different the texts are (5), from 0 to 1; how far questions 2 to "
    "4 agree with 1.",
    score=lambda answers, label: dataclasses.asdict(score_answers(answers, label)),
    of_questions={number: _of_new_text(question.text) for number, question in QUESTIONS.items()},
)
