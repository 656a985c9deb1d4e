"""Splitting prompts: nothing is lost, and what is shared is read once."""

import numpy as np
import pytest

from eagle_jax.language_model.sampling.shared_prefixes import split_prompts


def rejoined(split):
    return [split.prefixes[split.rows[row]] + end for row, end in enumerate(split.suffixes)]


def test_equal_prompts_share_all_but_their_last_token():
    prompts = [[5, 6, 7, 8, 9]] * 6
    split = split_prompts(prompts, 4)
    assert split.prefixes == [[5, 6, 7, 8]]
    assert split.suffixes == [[9]] * 6
    assert (split.prefix_length, split.suffix_length) == (7, 1)  # 8 in all, as without sharing


def test_a_long_beginning_is_shared_and_ends_are_padded():
    # Width 12; ends of 2 and 3 tokens are padded to 4: 8 + 5 * 4 = 28 tokens instead of 60.
    common = list(range(20, 29))
    prompts = [[*common, 1, 2], [*common, 3, 4, 5], [*common, 1, 3], [*common, 9, 9], [*common, 7, 8]]
    split = split_prompts(prompts, 4)
    assert split.prefixes == [common[:8]]
    assert rejoined(split) == prompts
    assert (split.prefix_length, split.suffix_length) == (8, 4)


def test_as_many_groups_are_made_as_are_worth_it():
    # Four anchors, eight rows each: 4 * 16 + 32 * 4 = 192 tokens instead of 640.
    rng = np.random.default_rng(0)
    anchors = [rng.integers(100, size=17).tolist() for _ in range(4)]
    prompts = [anchors[row % 4] + rng.integers(100, size=3).tolist() for row in range(32)]
    split = split_prompts(prompts, 4)
    assert sorted(split.prefixes) == sorted(anchor[:16] for anchor in anchors)
    assert rejoined(split) == prompts
    assert [split.prefixes[index][0] for index in split.rows[:4]] == [a[0] for a in anchors]


@pytest.mark.parametrize(
    "prompts",
    [
        [[1, 2, 3]],  # alone
        [[1, 2, 3, 4, 5], [2, 2, 3, 4, 5], [3, 2, 3, 4, 5]],  # nothing in common
        [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 9, 5, 6, 7], [1, 2, 9, 4, 5, 6, 7]],  # ends of 5: 8
    ],
)
def test_what_saves_too_little_is_left_alone(prompts):
    assert split_prompts(prompts, 4) is None


def test_random_batches_lose_nothing():
    rng = np.random.default_rng(1)
    num_split = 0
    for _ in range(200):
        stems = [rng.integers(3, size=rng.integers(1, 12)).tolist() for _ in range(3)]
        prompts = [
            stems[rng.integers(3)] + rng.integers(3, size=rng.integers(1, 5)).tolist()
            for _ in range(rng.integers(1, 20))
        ]
        split = split_prompts(prompts, 4)
        if split is None:
            continue
        num_split += 1
        width = -(-max(map(len, prompts)) // 4) * 4
        assert rejoined(split) == prompts
        assert split.prefix_length + split.suffix_length == width
        assert max(map(len, split.prefixes)) <= split.prefix_length
        assert all(1 <= len(end) <= split.suffix_length for end in split.suffixes)
        read = len(split.prefixes) * split.prefix_length + len(prompts) * split.suffix_length
        assert read <= 0.75 * width * len(prompts)
    assert num_split > 50
