"""How a batch of prompts is split into beginnings that rows share and ends of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class SharedPrefixes(NamedTuple):
    """Prompt b is prefixes[rows[b]] + suffixes[b]; no suffix is empty."""

    prefixes: list[list[int]]
    rows: np.ndarray
    suffixes: list[list[int]]


def split_prompts(prompts: Sequence[list[int]], length_multiple: int) -> SharedPrefixes | None:
    """The split that reads the fewest tokens, padding included; None if it saves less than half.

    Prefixes are padded to a multiple of length_multiple tokens, and suffixes, as the number of
    prefixes, to a power of two. In the order of their tokens, prompts with a long beginning in
    common are neighbours: U groups are best made by cutting where the U - 1 shortest ones are.
    """
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    common = np.array(
        [_num_common(prompts[a], prompts[b]) for a, b in zip(order, order[1:], strict=False)], int
    )
    by_length = np.argsort(common, kind="stable")
    longest = max(map(len, prompts))
    best, fewest = None, len(prompts) * -(-longest // length_multiple) * length_multiple / 2
    num_groups = 1
    while num_groups < len(prompts):
        cuts = np.sort(by_length[: num_groups - 1]) + 1
        groups = [group.tolist() for group in np.split(np.array(order), cuts)]
        # Neighbours share at least what all of a group shares. The last token is never shared.
        lengths = [
            min([len(prompts[group[0]]) - 1, *common[first : first + len(group) - 1].tolist()])
            for group, first in zip(groups, [0, *cuts], strict=True)
        ]
        prefix = -(-max(lengths) // length_multiple) * length_multiple
        suffix = power_of_two(
            max(
                len(prompts[row]) - length
                for group, length in zip(groups, lengths, strict=True)
                for row in group
            )
        )
        if (count := num_groups * prefix + len(prompts) * suffix) <= fewest:
            best, fewest = (groups, lengths), count
        num_groups *= 2
    return None if best is None else _split(prompts, *best)


def power_of_two(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def _num_common(one: list[int], other: list[int]) -> int:
    """Tokens that two prompts begin with, at most all but the last of either."""
    limit = min(len(one), len(other)) - 1
    pairs = zip(one[:limit], other[:limit], strict=True)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), limit)


def _split(
    prompts: Sequence[list[int]], groups: list[list[int]], lengths: list[int]
) -> SharedPrefixes:
    rows = np.zeros(len(prompts), np.int32)
    suffixes: list[list[int]] = [[] for _ in prompts]
    prefixes = []
    for index, (group, length) in enumerate(zip(groups, lengths, strict=True)):
        prefixes.append(prompts[group[0]][:length])
        for row in group:
            rows[row], suffixes[row] = index, prompts[row][length:]
    return SharedPrefixes(prefixes, rows, suffixes)
