"""Which pairs are labelled, and their labels: embeddings, selection, annotators.

Axis letters: N prompts, K responses, D width of an embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.prompts import PromptBook
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.preferences import (
    PreferenceExample,
    PreferencePair,
    known_label,
    labelled_pair,
)
from eagle_jax.design.pair_selection import GAP_STRATEGIES, STRATEGIES, select_across, select_within
from eagle_jax.environment.annotators import (
    FIRST,
    NEITHER,
    Question,
    rate_questions,
    simulated_answers,
)
from eagle_jax.language_model.generation import TextGenerator
from eagle_jax.pipeline.real_settings import (
    EmbeddingSettings,
    LabelSettings,
    RaterSettings,
    SelectionSettings,
)

EmbedFn = Callable[[Sequence[str], Sequence[str]], np.ndarray]  # prompts, responses -> [B, D]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledPair:
    """Two responses to a prompt, by their places, and what was said of them.

    true_gap: |true utility of one minus that of the other|; is_error: the label is against the
    true preference; both None where that is not known. label: (chosen, rejected), None where the
    annotator gave none.
    """

    prompt_index: int
    first: int
    second: int
    similarity: float
    label: tuple[int, int] | None
    true_gap: float | None
    is_error: bool | None


class Embeddings:
    """Embeddings [N, K, D] of all responses under one encoder, padded; is_valid [N, K]."""

    def __init__(self, arrays: Mapping[str, np.ndarray], metric: str):
        self.vectors, self.is_valid, self.metric = arrays["vectors"], arrays["is_valid"], metric


def run_embeddings_stage(
    stage: StageFolder,
    examples: Sequence[PreferenceExample],
    embed_fns: Mapping[str, EmbedFn],
    settings: Mapping[str, EmbeddingSettings],
) -> dict[str, Embeddings]:
    """Every training response under every encoder; writes <name>.npz."""
    if not stage.is_complete():
        places = [(n, k) for n, e in enumerate(examples) for k in range(len(e.responses))]
        prompts = [examples[n].prompt for n, _ in places]
        responses = [examples[n].responses[k] for n, k in places]
        rows, columns = np.array(places).T
        for name, embed_fn in progress(embed_fns.items(), len(embed_fns), "embeddings", "encoder"):
            flat = embed_fn(prompts, responses)
            shape = (len(examples), max(columns) + 1)
            vectors = np.zeros((*shape, flat.shape[1]), np.float32)
            vectors[rows, columns] = flat
            is_valid = np.zeros(shape, bool)
            is_valid[rows, columns] = True
            stage.write_arrays(f"{name}.npz", {"vectors": vectors, "is_valid": is_valid})
        stage.finish()
    return {
        name: Embeddings(stage.read_arrays(f"{name}.npz"), settings[name].metric)
        for name in embed_fns
    }


@dataclasses.dataclass(frozen=True)
class PairChooser:
    """Selects and labels pairs of the training examples; one for each seed.

    All strategies of a seed take their prompts in the same order (scope within), and an annotator
    asked about the same pair says the same.
    """

    examples: Sequence[PreferenceExample]
    embeddings: Embeddings
    settings: SelectionSettings
    labels: LabelSettings
    rater: RaterSettings | None
    generator: TextGenerator | None  # the rater's
    book: PromptBook
    seed: int

    def choose(
        self, strategy: str, count: int, implicit_rewards: np.ndarray | None
    ) -> list[LabelledPair]:
        """The first `count` pairs of a strategy, labelled: fewer are a beginning of more.

        implicit_rewards [N, K]: of the strategies that need them.
        """
        key = jax.random.key(derive_seed(self.seed, 0, STRATEGIES.index(strategy)))
        vectors, is_valid = self.embeddings.vectors, self.embeddings.is_valid
        within = strategy if self.settings.scope == "within" else "random"
        within_key, across_key = jax.random.split(key)
        pairs = select_within(
            within, vectors, is_valid, implicit_rewards, metric=self.embeddings.metric,
            key=within_key,
        )  # fmt: skip
        first, second, similarity, has_pair, _ = map(np.asarray, pairs)
        if has_pair.sum() < count:
            raise UserError(
                f"{count} labels are wanted, but only {has_pair.sum()} of {len(has_pair)} prompts "
                "have two usable responses: ask for fewer (num_labels) or give more prompts"
            )
        if self.settings.scope == "within":
            order = np.random.default_rng(derive_seed(self.seed, 1)).permutation(len(first))
            chosen = order[has_pair[order]][:count]
        else:
            gaps = None
            if implicit_rewards is not None:
                rows = np.arange(len(first))
                gaps = implicit_rewards[rows, first] - implicit_rewards[rows, second]
            chosen = select_across(
                strategy, similarity, gaps, count, key=across_key, is_valid=has_pair
            )
        return self._labelled([(n, first[n], second[n], similarity[n]) for n in chosen])

    def choose_by_gap(
        self,
        strategy: str,
        count: int,
        warmup: Sequence[LabelledPair],
        implicit_rewards: np.ndarray,
    ) -> list[LabelledPair]:
        """The warm-up's labelled pairs, then pairs of other prompts by their implicit rewards."""
        # Within a prompt the warm-up took the first prompts of the same order.
        known = {pair.prompt_index for pair in warmup}
        rest = self.choose(strategy, count, implicit_rewards)
        rest = [pair for pair in rest if pair.prompt_index not in known]
        return [*warmup, *rest][:count]

    def _labelled(self, places: Sequence[tuple[int, int, int, float]]) -> list[LabelledPair]:
        questions = [
            (self.examples[n], int(first), int(second)) for n, first, second, _ in places
        ]
        truths = [known_label(*question) for question in questions]
        labels = self._answers(questions, truths, [int(n) for n, *_ in places])
        pairs = []
        for (n, _, _, similarity), (example, first, second), truth, label in zip(
            places, questions, truths, labels, strict=True
        ):
            gap = None
            if example.scores is not None:
                gap = abs(example.scores[first] - example.scores[second])
            judged = label is not None and truth is not None
            pairs.append(
                LabelledPair(
                    prompt_index=int(n), first=first, second=second, similarity=float(similarity),
                    label=label, true_gap=gap, is_error=label != truth if judged else None,
                )  # fmt: skip
            )
        return pairs

    def _answers(self, questions, truths, prompt_indices) -> list[tuple[int, int] | None]:
        """(chosen, rejected) of each question, None where there is no label."""
        if self.labels.source == "data":
            return truths
        if self.labels.source == "rater":
            asked = [Question(e.prompt, e.responses[i], e.responses[j]) for e, i, j in questions]
            answers = rate_questions(
                asked, self.generator, self.book, self.rater.sampling, derive_seed(self.seed, 2)
            ).preferred
        else:
            answers = [
                self._simulated(*question, n)
                for question, n in zip(questions, prompt_indices, strict=True)
            ]
        return [
            None if answer == NEITHER else (i, j) if answer == FIRST else (j, i)
            for answer, (_, i, j) in zip(answers, questions, strict=True)
        ]

    def _simulated(self, example: PreferenceExample, first: int, second: int, prompt: int) -> int:
        if example.scores is None:
            raise UserError(
                "labels.source is simulated, which needs scores, but a prompt has none: choose "
                f"data or rater ({example.prompt[:80]!r})"
            )
        gap = example.scores[first] - example.scores[second]
        rng = np.random.default_rng([self.seed, prompt, first, second])
        return int(simulated_answers(np.array([gap]), self.labels.temperature, rng)[0])


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


