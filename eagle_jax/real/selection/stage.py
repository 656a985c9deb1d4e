"""Which pairs are labelled: embeddings of responses, and strategies over them.

Axis letters: N prompts, K responses, D width of an embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.preferences.examples import PreferenceExample, all_responses, by_prompt
from eagle_jax.real.labels import ANNOTATORS, Labeller, ResponsePair, read_pairs, summarize_pairs
from eagle_jax.real.selection.pair_selection import GAP_STRATEGIES, STRATEGIES, select_across
from eagle_jax.real.selection.pair_shards import Shard, select_shards
from eagle_jax.real.settings import EmbeddingSettings, SelectionSettings

ResponsesFn = Callable[[Sequence[str], Sequence[str]], np.ndarray]  # prompts, responses -> [B, D]
_PROMPTS_PER_SHARD = 4096  # in a file and in memory at a time
_ROWS_PER_PROGRAM = 256


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Embeddings of all responses under one encoder, kept in shards of prompts."""

    stage: StageFolder
    name: str
    metric: str
    num_shards: int

    def shards(self, implicit_rewards: np.ndarray | None) -> Iterator[Shard]:
        """One shard after the other, with its part of the rewards [N, K]."""
        first = 0
        for number in range(self.num_shards):
            arrays = self.stage.read_arrays(_shard_file(self.name, number))
            last = first + len(arrays["vectors"])
            rewards = None if implicit_rewards is None else implicit_rewards[first:last]
            yield Shard(arrays["vectors"], arrays["is_valid"], rewards)
            first = last


def run_embeddings_stage(
    stage: StageFolder,
    examples: Sequence[PreferenceExample],
    embed_fns: Mapping[str, ResponsesFn],
    settings: Mapping[str, EmbeddingSettings],
) -> dict[str, Embeddings]:
    """Every training response under every encoder; writes <name>_<shard>.npz."""
    firsts = range(0, len(examples), _PROMPTS_PER_SHARD)
    if not stage.is_complete():
        num_responses = max(len(example.responses) for example in examples)
        pieces = [(name, first) for name in embed_fns for first in firsts]
        for name, first in progress(pieces, len(pieces), "embeddings", "shard"):
            file = _shard_file(name, first // _PROMPTS_PER_SHARD)
            if not (stage.path / file).exists():  # else an interrupted run wrote it, whole
                shard = examples[first : first + _PROMPTS_PER_SHARD]
                stage.write_arrays(file, _embedded(shard, embed_fns[name], num_responses))
        stage.finish()
    return {name: Embeddings(stage, name, settings[name].metric, len(firsts)) for name in embed_fns}


def _embedded(
    examples: Sequence[PreferenceExample], embed_fn: ResponsesFn, num_responses: int
) -> dict[str, np.ndarray]:
    """vectors [n, K, D] and is_valid [n, K], False where a prompt has fewer responses."""
    flat = embed_fn(*all_responses(examples))
    columns = {"vectors": flat, "is_valid": np.ones(len(flat), bool)}
    return {name: by_prompt(examples, values, num_responses) for name, values in columns.items()}


def _shard_file(name: str, number: int) -> str:
    return f"{name}_{number:05d}.npz"


@dataclasses.dataclass(frozen=True)
class PairChooser:
    """Selects pairs of the training responses under one encoder, for one seed.

    Within a prompt all strategies of a seed take their prompts in the same order.
    """

    embeddings: Embeddings
    settings: SelectionSettings
    seed: int

    def choose(self, strategy: str, count: int, implicit_rewards: np.ndarray | None) -> list[ResponsePair]:
        """The first `count` pairs of a strategy: fewer are a beginning of more.

        implicit_rewards [N, K]: of the strategies that need them.
        """
        key = jax.random.key(derive_seed(self.seed, 0, STRATEGIES.index(strategy)))
        within = strategy if self.settings.scope == "within" else "random"
        within_key, across_key = jax.random.split(key)
        selected = select_shards(
            within,
            self.embeddings.shards(implicit_rewards),
            metric=self.embeddings.metric,
            key=within_key,
            rows_per_program=_ROWS_PER_PROGRAM,
        )
        first, second, similarity, has_pair, _ = map(np.concatenate, zip(*selected, strict=True))
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
            chosen = select_across(strategy, similarity, gaps, count, key=across_key, is_valid=has_pair)
        return [ResponsePair(int(n), int(first[n]), int(second[n]), float(similarity[n])) for n in chosen]


def run_selection_stage(
    stage: StageFolder,
    choosers: Mapping[str, PairChooser],
    labeller: Labeller,
    count: int,
    rewards_after: Callable[[Sequence[ResponsePair]], np.ndarray],
) -> dict[str, list[ResponsePair]]:
    """`count` labelled pairs by strategy; writes pairs.json, facts.json and, in encoders.json, what
    every encoder would select.

    choosers: by the name of an embedding. rewards_after: implicit rewards [N, K] of all responses
    after training on the warm-up's pairs.
    """
    if not stage.is_complete():
        settings = next(iter(choosers.values())).settings
        chooser = choosers[settings.embedding]
        plain = [name for name in settings.strategies if name not in GAP_STRATEGIES]
        pairs = {name: labeller.label(chooser.choose(name, count, None)) for name in plain}
        if by_gap := [name for name in settings.strategies if name in GAP_STRATEGIES]:
            warmup = chooser.choose("random", settings.num_warmup_labels, None)
            labelled = labeller.label(warmup)
            rewards = rewards_after(labelled)
            # Within a prompt the warm-up took the first prompts of the same order.
            known = {pair.prompt_index for pair in warmup}
            for name in by_gap:
                rest = [pair for pair in chooser.choose(name, count, rewards) if pair.prompt_index not in known]
                pairs[name] = [*labelled, *labeller.label(rest[: count - len(warmup)])]
        stage.write_json("pairs.json", {name: [pair._asdict() for pair in pairs[name]] for name in settings.strategies})
        # A rater's answers cost something: what is not trained on is not asked about.
        annotator = ANNOTATORS["data"] if labeller.annotator.asks else None
        stage.write_json(
            "encoders.json",
            [
                {
                    "embedding": name,
                    "metric": chooser.embeddings.metric,
                    "strategy": strategy,
                    "overlap": _overlap(chosen, pairs[strategy]),
                    **summarize_pairs(labeller.label(chosen, annotator)),
                }
                for name, chooser in choosers.items()
                for strategy in plain
                for chosen in [chooser.choose(strategy, count, None)]
            ],
        )
        stage.write_json("facts.json", labeller.facts())
        stage.finish()
    return {name: read_pairs(rows) for name, rows in stage.read_json("pairs.json").items()}


def _overlap(chosen: Sequence[ResponsePair], selected: Sequence[ResponsePair]) -> float:
    """Share of the chosen pairs that are among the selected ones."""
    return len({pair[:3] for pair in selected} & {pair[:3] for pair in chosen}) / len(chosen)
