"""The labels of selected pairs: from the data, a simulated annotator or a rater.

Axis letter: N pairs.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

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
    ANNOTATORS,
    FIRST,
    NEITHER,
    SECOND,
    Annotator,
    Answers,
    LabelSettings,
    Pair,
    Question,
    rate_questions,
)
from eagle_jax.real.settings import RaterSettings
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
        annotator: Annotator,
        settings: LabelSettings,
        rater: RaterSettings | None,
        generator: TextGenerator | None,  # the rater's
        book: PromptBook,
        seed: int,
    ):
        self.examples, self.annotator = examples, annotator
        self.settings, self.seed = settings, seed
        self.rater, self.generator, self.book = rater, generator, book
        self._rated: list[Answers] = []

    def label(self, places: Sequence[Place]) -> list[LabelledPair]:
        """The pairs with the annotator's labels."""
        return self._labelled(places, self.annotator)

    def judge(self, places: Sequence[Place]) -> list[LabelledPair]:
        """The pairs with the labels that the data itself has, which are right by definition."""
        return self._labelled(places, ANNOTATORS["data"])

    def ask(self, questions: Sequence[Question]) -> Answers:
        """What the rater says, in both orders."""
        seed = derive_seed(self.seed, len(self._rated))
        answers = rate_questions(
            questions, self.generator, self.book, self.rater.sampling, seed
        )
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
        pairs = [self._pair(place) for place in places]
        labelled = []
        answers = annotator.label(pairs, self)
        for place, pair, answer in zip(places, pairs, answers, strict=True):
            is_known = answer != NEITHER and pair.better != NEITHER
            labelled.append(
                LabelledPair(
                    **place._asdict(),
                    label=_as_label(place, int(answer)),
                    true_gap=None if pair.scores is None else abs(pair.scores[0] - pair.scores[1]),
                    is_error=bool(answer != pair.better) if annotator.errs and is_known else None,
                )
            )
        return labelled

    def _pair(self, place: Place) -> Pair:
        example, responses = self.examples[place.prompt_index], (place.first, place.second)
        known, scores = known_label(example, *responses), example.scores
        return Pair(
            Question(example.prompt, *(example.responses[k] for k in responses)),
            (place.prompt_index, *responses),
            None if scores is None else tuple(scores[k] for k in responses),
            NEITHER if known is None else responses.index(known[0]),
        )


def _as_label(place: Place, answer: int) -> Label | None:
    pair = (place.first, place.second)
    return {FIRST: pair, SECOND: pair[::-1], NEITHER: None}[answer]


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