def run_selection_stage(
    stage: StageFolder,
    choosers: Mapping[str, PairChooser],
    count: int,
    rewards_after: Callable[[Sequence[LabelledPair]], np.ndarray],
) -> dict[str, list[LabelledPair]]:
    """`count` labelled pairs by strategy; writes pairs.json, and what every encoder would select.

    choosers: by the name of an embedding. rewards_after: implicit rewards [N, K] of all responses
    after training on the warm-up's pairs.
    """
    if not stage.is_complete():
        settings = next(iter(choosers.values())).settings
        plain = [name for name in settings.strategies if name not in GAP_STRATEGIES]
        by_encoder = {
            embedding: {name: chooser.choose(name, count, None) for name in plain}
            for embedding, chooser in choosers.items()
        }
        chosen, chooser = by_encoder[settings.embedding], choosers[settings.embedding]
        if by_gap := [name for name in settings.strategies if name in GAP_STRATEGIES]:
            warmup = chooser.choose("random", settings.num_warmup_labels, None)
            rewards = rewards_after(warmup)
            for name in by_gap:
                chosen[name] = chooser.choose_by_gap(name, count, warmup, rewards)
        stage.write_json(
            "pairs.json",
            {name: list(map(dataclasses.asdict, chosen[name])) for name in settings.strategies},
        )
        stage.write_json("encoders.json", [
            {"embedding": embedding, "metric": choosers[embedding].embeddings.metric,
             "strategy": name, **summarize_pairs(by_encoder[embedding][name])}
            for embedding in choosers for name in plain
        ])  # fmt: skip
        stage.finish()
    return {name: read_pairs(rows) for name, rows in stage.read_json("pairs.json").items()}


def summarize_pairs(pairs: Sequence[LabelledPair]) -> dict[str, Any]:
    """Means over pairs; None where nothing is known."""
    return {
        "num_pairs": len(pairs),
        "num_invalid": sum(pair.label is None for pair in pairs),
        "mean_similarity": _mean([pair.similarity for pair in pairs]),
        "mean_true_gap": _mean([p.true_gap for p in pairs if p.true_gap is not None]),
        "label_error_rate": _mean([p.is_error for p in pairs if p.is_error is not None]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
