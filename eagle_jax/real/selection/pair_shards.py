"""Pair selection for more prompts than fit into memory: shards in, selected pairs out.

Axis letters: N prompts, n prompts of one shard, K responses of each, D width of an embedding.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from eagle_jax.base.errors import UserError
from eagle_jax.real.selection.pair_selection import SelectedPairs, select_within


class Shard(NamedTuple):
    """embeddings [n, K, D], is_valid [n, K] (None: all), implicit_rewards [n, K] or None.

    Arrays, memory-mapped ones too; float16 and float64 are computed in float32.
    """

    embeddings: np.ndarray
    is_valid: np.ndarray | None = None
    implicit_rewards: np.ndarray | None = None


def select_shards(
    strategy: str, shards: Iterable[Shard], *, metric: str, key: jax.Array, rows_per_program: int
) -> Iterator[SelectedPairs]:
    """`select_within` of shard after shard; NumPy arrays, one SelectedPairs for each shard.

    A shard is cut into pieces of rows_per_program prompts, the last one filled up: one compilation
    whatever sizes the shards have, and the same pairs however the prompts are divided, since a
    draw depends on the number of the prompt among all. Responses that cannot be used are counted
    in a warning.

    Memory, beside the shard itself: with P = rows_per_program, two pieces are under way, each of
    about 12 P K D bytes, P K^2 times 12 bytes for distances, and for centroid P K min(K, 16) times
    24 bytes more. 1,024 prompts of 8 responses of width 384: 40 MB each; a shard of as many prompts
    12.6 MB in float32.

    Raises UserError for a shard that is not like the first one, by its number, and what
    select_within raises.
    """
    first_row = 0
    form = None
    for number, shard in enumerate(shards):
        _check_form(number, shard)
        form = form or _form(shard)
        if _form(shard) != form:
            raise UserError(f"shard {number} has {_describe(_form(shard))}, the first one {_describe(form)}")
        running = collections.deque()
        done = []
        for start in range(0, len(shard.embeddings), rows_per_program):
            piece = _piece(shard, start, rows_per_program)
            row = np.uint32(first_row + start)
            running.append(select_within(strategy, *piece, metric=metric, key=key, first_row=row))
            if len(running) > 1:  # a piece is waited for when the next one is under way
                done.append(jax.device_get(running.popleft()))
        done += jax.device_get(list(running))
        selected = SelectedPairs(
            *(np.concatenate(leaves)[: len(shard.embeddings)] for leaves in zip(*done, strict=True))
        )
        _warn_of_unusable(number, first_row, selected)
        first_row += len(shard.embeddings)
        yield selected


def _form(shard: Shard) -> tuple:
    """What a compiled program is for."""
    has_rewards = shard.implicit_rewards is not None
    return (*shard.embeddings.shape[1:], shard.embeddings.dtype, has_rewards)


def _describe(form: tuple) -> str:
    rewards = "with" if form[3] else "without"
    return f"K = {form[0]}, D = {form[1]}, {form[2]}, {rewards} implicit rewards"


def _check_form(number: int, shard: Shard) -> None:
    shape = shard.embeddings.shape
    if len(shape) != 3 or not shape[0]:
        raise UserError(f"shard {number}: embeddings must be [n, K, D], n > 0, got {list(shape)}")
    for name, array in (("is_valid", shard.is_valid), ("rewards", shard.implicit_rewards)):
        if array is not None and array.shape != shape[:2]:
            raise UserError(
                f"shard {number}: {name} must be {list(shape[:2])} like the embeddings, got {list(array.shape)}"
            )


def _piece(shard: Shard, start: int, size: int) -> list:
    """embeddings, is_valid and rewards of `size` rows from `start` on, not valid behind the end."""
    is_valid = shard.is_valid
    if is_valid is None:
        is_valid = np.ones(shard.embeddings.shape[:2], bool)

    def place(array):
        if array is None:
            return None
        rows = np.asarray(array[start : start + size])
        return jnp.asarray(np.pad(rows, [(0, size - len(rows))] + [(0, 0)] * (rows.ndim - 1)))

    return [place(array) for array in (shard.embeddings, is_valid, shard.implicit_rewards)]


def _warn_of_unusable(number: int, first_row: int, selected: SelectedPairs) -> None:
    if len(rows := np.flatnonzero(selected.num_unusable)):
        logging.warning(
            "shard %d: %d responses of %d prompts cannot be compared (nan, inf or zero) and are "
            "left out; the first such prompt is number %d",
            number,
            selected.num_unusable.sum(),
            len(rows),
            first_row + rows[0],
        )
