"""The labels of selected pairs: from the data, a simulated annotator or a rater.

Axis letter: N pairs.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.preferences.examples import (
    PreferenceExample,
    PreferencePair,
    known_label,
    labelled_pair,
)
from eagle_jax.data.prompts import PromptBook
from eagle_jax.language_model.generation import TextGenerator
from eagle_jax.real.annotators import (
    FIRST,
    NEITHER,
    Answers,
    Question,
    rate_questions,
    simulated_answers,
)
from eagle_jax.real.settings import LabelSettings, RaterSettings
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


class Labeller:
    """Labels pairs of the training responses, for one seed; counts what a rater said.

    An annotator that is asked about the same pair again says the same.
    """

    def __init__(
        self,
        examples: Sequence[PreferenceExample],
        settings: LabelSettings,
        rater: RaterSettings | None,
        generator: TextGenerator | None,  # the rater's
        book: PromptBook,
        seed: int,
    ):
        self.examples, self.settings, self.seed = examples, settings, seed
        self.rater, self.generator, self.book = rater, generator, book
        self._rated: list[Answers] = []

    def label(self, places: Sequence[Place]) -> list[LabelledPair]:
        """The pairs with the annotator's labels."""
        if self.settings.source == "data":
            return self.judge(places)
        if self.settings.source == "simulated":
            answers = [self._simulated(place) for place in places]
        else:
            answers = self._asked(places)
        labels = [
            None if answer == NEITHER else _as_label(place, answer == FIRST)
            for place, answer in zip(places, answers, strict=True)
        ]
        return list(map(self._labelled, places, labels))

    def judge(self, places: Sequence[Place]) -> list[LabelledPair]:
        """The pairs with the labels that the data itself has, which are right by definition."""
        return [
            dataclasses.replace(self._labelled(place, self._truth(place)), is_error=None)
            for place in places
        ]

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

    def _labelled(self, place: Place, label: Label | None) -> LabelledPair:
        truth, scores = self._truth(place), self.examples[place.prompt_index].scores
        return LabelledPair(
            **place._asdict(),
            label=label,
            true_gap=None if scores is None else abs(scores[place.first] - scores[place.second]),
            is_error=None if label is None or truth is None else label != truth,
        )

    def _truth(self, place: Place) -> Label | None:
        return known_label(self.examples[place.prompt_index], place.first, place.second)

    def _simulated(self, place: Place) -> int:
        example = self.examples[place.prompt_index]
        if example.scores is None:
            raise UserError(
                "labels.source is simulated, which needs scores, but a prompt has none: choose "
                f"data or rater ({example.prompt[:80]!r})"
            )
        gap = example.scores[place.first] - example.scores[place.second]
        rng = np.random.default_rng([self.seed, *place[:3]])
        return int(simulated_answers(np.array([gap]), self.settings.temperature, rng)[0])

    def _asked(self, places: Sequence[Place]) -> np.ndarray:
        questions = []
        for place in places:
            example = self.examples[place.prompt_index]
            responses = (example.responses[place.first], example.responses[place.second])
            questions.append(Question(example.prompt, *responses))
        seed = derive_seed(self.seed, len(self._rated))
        answers = rate_questions(
            questions, self.generator, self.book, self.rater.sampling, seed
        )
        self._rated.append(answers)
        return answers.preferred


def _as_label(place: Place, first_is_better: bool) -> Label:
    pair = (place.first, place.second)
    return pair if first_is_better else pair[::-1]


def training_pairs(
    examples: Sequence[PreferenceExample], pairs: Sequence[LabelledPair]
) -> list[PreferencePair]:
    """What is trained on: the pairs that got a label."""
    return [
        labelled_pair(examples[pair.prompt_index], pair.label)
        for pair in pairs
        if pair.label is not None
    ]


def read_pairs(rows: Sequence[Mapping[str, Any]]) -> list[LabelledPair]:
    """Pairs whose `dataclasses.asdict` went through JSON."""
    return [
        LabelledPair(**{**row, "label": None if row["label"] is None else tuple(row["label"])})
        for row in rows
    ]


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
