"""ELM's raters' form: of each of the 24 tasks about films, how far one agrees with three to five statements.

Tennenholtz et al. 2024 (ELM), appendix C and figure 8; in the project's words, in the paper's order. The user
profile has no questions there, and neither has it any here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from eagle_jax.eagle.evaluation.rater_form import BlindLabel, RaterAnswers, RaterQuestion
from eagle_jax.pages.rating_form import KEPT, VOLUNTARY, RatingForm

CONSISTENT, COHERENT, QUALITY, COMPREHENSIVE, SHORT = 1, 2, 3, 4, 5
_ENDS = ("strongly disagree", "strongly agree")


class AskedTask(NamedTuple):
    """heading: of what the model wrote. questions: by number, the statements about it."""

    heading: str
    questions: Mapping[int, RaterQuestion]


def _about(heading: str, *of_task: str, are: str = "is", source: str = "the {noun}’s plot") -> AskedTask:
    """of_task: what is stated of this task alone, from `QUALITY` on."""
    general = f"{heading} {are} consistent with {source}.", f"{heading} {are} coherent."
    texts = (*general, *of_task)
    return AskedTask(heading, {number: RaterQuestion(text, _ENDS) for number, text in enumerate(texts, start=1)})


def _argument(word: str) -> AskedTask:
    said = f"The text that is to {word}"
    end = "persuades one to watch the {noun}" if word == "convince" else "persuades one not to watch the {noun}"
    return _about(said, f"{said} indeed {end}.", f"{said} is comprehensive.", f"{said} is short and to the point.")


def _version(word: str, more: str) -> AskedTask:
    version = f"The {word} version"
    source = "the original plot"
    return _about(version, f"{version} is indeed {more} than the original.", source=source)


_BOTH = "both {noun}s’ plots"
ASKED_TASKS = {
    "long_description": _about(
        "The second version", "The second version is of high quality, as the first one.", source="the first version"
    ),
    "summary": _about("The summary", "The summary is of high quality."),
    "positive_review": _about("The review", "The review is positive."),
    "negative_review": _about("The review", "The review is negative."),
    "neutral_review": _about("The review", "The review is neutral."),
    "five_positive_characteristics": _about("The characteristics", "The characteristics are positive.", are="are"),
    "five_negative_characteristics": _about("The characteristics", "The characteristics are negative.", are="are"),
    "improve": _about(
        "The improved version",
        "Some viewers may find the improved version better than the original.",
        source="the original plot",
    ),
    "criticize": _about("The criticism", "The criticism is of good quality."),
    "pitch": _about("The pitch", "The pitch is convincing."),
    **{name: _argument("convince") for name in ("convince1", "convince2", "convince3")},
    **{name: _argument("dissuade") for name in ("dissuade1", "dissuade2")},
    "funnier": _version("funny", "funnier"),
    "sadder": _version("sad", "sadder"),
    "scarier": _version("scary", "scarier"),
    "movie_to_viewer": _about(
        "The description of a viewer", "By what is told above, this viewer will like to watch the {noun}."
    ),
    "interpolation": _about(
        "The combination", "The combination is of high quality: it joins the plots in a reasonable way.", source=_BOTH
    ),
    "similarities": _about(
        "The comparison",
        "The comparison names important things in which the {noun}s are alike, and in which they differ.",
        source=_BOTH,
    ),
    "why_like_nn": _about(
        "The explanation", "The explanation tells well why the viewer would like the other {noun}, too.", source=_BOTH
    ),
    "diff_than_nn": _about(
        "The explanation",
        "What is listed is of high quality: major and important differences between the {noun}s.",
        source=_BOTH,
    ),
    "common_with_nn": _about(
        "The list",
        "What is listed is of high quality: major and important things that the {noun}s share.",
        source=_BOTH,
    ),
}

# Names of the columns of table 2, and of the two statements that only texts that argue have.
_COLUMNS = {
    "consistency": (CONSISTENT, "Consistency with plot"),
    "coherence": (COHERENT, "Language comprehensiveness"),
    "quality": (QUALITY, "Task quality"),
    "comprehensive": (COMPREHENSIVE, "Comprehensive"),
    "short": (SHORT, "Short"),
}


def normalized_answers(answers: RaterAnswers, label: BlindLabel = "A") -> dict[str, float]:
    """Answers of 1 to 5 as the paper tells them, from 0 (strongly disagree) to 1 (strongly agree), by column."""
    return {name: (answers[number] - 1) / 4 for name, (number, _) in _COLUMNS.items() if number in answers}


ELM_FORM = RatingForm(
    consent=(
        "You are asked to rate texts about films, one at a time. Each was written by a program; what it was to tell "
        "of is shown above it.",
        KEPT,
        VOLUNTARY,
    ),
    lead="How much do you agree with the following?",
    checked=(CONSISTENT, COHERENT),
    columns={name: heading for name, (_, heading) in _COLUMNS.items()},
    told="A row for each task, with the columns of table 2 of Tennenholtz et al. 2024: agreement with the statements 1 "
    "to 3 of appendix C, from 0 (strongly disagree) to 1 (strongly agree); the last two columns are statements 4 and "
    "5, which only texts that argue have.",
    score=normalized_answers,
    of_questions={
        CONSISTENT: "It is consistent with the plot.",
        COHERENT: "It is coherent.",
        QUALITY: "It is good at its task.",
        COMPREHENSIVE: "It is comprehensive.",
        SHORT: "It is short and to the point.",
    },
)
