"""Choices between samples of EAGLE's policy, and pairs of them that the utility ranks.

Axis letters: `C` choices, `K` samples of each, `L` actions of a sample, `A` = C K L actions (choice
by choice, sample by sample), `S` = C K samples, `B` pairs, `d` domain width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.eagle.agent.player import Player, by_episode, call_metrics
from eagle_jax.eagle.environment import EpisodeState
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.generation import Generation
from eagle_jax.real.selection.pair_selection import select_within


class Samples(NamedTuple):
    """C choices between K samples, each of L actions in a row, and the episodes they are from."""

    states: list[EpisodeState]  # [A], before each action
    generations: list[Generation]  # [A]
    ends: list[EpisodeState]  # [S], where each sample leads to
    num_samples: int  # K
    first: list[EpisodeState]  # of each episode
    final: list[EpisodeState]
    calls: dict[str, float]  # what all actions cost

    @property
    def num_actions(self) -> int:
        """L."""
        return len(self.states) // len(self.ends)


class RankedPairs(NamedTuple):
    """Places [B] among the S samples, chosen the one of higher utility; and what was left out."""

    chosen: np.ndarray
    rejected: np.ndarray
    metrics: dict[str, float]


def play_actions(
    player: Player, trainable: Params, states: Sequence[EpisodeState], num_samples: int, seed: int
) -> Samples:
    """A choice at every state of an episode: K actions, each applied by the environment (L = 1).

    The episode goes on from one of the K next states, drawn at random: its states are those that
    the policy visits.
    """
    rng = np.random.default_rng(seed)
    first = list(states)
    played = []
    for step in range(player.settings.horizon):
        repeated = _repeat(states, num_samples)
        played += player.play(trainable, repeated, 1, derive_seed(seed, step))
        picks = rng.integers(num_samples, size=len(states))
        after = played[-1].next_states
        states = [after[row * num_samples + pick] for row, pick in enumerate(picks)]
    return Samples(
        [state for step in played for state in step.states],
        [generation for step in played for generation in step.generations],
        [state for step in played for state in step.next_states],
        num_samples,
        first,
        states,
        call_metrics(played),
    )


def play_episodes(
    player: Player, trainable: Params, states: Sequence[EpisodeState], num_samples: int, seed: int
) -> Samples:
    """A choice at every start: K whole episodes (L = H), each of which leads to its last text."""
    first = _repeat(states, num_samples)
    played = player.play(trainable, first, player.settings.horizon, seed)
    final = played[-1].next_states
    return Samples(
        by_episode(step.states for step in played),
        by_episode(step.generations for step in played),
        final,
        num_samples,
        first,
        final,
        call_metrics(played),
    )


def _repeat(states: Sequence[EpisodeState], count: int) -> list[EpisodeState]:
    return [state for state in states for _ in range(count)]


def is_distinct(samples: Samples) -> np.ndarray:
    """[C, K]: False for a sample that leads to the text of one before it in its choice, and for one
    of the same actions in the same states, which no log-prob tells from the other."""
    size = samples.num_actions
    rows = []
    for place in range(len(samples.ends)):
        if place % samples.num_samples == 0:
            texts, written = set(), set()
        of_sample = slice(place * size, (place + 1) * size)
        text = samples.ends[place].description
        actions = tuple(
            (state.description, generation.token_ids)
            for state, generation in zip(samples.states[of_sample], samples.generations[of_sample], strict=True)
        )
        rows.append(text not in texts and actions not in written)
        if rows[-1]:
            texts.add(text)
            written.add(actions)
    return np.reshape(rows, (-1, samples.num_samples))


def rank_pairs(
    strategy: str,
    metric: str,
    embeddings: np.ndarray,
    utilities: np.ndarray,
    distinct: np.ndarray,
    implicit_rewards: np.ndarray,
    key: jax.Array,
) -> RankedPairs:
    """One pair of each choice at most, selected without its utilities and ordered by them.

    embeddings [C, K, d], utilities, distinct and implicit_rewards [C, K]. A choice without two
    distinct samples and a pair of equal utility are counted and give no pair. The key is consumed.
    """
    selected = jax.device_get(select_within(strategy, embeddings, distinct, implicit_rewards, metric=metric, key=key))
    rows = np.arange(len(utilities))
    gaps = utilities[rows, selected.first] - utilities[rows, selected.second]
    is_pair = selected.is_valid & (gaps != 0)
    places = np.stack([selected.first, selected.second]) + rows * utilities.shape[1]
    chosen, rejected = np.where(gaps > 0, places, places[::-1])[:, is_pair]
    metrics = {
        "pairs": is_pair.sum(),
        "pairs/ties": (selected.is_valid & (gaps == 0)).sum(),
        "pairs/without_choice": (~selected.is_valid).sum(),
        "pairs/repeated_samples": (~distinct).sum(),
        "pairs/unusable_samples": selected.num_unusable.sum(),
    }
    if is_pair.any():
        metrics["pairs/similarity"] = selected.similarity[is_pair].mean()
        metrics["pairs/utility_gap"] = np.abs(gaps[is_pair]).mean()
    return RankedPairs(chosen, rejected, {name: float(v) for name, v in metrics.items()})
