"""Shards give the same pairs however prompts are divided, by one compiled program."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

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


def run(strategy, shards, **changes):
    settings = {"metric": "cosine", "key": jax.random.key(3), "rows_per_program": 16, "mesh": None}
    return list(select_shards(strategy, shards, **settings | changes))


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


def test_on_a_mesh(arrays):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    found = joined(run("centroid", divided(arrays, [30, 20]), mesh=mesh))
    alone = joined(run("centroid", divided(arrays, [30, 20])))
    np.testing.assert_array_equal(found.first, alone.first)
    np.testing.assert_array_equal(found.second, alone.second)
    with pytest.raises(UserError, match="multiple of its 8 devices"):
        run("easy", divided(arrays, [NUM]), mesh=mesh, rows_per_program=12)


def test_memory_mapped_arrays_are_as_good_as_arrays(arrays, tmp_path):
    mapped = []
    for name, array in zip(("embeddings", "is_valid"), arrays, strict=False):
        np.save(tmp_path / name, array)
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    found = joined(run("easy", divided(mapped, [12, 38])))
    for mine, theirs in zip(found, joined(run("easy", divided(arrays[:2], [NUM]))), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_half_precision_is_computed_in_float32(arrays):
    half = arrays[0].astype(np.float16)
    found = joined(run("easy", [Shard(half)]))
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
    with pytest.raises(UserError, match="shard 1 has K = 6, D = 4"):
        run("easy", [Shard(embeddings), Shard(embeddings[..., :4])])
    with pytest.raises(UserError, match="shard 0: is_valid must be"):
        run("easy", [Shard(embeddings, is_valid[:3])])
    with pytest.raises(UserError, match="shard 0: embeddings must be"):
        run("easy", [Shard(embeddings[:0])])
    with pytest.raises(UserError, match="without implicit rewards"):
        run("easy", [Shard(embeddings, is_valid, rewards), Shard(embeddings, is_valid)])
