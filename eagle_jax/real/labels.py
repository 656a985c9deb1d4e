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
from eagle_jax.real.annotators import FIRST, SECOND, Answers, Question, rate_questions, simulated_answers
from eagle_jax.reports.markdown import fact

Label = tuple[int, int]  # (chosen, rejected), numbers of responses


class ResponsePair(NamedTuple):
    """Two responses to a prompt, by their numbers, how similar they are, and what was said of them.

    label: (chosen, rejected), None where nobody gave one. true_gap: |true utility of one minus that
    of the other|. is_error: the label is against the true preference. Both are None where the truth
    is not known.
    """

    prompt_index: int
    first: int
    second: int
    similarity: float
    label: Label | None = None
    true_gap: float | None = None
    is_error: bool | None = None


@settings
class LabelSettings:
    """Who labels."""

    source: str = setting("A name of `ANNOTATORS` in real/labels.py.")
    temperature: float = setting("Of the simulated annotator.", above=0, unit="utility")

    def __post_init__(self):
        if self.source not in ANNOTATORS:
            raise ValueError(f"source {self.source!r} is none of {', '.join(ANNOTATORS)}")


@dataclasses.dataclass
class Labeller:
    """Labels pairs of the training responses, for one seed; counts what a rater said.

    An annotator that is asked about the same pair again says the same. rater: who is asked by the
    annotator that asks; sampling: of its answers.
    """

    examples: Sequence[PreferenceExample]
    settings: LabelSettings
    rater: TextGenerator | None
    sampling: SamplingSettings | None
    book: PromptBook
    seed: int
    rated: list[Answers] = dataclasses.field(default_factory=list)

    @property
    def annotator(self) -> Annotator:
        return ANNOTATORS[self.settings.source]

    def label(self, pairs: Sequence[ResponsePair], annotator: Annotator | None = None) -> list[ResponsePair]:
        """The pairs with the labels of the annotator, or of another one."""
        annotator = annotator or self.annotator
        labelled = []
        for pair, label in zip(pairs, annotator.label(self, pairs), strict=True):
            truth = self.truth(pair)
            scores = self.examples[pair.prompt_index].scores
            can_err = annotator.errs and label is not None and truth is not None
            labelled.append(
                pair._replace(
                    label=label,
                    true_gap=scores and abs(scores[pair.first] - scores[pair.second]),
                    is_error=label != truth if can_err else None,
                )
            )
        return labelled

    def truth(self, pair: ResponsePair) -> Label | None:
        """What the data says, which is right by definition."""
        return known_label(self.examples[pair.prompt_index], pair.first, pair.second)

    def facts(self) -> list[dict[str, Any]]:
        """What a rater's answers were worth; nothing where none was asked."""
        if not self.rated:
            return []
        malformed = sum((answers.malformed for answers in self.rated), Counter())
        num_pairs = sum(len(answers.agreed) for answers in self.rated)
        num_agreed = sum(int(answers.agreed.sum()) for answers in self.rated)
        return [
            fact("pairs rated", num_pairs, "each in both orders"),
            fact("pairs with a label", num_agreed, "both orders name the same response"),
            *(fact(f"malformed: {reason}", n, "answers") for reason, n in malformed.items()),
        ]


def _as_labels(pairs: Sequence[ResponsePair], answers: Sequence[int]) -> list[Label | None]:
    orders = [{FIRST: (pair.first, pair.second), SECOND: (pair.second, pair.first)} for pair in pairs]
    return [order.get(answer) for order, answer in zip(orders, answers, strict=True)]


class Annotator(NamedTuple):
    """label: (labeller, pairs) -> labels, None without one; its docstring, filled in with the
    settings, is what the report says. errs: its labels are not the truth by definition. asks: a
    rater, whose answers cost something."""

    label: Callable[[Labeller, Sequence[ResponsePair]], list[Label | None]]
    errs: bool
    asks: bool

    def sentence(self, settings: Mapping[str, Any]) -> str:
        """Who labelled, for the report; by settings as of `LabelSettings`."""
        return " ".join(self.label.__doc__.split()).format(**settings)


def _data(labeller: Labeller, pairs: Sequence[ResponsePair]) -> list[Label | None]:
    """The data's own labels or scores are the labels."""
    return [labeller.truth(pair) for pair in pairs]


def _simulated(labeller: Labeller, pairs: Sequence[ResponsePair]) -> list[Label | None]:
    """A simulated annotator: prefers the better response with probability sigmoid(gap in true
    utility / {temperature:g}), so that errors grow as pairs become ambiguous."""
    answers = []
    for pair in pairs:
        example = labeller.examples[pair.prompt_index]
        if example.scores is None:
            raise UserError(
                "labels.source is simulated, which needs scores, but a prompt has none: choose "
                f"data or rater ({example.prompt[:80]!r})"
            )
        gap = np.array([example.scores[pair.first] - example.scores[pair.second]])
        rng = np.random.default_rng([labeller.seed, *pair[:3]])
        answers += simulated_answers(gap, labeller.settings.temperature, rng).tolist()
    return _as_labels(pairs, answers)


def _rater(labeller: Labeller, pairs: Sequence[ResponsePair]) -> list[Label | None]:
    """A rater labels, asked in both orders; pairs on which it contradicts itself get no label."""
    questions = []
    for pair in pairs:
        example = labeller.examples[pair.prompt_index]
        questions.append(Question(example.prompt, example.responses[pair.first], example.responses[pair.second]))
    seed = derive_seed(labeller.seed, len(labeller.rated))
    answers = rate_questions(questions, labeller.rater, labeller.book, labeller.sampling, seed)
    labeller.rated.append(answers)
    return _as_labels(pairs, answers.preferred)


ANNOTATORS = {
    "data": Annotator(_data, errs=False, asks=False),
    "simulated": Annotator(_simulated, errs=True, asks=False),
    "rater": Annotator(_rater, errs=True, asks=True),
}


def training_pairs(examples: Sequence[PreferenceExample], pairs: Sequence[ResponsePair]) -> list[PreferencePair]:
    """What is trained on: the pairs that got a label."""
    return [labelled_pair(examples[pair.prompt_index], pair.label) for pair in pairs if pair.label is not None]


def read_pairs(rows: Sequence[Mapping[str, Any]]) -> list[ResponsePair]:
    """Pairs whose `_asdict` went through JSON."""
    return [ResponsePair(**{**row, "label": row["label"] and tuple(row["label"])}) for row in rows]


def summarize_pairs(pairs: Sequence[ResponsePair]) -> dict[str, Any]:
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
