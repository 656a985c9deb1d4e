"""Shards give the same pairs however prompts are divided, by one compiled program."""

import jax
import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.real.selection import pair_selection
from eagle_jax.real.selection.pair_selection import SelectedPairs, select_within
from eagle_jax.real.selection.pair_shards import Shard, select_shards

NUM, RESPONSES = 50, 6


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    is_valid = rng.random((NUM, RESPONSES)) < 0.6
    rewards = rng.normal(size=(NUM, RESPONSES)).astype(np.float32)
    return rng.normal(size=(NUM, RESPONSES, 8)).astype(np.float32), is_valid, rewards


def run(strategy, shards):
    settings = {"metric": "cosine", "key": jax.random.key(3), "rows_per_program": 16}
    return list(select_shards(strategy, shards, **settings))


def divided(arrays, sizes):
    cuts = np.cumsum([0, *sizes])
    return [Shard(*(array[start:end] for array in arrays)) for start, end in zip(cuts, cuts[1:], strict=False)]


def joined(found):
    return SelectedPairs(*(np.concatenate(leaves) for leaves in zip(*found, strict=True)))


@pytest.mark.parametrize("strategy", ["centroid", "random"])
def test_the_division_changes_nothing(arrays, strategy):
    pair_selection._select_within.clear_cache()
    whole = joined(run(strategy, divided(arrays, [NUM])))
    for sizes in ([1, 49], [16, 16, 18], [7] * 7 + [1]):
        found = run(strategy, iter(divided(arrays, sizes)))
        assert [len(pairs.first) for pairs in found] == sizes
        for name, mine, expected in zip(whole._fields, joined(found), whole, strict=True):
            np.testing.assert_array_equal(mine, expected, err_msg=name)
    assert pair_selection._select_within._cache_size() == 1
    alone = select_within(strategy, *arrays, metric="cosine", key=jax.random.key(3))
    np.testing.assert_array_equal(whole.first, alone.first)
    np.testing.assert_array_equal(whole.second, alone.second)
    np.testing.assert_allclose(whole.similarity, alone.similarity, atol=1e-6)


def test_memory_mapped_arrays_of_half_precision_are_computed_as_others(arrays, tmp_path):
    half = arrays[0].astype(np.float16)
    np.save(tmp_path / "embeddings.npy", half)
    found = joined(run("easy", divided([np.load(tmp_path / "embeddings.npy", mmap_mode="r")], [12, 38])))
    expected = joined(run("easy", [Shard(half.astype(np.float32))]))
    np.testing.assert_array_equal(found.first, expected.first)
    np.testing.assert_allclose(found.similarity, expected.similarity, atol=1e-6)


def test_what_cannot_be_used_is_counted_with_its_number(arrays, caplog):
    embeddings = arrays[0].copy()
    embeddings[21, 2], embeddings[21, 3, 0], embeddings[40, 0, 0] = 0.0, np.nan, np.inf
    with caplog.at_level("WARNING", logger="absl"):
        found = run("easy", divided([embeddings], [20, 30]))
    assert "shard 1: 3 responses of 2 prompts" in caplog.text
    assert "the first such prompt is number 21" in caplog.text and "shard 0" not in caplog.text
    assert found[1].num_unusable.sum() == 3


def test_shards_that_do_not_fit_are_named(arrays):
    embeddings, is_valid, rewards = arrays
    for shards, said in (
        ([Shard(embeddings), Shard(embeddings[..., :4])], "shard 1 has K = 6, D = 4"),
        ([Shard(embeddings, is_valid[:3])], "shard 0: is_valid must be"),
        ([Shard(embeddings[:0])], "shard 0: embeddings must be"),
        ([Shard(embeddings, is_valid, rewards), Shard(embeddings, is_valid)], "without implicit rewards"),
    ):
        with pytest.raises(UserError, match=said):
            run("easy", shards)
