"""The labels of selected pairs: from the data, a simulated annotator or a rater.

Axis letter: N pairs.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.preferences.examples import PreferenceExample, PreferencePair, known_label, labelled_pair
from eagle_jax.data.prompts import PromptBook
from eagle_jax.language_model.generation import SamplingSettings, TextGenerator
from eagle_jax.real.annotators import FIRST, NEITHER, Answers, Question, rate_questions, simulated_answers
from eagle_jax.reports.markdown import fact

Label = tuple[int, int]  # (chosen, rejected), numbers of responses


class Place(NamedTuple):
    """Two responses to a prompt, by their numbers, and how similar they are."""

    prompt_index: int
    first: int
    second: int
    similarity: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledPair:
    """Two responses to a prompt, by their numbers, and what was said of them.

    label: (chosen, rejected), None where the annotator gave none. true_gap: |true utility of one
    minus that of the other|. is_error: the annotator's label is against the true preference. Both
    are None where the truth is not known.
    """

    prompt_index: int
    first: int
    second: int
    similarity: float
    label: Label | None
    true_gap: float | None
    is_error: bool | None


@settings
class LabelSettings:
    """Who labels."""

    source: str = setting("A name of `ANNOTATORS` in real/labels.py.")
    temperature: float = setting("Of the simulated annotator.", above=0, unit="utility")

    def __post_init__(self):
        if self.source not in ANNOTATORS:
            raise ValueError(f"source {self.source!r} is none of {', '.join(ANNOTATORS)}")


class Labeller:
    """Labels pairs of the training responses, for one seed; counts what a rater said.

    An annotator that is asked about the same pair again says the same.
    """

    def __init__(
        self,
        examples: Sequence[PreferenceExample],
        annotator: Annotator,
        settings: LabelSettings,
        generator: TextGenerator | None,  # the rater
        sampling: SamplingSettings | None,  # of its answers
        book: PromptBook,
        seed: int,
    ):
        self.examples, self.annotator = examples, annotator
        self.settings, self.seed = settings, seed
        self.generator, self.sampling, self.book = generator, sampling, book
        self._rated: list[Answers] = []

    def label(self, places: Sequence[Place]) -> list[LabelledPair]:
        """The pairs with the annotator's labels."""
        return self._labelled(places, self.annotator)

    def judge(self, places: Sequence[Place]) -> list[LabelledPair]:
        """The pairs with the labels that the data itself has, which are right by definition."""
        return self._labelled(places, ANNOTATORS["data"])

    def truth(self, place: Place) -> Label | None:
        """What the data says."""
        return known_label(self.examples[place.prompt_index], place.first, place.second)

    def ask(self, places: Sequence[Place]) -> Answers:
        """What the rater says, in both orders."""
        questions = []
        for place in places:
            example = self.examples[place.prompt_index]
            responses = (example.responses[place.first], example.responses[place.second])
            questions.append(Question(example.prompt, *responses))
        seed = derive_seed(self.seed, len(self._rated))
        answers = rate_questions(questions, self.generator, self.book, self.sampling, seed)
        self._rated.append(answers)
        return answers

    def facts(self) -> list[dict[str, Any]]:
        """What a rater's answers were worth; nothing where none was asked."""
        if not self._rated:
            return []
        malformed = sum((answers.malformed for answers in self._rated), Counter())
        num_pairs = sum(len(answers.agreed) for answers in self._rated)
        num_agreed = sum(int(answers.agreed.sum()) for answers in self._rated)
        return [
            fact("pairs rated", num_pairs, "each in both orders"),
            fact("pairs with a label", num_agreed, "both orders name the same response"),
            *(fact(f"malformed: {reason}", n, "answers") for reason, n in malformed.items()),
        ]

    def _labelled(self, places: Sequence[Place], annotator: Annotator) -> list[LabelledPair]:
        labelled = []
        for place, label in zip(places, annotator.label(self, places), strict=True):
            truth = self.truth(place)
            scores = self.examples[place.prompt_index].scores
            can_err = annotator.errs and label is not None and truth is not None
            labelled.append(
                LabelledPair(
                    **place._asdict(),
                    label=label,
                    true_gap=scores and abs(scores[place.first] - scores[place.second]),
                    is_error=label != truth if can_err else None,
                )
            )
        return labelled


def _as_labels(places: Sequence[Place], answers: Sequence[int]) -> list[Label | None]:
    pairs = [(place.first, place.second) for place in places]
    return [
        None if answer == NEITHER else pair if answer == FIRST else pair[::-1]
        for pair, answer in zip(pairs, answers, strict=True)
    ]


class Annotator(NamedTuple):
    """label: (labeller, pairs) -> labels, None without one; its docstring, filled in with the
    settings, is what the report says. errs: its labels are not the truth by definition. asks: a
    rater, whose answers cost something."""

    label: Callable[[Labeller, Sequence[Place]], list[Label | None]]
    errs: bool
    asks: bool

    def sentence(self, settings: Mapping[str, Any]) -> str:
        """Who labelled, for the report; by settings as of `LabelSettings`."""
        return " ".join(self.label.__doc__.split()).format(**settings)


def _data(labeller: Labeller, places: Sequence[Place]) -> list[Label | None]:
    """The data's own labels or scores are the labels."""
    return [labeller.truth(place) for place in places]


def _simulated(labeller: Labeller, places: Sequence[Place]) -> list[Label | None]:
    """A simulated annotator: prefers the better response with probability sigmoid(gap in true
    utility / {temperature:g}), so that errors grow as pairs become ambiguous."""
    answers = []
    for place in places:
        example = labeller.examples[place.prompt_index]
        if example.scores is None:
            raise UserError(
                "labels.source is simulated, which needs scores, but a prompt has none: choose "
                f"data or rater ({example.prompt[:80]!r})"
            )
        gap = np.array([example.scores[place.first] - example.scores[place.second]])
        rng = np.random.default_rng([labeller.seed, *place[:3]])
        answers += simulated_answers(gap, labeller.settings.temperature, rng).tolist()
    return _as_labels(places, answers)


def _rater(labeller: Labeller, places: Sequence[Place]) -> list[Label | None]:
    """A rater labels, asked in both orders; pairs on which it contradicts itself get no label."""
    return _as_labels(places, labeller.ask(places).preferred)


ANNOTATORS = {
    "data": Annotator(_data, errs=False, asks=False),
    "simulated": Annotator(_simulated, errs=True, asks=False),
    "rater": Annotator(_rater, errs=True, asks=True),
}


def training_pairs(examples: Sequence[PreferenceExample], pairs: Sequence[LabelledPair]) -> list[PreferencePair]:
    """What is trained on: the pairs that got a label."""
    return [labelled_pair(examples[pair.prompt_index], pair.label) for pair in pairs if pair.label is not None]


def read_pairs(rows: Sequence[Mapping[str, Any]]) -> list[LabelledPair]:
    """Pairs whose `dataclasses.asdict` went through JSON."""
    return [LabelledPair(**{**row, "label": None if row["label"] is None else tuple(row["label"])}) for row in rows]


def summarize_pairs(pairs: Sequence[LabelledPair]) -> dict[str, Any]:
    """Counts, and means over pairs; None where nothing is known."""
    return {
        "num_pairs": len(pairs),
        "num_invalid": sum(pair.label is None for pair in pairs),
        "mean_similarity": _mean([pair.similarity for pair in pairs]),
        "mean_true_gap": _mean([p.true_gap for p in pairs if p.true_gap is not None]),
        "label_error_rate": _mean([p.is_error for p in pairs if p.is_error is not None]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
