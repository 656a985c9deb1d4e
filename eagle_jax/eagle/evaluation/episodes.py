"""Evaluation on held-out (anchor, user) pairs: every way to get a text is a row of episodes.

A row is the anchor itself, a policy, best-of-N with a policy, or texts that nobody rewrote. Its
episodes become `EpisodeRecord`s, which are all that the tables and the report need.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.eagle.environment import LLMEnvironment, Start, Step
from eagle_jax.eagle.rollout import PolicyFn, rollout
from eagle_jax.embeddings.scorer import TRAIN
from eagle_jax.embeddings.utility import UtilityTerms

# (descriptions, their users' indices [B]) -> terms [B], under one encoder.
ScoreFn = Callable[[Sequence[str], np.ndarray], UtilityTerms]
EmbedTextsFn = Callable[[Sequence[str]], np.ndarray]  # descriptions -> [B, d]


Score = Mapping[str, float]  # of one text, under one encoder: "utility" and the terms it is made of


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """From an anchor to the text that counts: the last of `steps`, or the anchor without any."""

    seed: int
    entity_index: int
    user_index: int
    anchor: str
    profile: str
    steps: tuple[Step, ...]
    scores: Mapping[str, tuple[Score, ...]]  # encoder -> score of the anchor, then after each step
    distance: float  # ||z_final - z_anchor||_2 under the training encoder
    num_steps: int  # taken to find this text; best-of-N takes more than it keeps
    environment_calls: int
    malformed: Mapping[str, int]  # reason -> count over all num_steps
    rater: Mapping[str, float] | None  # RaterScores of the final text; None: not rated

    @property
    def pair(self) -> tuple[int, int]:
        return self.entity_index, self.user_index

    @property
    def final_text(self) -> str:
        return self.steps[-1].description if self.steps else self.anchor

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> EpisodeRecord:
        steps = tuple(Step(**step) for step in value["steps"])
        scores = {encoder: tuple(path) for encoder, path in value["scores"].items()}
        return cls(**{**value, "steps": steps, "scores": scores})


def equal_call_episodes(
    *, calls_per_episode: int, training_calls: int, num_evaluated: int, best_of_n_horizon: int
) -> int:
    """N = ceil((calls_per_episode + training_calls / num_evaluated) / best_of_n_horizon).

    How many episodes of `best_of_n_horizon` steps best-of-N may take per start for as many
    environment calls as a trained policy, whose training calls are shared out over the episodes it
    is evaluated on; 0 `training_calls` is equality at test time. Rounded up, in best-of-N's favour.
    """
    if min(calls_per_episode, num_evaluated, best_of_n_horizon) < 1 or training_calls < 0:
        raise ValueError(
            f"calls_per_episode ({calls_per_episode}), num_evaluated ({num_evaluated}) and "
            f"best_of_n_horizon ({best_of_n_horizon}) must be at least 1, "
            f"training_calls ({training_calls}) at least 0"
        )
    total = calls_per_episode * num_evaluated + training_calls
    return -(-total // (num_evaluated * best_of_n_horizon))


def evaluate_anchor(
    starts: Sequence[Start], seed: int, score_fns: Mapping[str, ScoreFn], embed_fn: EmbedTextsFn
) -> list[EpisodeRecord]:
    """No change at all: what every other row has to beat."""
    return evaluate_played(starts, [()] * len(starts), seed, score_fns, embed_fn)


def evaluate_texts(
    starts: Sequence[Start], texts: Sequence[Step], seed: int, score_fns: Mapping[str, ScoreFn], embed_fn: EmbedTextsFn
) -> list[EpisodeRecord]:
    """One text per start that no action led to: one step and no environment call."""
    return evaluate_played(starts, [(text,) for text in texts], seed, score_fns, embed_fn)


def evaluate_played(
    starts: Sequence[Start],
    episodes: Sequence[tuple[Step, ...]],
    seed: int,
    score_fns: Mapping[str, ScoreFn],
    embed_fn: EmbedTextsFn,
) -> list[EpisodeRecord]:
    """The record of one episode per start, of which these are the steps; the last text counts."""
    return _records(seed, starts, [[steps] for steps in episodes], _keep_last, score_fns, embed_fn)


def evaluate_policy(
    policy_fn: PolicyFn,
    environment: LLMEnvironment,
    starts: Sequence[Start],
    horizon: int,
    seed: int,
    score_fns: Mapping[str, ScoreFn],
    embed_fn: EmbedTextsFn,
    batch_size: int,
) -> list[EpisodeRecord]:
    """One episode of `horizon` steps per start; the last text counts, whatever it is worth."""
    episodes = _episodes(policy_fn, environment, starts, horizon, seed, batch_size)
    return evaluate_played(starts, episodes, seed, score_fns, embed_fn)


def evaluate_best_of_n(
    policy_fn: PolicyFn,
    environment: LLMEnvironment,
    starts: Sequence[Start],
    horizon: int,
    num_episodes: int,
    seed: int,
    score_fns: Mapping[str, ScoreFn],
    embed_fn: EmbedTextsFn,
    batch_size: int,
) -> list[EpisodeRecord]:
    """`num_episodes` episodes per start; the text of best *training* utility seen anywhere counts.

    The anchor and the texts on the way are candidates too, so a record is never below its anchor
    under the training encoder; `steps` is the path to the chosen text.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes must be at least 1, got {num_episodes}")
    repeated = [start for start in starts for _ in range(num_episodes)]
    flat = _episodes(policy_fn, environment, repeated, horizon, seed, batch_size)
    grouped = [flat[i : i + num_episodes] for i in range(0, len(flat), num_episodes)]
    return _records(seed, starts, grouped, _keep_best, score_fns, embed_fn)


