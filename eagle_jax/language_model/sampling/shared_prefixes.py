"""How a batch of prompts is split into beginnings that rows share and ends of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class SharedPrefixes(NamedTuple):
    """Prompt b is prefixes[rows[b]] + suffixes[b]; no suffix is empty.

    Padded to prefix_length and suffix_length tokens they take as much room as the padded prompts.
    """

    prefixes: list[list[int]]
    rows: np.ndarray
    suffixes: list[list[int]]
    prefix_length: int
    suffix_length: int


def split_prompts(prompts: Sequence[list[int]], length_multiple: int) -> SharedPrefixes | None:
    """The split that reads the fewest tokens; None if it saves less than a quarter of them.

    Prompts are padded to a multiple of length_multiple tokens, and so are suffixes, except those
    of one token that are the rest of equal prompts: few shapes. In the order of their tokens,
    prompts with a long beginning in common are neighbours: U groups are best made by cutting where
    the U - 1 shortest ones are; U is a power of four.
    """
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    neighbours = zip(order, order[1:], strict=False)
    common = np.array([_num_common(prompts[a], prompts[b]) for a, b in neighbours], int)
    shortest = np.argsort(common, kind="stable")
    width = _padded(max(map(len, prompts)), length_multiple)
    best = None
    fewest = len(prompts) * width * 0.75
    num_groups = 1
    while num_groups < len(prompts):
        cuts = np.sort(shortest[: num_groups - 1]) + 1
        groups = np.split(np.array(order), cuts)
        lengths = [
            min([len(prompts[group[0]]) - 1, *common[first : first + len(group) - 1].tolist()])
            for group, first in zip(groups, [0, *cuts], strict=True)
        ]
        longest = max(
            len(prompts[row]) - length for group, length in zip(groups, lengths, strict=True) for row in group
        )
        end = 1 if longest == 1 else _padded(longest, length_multiple)
        count = num_groups * (width - end) + len(prompts) * end
        if count <= fewest:
            best, fewest = (groups, lengths, width - end, end), count
        num_groups *= 4
    return None if best is None else _split(prompts, *best)


def _padded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _num_common(one: list[int], other: list[int]) -> int:
    """Tokens that two prompts begin with, at most all but the last of either."""
    limit = min(len(one), len(other)) - 1
    pairs = zip(one[:limit], other[:limit], strict=True)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), limit)


def _split(
    prompts: Sequence[list[int]], groups: list[np.ndarray], lengths: list[int], prefix_length: int, suffix_length: int
) -> SharedPrefixes:
    rows = np.zeros(len(prompts), np.int32)
    suffixes: list[list[int]] = [[] for _ in prompts]
    prefixes = []
    for index, (group, common) in enumerate(zip(groups, lengths, strict=True)):
        length = min(common, prefix_length)
        prefixes.append(prompts[group[0]][:length])
        rows[group] = index
        for row in group:
            suffixes[row] = prompts[row][length:]
    return SharedPrefixes(prefixes, rows, suffixes, prefix_length, suffix_length)
