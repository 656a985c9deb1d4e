"""EAGLE's policy trained by DPO on pairs that its utility ranks: the alternative to REINFORCE.

A round plays episodes with the policy as it is, such that there are K samples at every choice,
selects two of them by the embeddings of what they lead to (REAL, arXiv 2409.17169, section 3),
calls the one of higher utility chosen, and takes gradient steps of DPO (`update_on_pairs`) away from
the reference policy, which stays the same throughout. All rounds together take as many actions as
the REINFORCE agent's iterations.

Axis letters: `C` choices, `K` samples of each, `L` actions of a sample, `A` = C K L actions (choice
by choice, sample by sample), `S` = C K samples, `B` pairs of a gradient step.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from eagle_jax.base.metrics import check_finite
from eagle_jax.base.seeds import derive_seed
from eagle_jax.eagle.agent.player import AgentTask, Player
from eagle_jax.eagle.agent.state import EagleSettings
from eagle_jax.eagle.dpo.choices import RankedPairs, Samples, is_distinct, play_actions, play_episodes, rank_pairs
from eagle_jax.eagle.dpo.update import (
    PairBatch,
    PreferenceAgentSettings,
    PreferenceAgentState,
    pair_optimizer,
    update_on_pairs,
)
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.sharding import fetch, on_mesh_of
from eagle_jax.learning.loop import AgentResult, Laps, Records, train_agent
from eagle_jax.learning.optimizers import training_start
from eagle_jax.learning.policy_batch import PolicyBatch, action_log_probs
from eagle_jax.learning.trainable import TrainingMode, join, split
from eagle_jax.real.training.losses import implicit_rewards
from eagle_jax.reports.markdown import fact, facts_of


def train_preference_agent(
    reference: LanguageModel,
    mode: TrainingMode,
    task: AgentTask,
    settings: PreferenceAgentSettings,
    agent: EagleSettings,
    *,
    records: Records,
    seed: int,
) -> AgentResult:
    """Trains the policy from the last checkpoint, or from the reference policy; steps are rounds.

    With equal seeds its validation is that of `train_eagle`. Raises `NonFiniteError` that names the
    round where a utility, an embedding or a loss is not finite; nothing of it is saved.
    """
    trainable, frozen = split(reference.params, mode)
    player = Player(reference, trainable, frozen, task, agent, settings.starts_per_round * settings.num_samples, seed)
    with on_mesh_of(trainable):
        state = PreferenceAgentState(*training_start(pair_optimizer(settings), trainable))
    iterate = functools.partial(_iterate, player, settings)
    return train_agent(state, iterate, player.validate, frozen, records, settings, settings.num_rounds(agent))


def _iterate(
    player: Player, settings: PreferenceAgentSettings, step: int, state: PreferenceAgentState
) -> tuple[PreferenceAgentState, dict[str, float]]:
    """Episodes, pairs and gradient steps; `state` is donated."""
    laps = Laps()
    rng, states, seed = player.begin(step, settings.starts_per_round)
    play = play_actions if settings.unit == "action" else play_episodes
    samples = play(player, state.trainable, states, settings.num_samples, seed)
    laps.end("rollout")
    values, _ = player.score(samples.first, samples.final)
    actions = player.encode(samples.generations)
    reference = _reference_log_probs(player, actions)
    # What was sampled has the policy's log-probs with it.
    policy = np.array([sum(made.log_probs) for made in samples.generations], np.float32)
    values |= samples.calls | {"policy/kl": float((policy - reference).mean())}
    policy, reference = (log_probs.reshape(len(samples.ends), -1).sum(axis=1) for log_probs in (policy, reference))
    pairs = _pairs(player, settings, step, samples, implicit_rewards(policy, reference, settings.beta))
    values |= pairs.metrics
    check_finite(step, values)
    laps.end("score")
    state, metrics = _fit(player, settings, state, actions, reference, pairs, rng)
    laps.end("update")
    return state, values | metrics | laps.seconds


def _reference_log_probs(player: Player, actions: PolicyBatch) -> np.ndarray:
    """[A], so many at a time as the REINFORCE agent's minibatches have."""
    config, agent = player.reference.config, player.settings
    params = join(player.start, player.frozen)
    count, size = len(actions.tokens), agent.minibatch_size
    parts = []
    with on_mesh_of(params):
        for first in range(0, count, size):
            rows = np.arange(first, first + size) % count  # the last ones again: one shape
            part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], actions)
            scores = action_log_probs(config, params, part, agent.policy.temperature)
            parts.append(fetch(scores))
    return np.concatenate(parts)[:count]


def _pairs(
    player: Player, settings: PreferenceAgentSettings, step: int, samples: Samples, rewards: np.ndarray
) -> RankedPairs:
    """Pairs of all choices, given the implicit rewards [S]."""
    shape = (-1, samples.num_samples)
    utilities = np.asarray(player.task.reward_fn(samples.ends), np.float32).reshape(shape)
    embeddings = np.asarray(player.task.features_fn(samples.ends), np.float32)
    check_finite(step, {"utility": utilities.sum(), "embeddings": embeddings.sum()})
    return rank_pairs(
        settings.strategy,
        settings.metric,
        embeddings.reshape(*utilities.shape, -1),
        utilities,
        is_distinct(samples),
        rewards.reshape(shape),
        jax.random.key(derive_seed(player.seed, step, 2)),
    )


def _fit(
    player: Player,
    settings: PreferenceAgentSettings,
    state: PreferenceAgentState,
    actions: PolicyBatch,
    reference: np.ndarray,
    pairs: RankedPairs,
    rng: np.random.Generator,
) -> tuple[PreferenceAgentState, dict[str, float]]:
    """Gradient steps over the pairs; metrics are means over all of them, as they were met."""
    size = settings.batch_size
    temperature = player.settings.policy.temperature
    sums = {}
    num_actions = len(actions.tokens) // len(reference)
    places = np.stack([pairs.chosen, pairs.rejected], axis=1)
    for _ in range(settings.num_epochs):
        order = rng.permutation(len(places))
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            met = places[np.resize(rows, size)]  # the first ones again: one shape
            of_actions = (met[..., None] * num_actions + np.arange(num_actions)).reshape(-1)
            batch = PairBatch(
                jax.tree.map(lambda leaf, rows=of_actions: leaf[rows], actions),
                reference[met],
                (np.arange(size) < len(rows)).astype(np.float32),
            )
            with on_mesh_of(player.start):
                state, metrics = update_on_pairs(
                    player.reference.config, settings, player.frozen, state, batch, temperature
                )
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(rows)
    total = len(places) * settings.num_epochs
    return state, {name: value / total for name, value in sums.items()}


def pair_facts(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sums and means over the rounds of all agents; none without agents. rows: of their metrics."""
    rows = [row for row in rows if "pairs" in row]  # not the validation before the first round
    if not rows:
        return []
    meanings = {
        "pairs": "trained on: two samples of one choice, the one of higher utility chosen",
        "pairs/ties": "choices that gave none: the two selected samples have the same utility",
        "pairs/without_choice": "choices that gave none: fewer than two distinct samples",
        "pairs/repeated_samples": "samples left out: the text or the actions of one before",
        "pairs/unusable_samples": "samples left out: no similarity can be computed",
    }
    facts = facts_of({name: sum(row[name] for row in rows) for name in meanings}, meanings)
    trained = [row for row in rows if row["pairs"]]
    if trained:
        accuracy = float(np.mean([row["rewards/accuracy"] for row in trained]))
        note = "share of pairs with the higher implicit reward on the chosen side, mean over rounds"
        facts.append(fact("rewards/accuracy", accuracy, note))
    return facts