def _episodes(policy_fn, environment, starts, horizon, seed, batch_size) -> list[tuple[Step, ...]]:
    """The steps of one episode per start, `batch_size` episodes at a time."""
    episodes = []
    for first in range(0, len(starts), batch_size):
        states = environment.reset(starts[first : first + batch_size])
        played = rollout(policy_fn, environment, states, horizon, derive_seed(seed, first))
        episodes += zip(*(transition.steps for transition in played), strict=True)
    return episodes


def _keep_last(utilities: Sequence[Sequence[float]]) -> tuple[int, int]:
    return 0, len(utilities[0]) - 1


def _keep_best(utilities: Sequence[Sequence[float]]) -> tuple[int, int]:
    """The (episode, step) of highest utility; of equal ones the one with the fewest changes."""
    places = [(n, t) for n, path in enumerate(utilities) for t in range(len(path))]
    return max(places, key=lambda place: (utilities[place[0]][place[1]], -place[1]))


def _records(seed, starts, episodes, keep, score_fns, embed_fn) -> list[EpisodeRecord]:
    """Scores all texts under the training encoder, and those on the kept paths under the others."""
    users = [start.user_index for start in starts]
    texts = [
        [[start.description, *(step.description for step in steps)] for steps in of_start]
        for start, of_start in zip(starts, episodes, strict=True)
    ]
    flat_users = [user for user, of_start in zip(users, texts, strict=True) for _ in of_start]
    flat_scores = _score_paths(TRAIN, score_fns[TRAIN], [path for of_start in texts for path in of_start], flat_users)
    paths, kept = [], []
    remaining = iter(flat_scores)
    for of_start, of_texts in zip(episodes, texts, strict=True):
        scores = [next(remaining) for _ in of_start]
        episode, step = keep([[score["utility"] for score in path] for path in scores])
        kept.append((of_start[episode][:step], {TRAIN: scores[episode][: step + 1]}))
        paths.append(of_texts[episode][: step + 1])
    for name in score_fns:
        if name != TRAIN:
            scored = _score_paths(name, score_fns[name], paths, users)
            for (_, scores), path_scores in zip(kept, scored, strict=True):
                scores[name] = path_scores
    distances = np.linalg.norm(
        np.asarray(embed_fn([path[-1] for path in paths])) - np.asarray(embed_fn([path[0] for path in paths])), axis=1
    )
    return [
        _record(seed, start, *parts, float(distance), of_start)
        for start, parts, distance, of_start in zip(starts, kept, distances, episodes, strict=True)
    ]


def _record(seed, start, steps, scores, distance, all_episodes) -> EpisodeRecord:
    taken = [step for episode in all_episodes for step in episode]
    return EpisodeRecord(
        seed=seed,
        entity_index=start.entity_index,
        user_index=start.user_index,
        anchor=start.description,
        profile=start.profile,
        steps=steps,
        scores=scores,
        distance=distance,
        num_steps=len(taken),
        environment_calls=sum(step.action is not None for step in taken),
        malformed=dict(Counter(step.malformed for step in taken if step.malformed is not None)),
        rater=None,
    )


def _score_paths(encoder, score_fn, paths, users) -> list[tuple[Score, ...]]:
    """Scores of every text of every path; a (text, user) that occurs twice is scored once."""
    places: dict[tuple[str, int], int] = {}
    for path, user in zip(paths, users, strict=True):
        for text in path:
            places.setdefault((text, user), len(places))
    terms = score_fn([text for text, _ in places], np.array([user for _, user in places], np.int32))
    columns = {name: values for name, values in terms._asdict().items() if values is not None}
    scores = [dict(zip(columns, map(float, values), strict=True)) for values in zip(*columns.values(), strict=True)]
    for (text, user), score in zip(places, scores, strict=True):
        if not all(map(math.isfinite, score.values())):
            raise ValueError(
                f"encoder {encoder!r}, user {user}: the utility terms are {score} for "
                f"{text[:200]!r}; finite numbers were expected: check the encoder"
            )
    return [tuple(scores[places[text, user]] for text in path) for path, user in zip(paths, users, strict=True)]
