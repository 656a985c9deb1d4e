"""Examples of ELM's tasks: which items and users they are about.

Tennenholtz et al. 2024 (ELM), section 3.1 and appendix E. An example is a row
{"task": name, "items": [...], "user": index or None}, where `items` are what the teacher is shown:
one item, a pair, or `RATED_PER_SIDE` liked and as many disliked ones.

Axis letters: `N` items, `n` items of the pool, `d` width of an embedding, `k` neighbors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.data.tasks import RATED_PER_SIDE, Task

Row = dict[str, Any]
_BLOCK = 1024  # rows of the matrix of similarities that are in memory at a time


def nearest_neighbors(embeddings: np.ndarray, pool: np.ndarray, count: int) -> np.ndarray:
    """The items [N, k] of the pool that are nearest to each item by cosine, itself excluded.

    Args:
      embeddings: [N, d], semantic embeddings of all items.
      pool: [n], the items that may be a neighbor (those of the training split, say).
      count: k.

    Raises:
      UserError: a pool of k items or fewer; an embedding of no direction, naming its row.
    """
    if len(pool) <= count:
        raise UserError(f"{count} neighbors asked for in a pool of {len(pool)} items")
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        row = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))[0]
        raise UserError(f"the embedding of item {row} is zero or not finite: it has no neighbors")
    directions = embeddings / lengths
    found = []
    for start in range(0, len(directions), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(directions)))
        similarity = directions[rows] @ directions[pool].T
        similarity[rows[:, None] == pool[None, :]] = -np.inf
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(similarity, nearest, axis=1), axis=1, kind="stable")
        found.append(pool[np.take_along_axis(nearest, order, axis=1)])
    return np.concatenate(found)


def draw_task_examples(
    task: Task,
    count: int,
    rng: np.random.Generator,
    *,
    items: np.ndarray,
    neighbors: np.ndarray,
    ratings: RatingTable,
    users: np.ndarray,
) -> list[Row]:
    """`count` examples of a task, each drawn for itself: the same row may come twice.

    Args:
      items: [n], the items of the split; a random partner is another of them.
      neighbors: [N, k] of `nearest_neighbors`; the partner of a "nearest" task is one of the k.
      ratings: what the users of the split are told by.
      users: the users of the split.

    Raises:
      UserError: fewer than two items for a pair; no user with enough ratings.
    """
    if task.describes_user:
        rated = {int(user): sides for user in users if (sides := rated_sides(ratings, int(user)))}
        if not rated:
            raise UserError(
                f"task {task.name}: none of {len(users)} users has {3 * RATED_PER_SIDE} ratings "
                f"with {RATED_PER_SIDE} liked and {RATED_PER_SIDE} disliked items among them"
            )
        draw = functools.partial(_draw_user, sorted(rated), rated)
    else:
        draw = functools.partial(_draw_items, task, items, neighbors)
    return [{"task": task.name, **draw(rng)} for _ in range(count)]


def rated_sides(ratings: RatingTable, user: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The third of a user's items rated highest and the third rated lowest; None where a third is
    fewer than `RATED_PER_SIDE` items or the two are rated alike."""
    rated = np.flatnonzero(ratings.user_index == user)
    order = rated[np.argsort(-ratings.rating[rated], kind="stable")]
    third = len(order) // 3
    if third < RATED_PER_SIDE:
        return None
    if ratings.rating[order[third - 1]] <= ratings.rating[order[-third]]:
        return None
    return ratings.item_index[order[:third]], ratings.item_index[order[-third:]]


def _draw_user(users: Sequence[int], rated: dict[int, tuple[np.ndarray, np.ndarray]], rng: np.random.Generator) -> Row:
    user = users[int(rng.integers(len(users)))]
    sides = [rng.choice(side, RATED_PER_SIDE, replace=False).tolist() for side in rated[user]]
    return {"items": sides[0] + sides[1], "user": user}


def _draw_items(task: Task, items: np.ndarray, neighbors: np.ndarray, rng: np.random.Generator) -> Row:
    first = int(rng.choice(items))
    if task.partner == "none":
        return {"items": [first], "user": None}
    if task.partner == "nearest":
        return {"items": [first, int(rng.choice(neighbors[first]))], "user": None}
    if len(items) < 2:
        raise UserError(f"task {task.name} is about two items, and there is only item {first}")
    second = first
    while second == first:
        second = int(rng.choice(items))
    return {"items": [first, second], "user": None}
