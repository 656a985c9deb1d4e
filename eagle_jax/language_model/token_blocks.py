"""Arrays of tokens in blocks: what is large for every token is made for some of each row at a time.

Rows are not split, so that a mesh that splits them splits every block alike.
Axes: B rows, T tokens.
"""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def in_blocks(tree: Tree, size: int) -> Tree:
    """[B, T, ...] -> [blocks, B, size, ...], the last one padded with zeros."""

    def split(rows):
        batch, length, *rest = rows.shape
        padded = jnp.pad(rows, ((0, 0), (0, -length % size), *((0, 0) for _ in rest)))
        return jnp.moveaxis(padded.reshape(batch, -1, size, *rest), 1, 0)

    return jax.tree.map(split, tree)


def joined(tree: Tree, length: int) -> Tree:
    """[blocks, B, size, ...] -> [B, T, ...] of T = length tokens, without the padding."""

    def join(blocks):
        count, batch, size, *rest = blocks.shape
        return jnp.moveaxis(blocks, 0, 1).reshape(batch, count * size, *rest)[:, :length]

    return jax.tree.map(join, tree)
