"""What RLAIF asks an ELM, and what it rewards the answers for.

Tennenholtz et al. 2024 (ELM), appendix H: r = SC(o; w_v) or BC(o; w_u) at the end of a text. What
the appendix does not say: an answer that cannot be read or was cut short gets
`malformed_reward`. BC of training looks at training ratings of training films only, so that what is
held out stays so.

Axis letters: `B` answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from eagle_jax.data.task_examples import Row
from eagle_jax.data.tasks import find_task
from eagle_jax.elm.evaluation.consistency import is_readable, rating_matrix, read_outputs, semantic_consistency
from eagle_jax.elm.rlaif.settings import SC
from eagle_jax.elm.space import Spaces
from eagle_jax.language_model.generation import Generation

RewardFn = Callable[[Sequence[Row], Sequence[Generation]], np.ndarray]


def training_reward(reward: str, malformed_reward: float, spaces: Spaces) -> RewardFn:
    """The reward [B] of what an ELM wrote; `reward` and `malformed_reward` as in the settings."""

    def score(rows: Sequence[Row], texts: Sequence[str | None]) -> np.ndarray:
        if reward == SC:
            return semantic_consistency(spaces.embed, texts, spaces.semantic[[row["items"][0] for row in rows]])
        films = spaces.split.entities["train"]
        given = rating_matrix(spaces.split.train, [row["user"] for row in rows], films)
        return spaces.rank_films(texts, films, given).ndcg

    def reward_fn(rows: Sequence[Row], generations: Sequence[Generation]) -> np.ndarray:
        texts = read_outputs(spaces.book, generations).texts
        readable = np.array([is_readable(text) for text in texts])
        return np.where(readable, score(rows, texts), malformed_reward)

    return reward_fn


def questions(tasks: Sequence[str], spaces: Spaces, part: str) -> list[list[Row]]:
    """For each film of a part of the split, or user of whom there is a profile, every task."""
    if find_task(tasks[0]).describes_user:
        return [[spaces.profile_rows[user]] for user in spaces.described_users(part)]
    films = spaces.split.entities[part]
    return [[{"task": task, "items": [int(film)], "user": None} for task in tasks] for film in films]


def draw_questions(asked: Sequence[Sequence[Row]], rng: np.random.Generator, n: int) -> list[Row]:
    """n of them, films and tasks drawn independently."""
    chosen = rng.integers(len(asked), size=n), rng.integers(len(asked[0]), size=n)
    return [asked[subject][task] for subject, task in zip(*chosen, strict=True)]
