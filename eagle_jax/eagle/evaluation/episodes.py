"""Evaluation on held-out (anchor, user) pairs: every way to get a text is a row of episodes.

A row is the anchor itself, a policy, best-of-N with a policy, or texts that nobody rewrote. Its
episodes become `EpisodeRecord`s, which are all that the tables and the report need.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.eagle.environment import LLMEnvironment, Start, Step
from eagle_jax.eagle.quality.quality import Quality, with_quality
from eagle_jax.eagle.rollout import PolicyFn, rollout
from eagle_jax.embeddings.scorer import TRAIN
from eagle_jax.embeddings.utility import UtilityTerms

# Of one text, under one encoder: "utility" and the terms it is made of. Under the training encoder also "quality" and
# "reward", where texts have one apart from U.
Score = Mapping[str, float]


class TextScorer(Protocol):
    """What an encoder says of texts: `embeddings.scorer.Scorer`, or less."""

    def embed(self, descriptions: Sequence[str]) -> np.ndarray: ...

    def score(self, descriptions: Sequence[str], user_index: np.ndarray) -> UtilityTerms: ...


@dataclasses.dataclass(frozen=True)
class Judging:
    """What says how good texts are.

    scorers: by encoder; TRAIN's is the reward. quality: of the reward, beside U. held: (anchor, text) -> the text with
    the anchor's fields, which is scored as well, under the names of `plot_alone`; None: texts have no fields.
    """

    scorers: Mapping[str, TextScorer]
    quality: Quality | None = None
    held: Callable[[str, str], str] | None = None

    def rewards(self, texts: Sequence[str], users: np.ndarray, anchors: Sequence[str]) -> np.ndarray:
        """What the training rewards [B]."""
        utility = self.scorers[TRAIN].score(texts, users).utility
        return np.asarray(with_quality(self.quality, utility, texts, anchors))


def plot_alone(encoder: str) -> str:
    """What the scores are called that an encoder gives where a text's fields are held at its anchor's."""
    return f"{encoder}_plot"


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
    # Of best-of-N: the reward of each episode's best text as "reward", and by encoder its utility.
    tries: tuple[Mapping[str, float], ...] = ()

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
        return cls(**{**value, "steps": steps, "scores": scores, "tries": tuple(value.get("tries", ()))})


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


def evaluate_played(
    judging: Judging, starts: Sequence[Start], seed: int, episodes: Sequence[tuple[Step, ...]]
) -> list[EpisodeRecord]:
    """The record of one episode per start, of which these are the steps (none: the anchor itself, which
    every other row has to beat); the last text counts, whatever it is worth."""
    return _records(judging, starts, seed, [[steps] for steps in episodes], _keep_last)


def evaluate_policy(
    judging: Judging,
    starts: Sequence[Start],
    seed: int,
    policy_fn: PolicyFn,
    environment: LLMEnvironment,
    horizon: int,
    batch_size: int,
    best_of: int | None = None,
) -> list[EpisodeRecord]:
    """One episode of `horizon` steps per start, `batch_size` at a time; the last text counts,
    whatever it is worth.

    best_of: so many episodes per start, of which the text of best *training* reward seen anywhere
    counts. The anchor and the texts on the way are candidates too, so a record is never below its
    anchor by what the training rewards; `steps` is the path to the chosen text.
    """
    count = 1 if best_of is None else best_of
    if count < 1:
        raise ValueError(f"best_of must be at least 1, got {best_of}")
    repeated = [start for start in starts for _ in range(count)]
    episodes = []
    for first in range(0, len(repeated), batch_size):
        states = environment.reset(repeated[first : first + batch_size])
        played = rollout(policy_fn, environment, states, horizon, derive_seed(seed, first))
        episodes += zip(*(transition.steps for transition in played), strict=True)
    grouped = [episodes[i : i + count] for i in range(0, len(episodes), count)]
    return _records(judging, starts, seed, grouped, _keep_last if best_of is None else _keep_best)


def _keep_last(rewards: Sequence[Sequence[float]]) -> tuple[int, int]:
    return 0, len(rewards[0]) - 1


def _keep_best(rewards: Sequence[Sequence[float]]) -> tuple[int, int]:
    """The (episode, step) of highest reward; of equal ones the one with the fewest changes."""
    places = [(n, t) for n, path in enumerate(rewards) for t in range(len(path))]
    return max(places, key=lambda place: (rewards[place[0]][place[1]], -place[1]))


def reward_of(score: Score) -> float:
    """What the training rewards of a text that the training encoder has scored."""
    return score.get("reward", score["utility"])


def _with_quality(paths, scores, quality: Quality) -> list[tuple[Score, ...]]:
    """Scores of every text of every path, the first of which is its anchor, with quality and reward."""
    texts, anchors = ([text for path in paths for text in of(path)] for of in (list, lambda path: path[:1] * len(path)))
    values = iter(quality(texts, anchors).tolist())
    return [
        tuple(
            {**score, "quality": (q := next(values)), "reward": score["utility"] + quality.weight * q} for score in path
        )
        for path in scores
    ]


def _records(judging: Judging, starts, seed, episodes, keep) -> list[EpisodeRecord]:
    """Scores all texts under the training encoder, and those on the kept paths under the others."""
    scorers = judging.scorers
    users = [start.user_index for start in starts]
    texts = [
        [[start.description, *(step.description for step in steps)] for steps in of_start]
        for start, of_start in zip(starts, episodes, strict=True)
    ]
    flat_users = [user for user, of_start in zip(users, texts, strict=True) for _ in of_start]
    flat_texts = [path for of_start in texts for path in of_start]
    flat_scores = _score_paths(TRAIN, scorers, flat_texts, flat_users)
    if judging.quality is not None:
        flat_scores = _with_quality(flat_texts, flat_scores, judging.quality)
    paths, kept = [], []
    remaining = iter(flat_scores)
    for of_start, of_texts in zip(episodes, texts, strict=True):
        scores = [next(remaining) for _ in of_start]
        episode, step = keep([[reward_of(score) for score in path] for path in scores])
        kept.append((of_start[episode][:step], {TRAIN: scores[episode][: step + 1]}))
        paths.append(of_texts[episode][: step + 1])
    judged = {name: _score_paths(name, scorers, paths, users) for name in scorers if name != TRAIN}
    if judging.held is not None:
        held = [[judging.held(path[0], text) for text in path] for path in paths]
        judged |= {plot_alone(name): _score_paths(name, scorers, held, users) for name in scorers}
    for name, scored in judged.items():
        for (_, scores), path_scores in zip(kept, scored, strict=True):
            scores[name] = path_scores
    final, anchors = (np.asarray(scorers[TRAIN].embed([path[place] for path in paths])) for place in (-1, 0))
    distances = np.linalg.norm(final - anchors, axis=1)
    tries = _tries(scorers, texts, flat_scores, users) if keep is _keep_best else [()] * len(starts)
    return [
        _record(seed, start, *parts, float(distance), of_start, of_tries)
        for start, parts, distance, of_start, of_tries in zip(starts, kept, distances, episodes, tries, strict=True)
    ]


def _tries(scorers, texts, flat_scores, users) -> list[tuple[dict[str, float], ...]]:
    """`EpisodeRecord.tries` of every start."""
    paths = [path for of_start in texts for path in of_start]
    flat_users = [user for user, of_start in zip(users, texts, strict=True) for _ in of_start]
    steps = [_keep_best([[reward_of(score) for score in path]])[1] for path in flat_scores]
    best = [path[step] for path, step in zip(flat_scores, steps, strict=True)]
    tries = [{"reward": reward_of(score), TRAIN: score["utility"]} for score in best]
    for name in (name for name in scorers if name != TRAIN):
        kept = [[path[step]] for path, step in zip(paths, steps, strict=True)]
        for of_try, (score,) in zip(tries, _score_paths(name, scorers, kept, flat_users), strict=True):
            of_try[name] = score["utility"]
    remaining = iter(tries)
    return [tuple(next(remaining) for _ in of_start) for of_start in texts]


def costs(taken: Sequence[Step]) -> dict[str, Any]:
    """Fields of an `EpisodeRecord` on all steps that were taken to find its text."""
    return {
        "num_steps": len(taken),
        "environment_calls": sum(step.num_calls for step in taken),
        "malformed": dict(Counter(step.malformed for step in taken if step.malformed is not None)),
    }


def _record(seed, start, steps, scores, distance, all_episodes, tries) -> EpisodeRecord:
    return EpisodeRecord(
        seed=seed,
        entity_index=start.entity_index,
        user_index=start.user_index,
        anchor=start.description,
        profile=start.profile,
        steps=steps,
        scores=scores,
        distance=distance,
        **costs([step for episode in all_episodes for step in episode]),
        rater=None,
        tries=tries,
    )


def _score_paths(encoder, scorers, paths, users) -> list[tuple[Score, ...]]:
    """Scores of every text of every path; a (text, user) that occurs twice is scored once."""
    places: dict[tuple[str, int], int] = {}
    for path, user in zip(paths, users, strict=True):
        for text in path:
            places.setdefault((text, user), len(places))
    terms = scorers[encoder].score([text for text, _ in places], np.array([user for _, user in places], np.int32))
    columns = {name: values for name, values in terms._asdict().items() if values is not None}
    scores = [dict(zip(columns, map(float, values), strict=True)) for values in zip(*columns.values(), strict=True)]
    for (text, user), score in zip(places, scores, strict=True):
        if not all(map(math.isfinite, score.values())):
            raise ValueError(
                f"encoder {encoder!r}, user {user}: the utility terms are {score} for "
                f"{text[:200]!r}; finite numbers were expected: check the encoder"
            )
    return [tuple(scores[places[text, user]] for text in path) for path, user in zip(paths, users, strict=True)]
