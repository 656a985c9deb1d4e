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

from eagle_jax.data.catalogue import RatingTable
from eagle_jax.data.splits import Split
from eagle_jax.data.task_examples import Row
from eagle_jax.data.tasks import find_task
from eagle_jax.elm.evaluation.consistency import (
    EmbedFn,
    behavioral_consistency_user,
    embed_outputs,
    is_readable,
    rating_matrix,
    read_outputs,
    semantic_consistency,
)
from eagle_jax.elm.rlaif.settings import SC
from eagle_jax.elm.space import Spaces
from eagle_jax.language_model.generation import Generation

TextScoreFn = Callable[[Sequence[Row], Sequence[str | None]], np.ndarray]
RewardFn = Callable[[Sequence[Row], Sequence[Generation]], np.ndarray]


def semantic_score(embed: EmbedFn, semantic: np.ndarray) -> TextScoreFn:
    """SC of each film's text [B] with the film's embedding, of which `semantic` [N, d] has all."""

    def score(rows: Sequence[Row], texts: Sequence[str | None]) -> np.ndarray:
        return semantic_consistency(embed, texts, semantic[[row["items"][0] for row in rows]])

    return score


def behavioral_score(embed: EmbedFn, item_texts: np.ndarray, ratings: RatingTable, films: np.ndarray) -> TextScoreFn:
    """BC (NDCG) of each user's profile [B]: how it ranks `films` against the user's `ratings`.

    embed: E_D of profiles; item_texts [N, d]: of all films' texts.
    """

    def score(rows: Sequence[Row], texts: Sequence[str | None]) -> np.ndarray:
        outputs = embed_outputs(embed, texts, item_texts.shape[1])
        given = rating_matrix(ratings, [row["user"] for row in rows], films)
        return behavioral_consistency_user(outputs, item_texts[films], given).ndcg

    return score


def training_reward(reward: str, malformed_reward: float, spaces: Spaces, split: Split) -> RewardFn:
    """The reward of what an ELM wrote; `reward` and `malformed_reward` as in the settings."""
    if reward == SC:
        score = semantic_score(spaces.embed, spaces.semantic)
    else:
        score = behavioral_score(spaces.user_encoder, spaces.item_texts, split.train, split.entities["train"])

    def reward_fn(rows: Sequence[Row], generations: Sequence[Generation]) -> np.ndarray:
        texts = read_outputs(generations).texts
        readable = np.array([is_readable(text) for text in texts])
        return np.where(readable, score(rows, texts), malformed_reward)

    return reward_fn


def questions(tasks: Sequence[str], split: Split, spaces: Spaces, part: str) -> list[list[Row]]:
    """For each film of a part of the split, or user of whom there is a profile, every task."""
    if not find_task(tasks[0]).describes_user:
        return [[{"task": task, "items": [int(film)], "user": None} for task in tasks] for film in split.entities[part]]
    known = [int(user) for user in split.users[part] if int(user) in spaces.profile_rows]
    return [[spaces.profile_rows[user]] for user in known]


def draw_questions(asked: Sequence[Sequence[Row]], rng: np.random.Generator, n: int) -> list[Row]:
    """n of them, films and tasks drawn independently."""
    chosen = rng.integers(len(asked), size=n), rng.integers(len(asked[0]), size=n)
    return [asked[subject][task] for subject, task in zip(*chosen, strict=True)]
