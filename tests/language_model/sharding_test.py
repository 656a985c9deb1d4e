"""Meshes: every array lies where the table says, and what is computed is that of one device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.language_model.checkpoints.hf_config import decoder_config_from_hf
from eagle_jax.language_model.decoder.config import FAMILIES, LoRA
from eagle_jax.language_model.decoder.transformer import bind, forward, init_params
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.sampling.sampling import sample
from eagle_jax.language_model.sampling.token_drawing import drawing_of
from eagle_jax.language_model.sharding import (
    MeshError,
    MeshSettings,
    constrain,
    constrain_tree,
    make_mesh,
    mesh_of,
    on_mesh_of,
    tree_shardings,
)
from tests.language_model import small_checkpoints

MESHES = [(1, 8, 1), (2, 2, 2), (1, 2, 4)]
SHAPE = small_checkpoints.SHAPE | {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "head_dim": 8,
    "tie_word_embeddings": False,
}
LORA = LoRA(rank=3, alpha=6.0, targets="query|output|up|down")


def settings(data, fsdp, tensor, first_device=0):
    return MeshSettings(data=data, fsdp=fsdp, tensor=tensor, first_device=first_device)


def shard_shapes(array):
    return {shard.data.shape for shard in array.addressable_shards}


@pytest.fixture(scope="module")
def config():
    return dataclasses.replace(decoder_config_from_hf({"model_type": "qwen2", **SHAPE}), lora=LORA)


@pytest.fixture(scope="module")
def params(config):
    """On the host, without a zero: LoRA and biases count."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    return jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    tokens = rng.integers(2, 96, (8, 12), dtype=np.int32)
    return tokens, np.arange(12)[None] >= rng.integers(0, 8, (8, 1))


def compute(config, params, batch):
    """Logits, a sample, and the caches of the prompt."""

    @jax.jit
    def prefill(params, tokens, mask):
        return bind(config, params).read(tokens, mask).caches

    with on_mesh_of(params):
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(5), np.arange(8))
        sampling = SamplingSettings(temperature=1.0, top_k=0, top_p=0.9, max_new_tokens=6)
        sampled = sample(config, params, *batch, keys, drawing_of(sampling, [1, 7, 8]), max_new_tokens=6)
        return forward(config, params, *batch).logits, sampled, prefill(params, *batch)


@pytest.fixture(scope="module")
def on_one_device(config, params, batch):
    return compute(config, jax.device_put(params), batch)


@pytest.mark.parametrize("shape", MESHES)
def test_logits_and_samples_are_those_of_one_device(config, params, batch, on_one_device, shape):
    mesh = make_mesh(settings(*shape))
    placed = jax.device_put(params, tree_shardings(mesh, params))
    assert mesh_of(placed) == mesh
    logits, sampled, caches = compute(config, placed, batch)
    expected_logits, expected, expected_caches = on_one_device
    np.testing.assert_allclose(logits, expected_logits, atol=1e-5)
    np.testing.assert_array_equal(sampled.tokens, expected.tokens)
    np.testing.assert_array_equal(sampled.mask, expected.mask)
    assert expected.mask.sum() > 20  # rows do not stop at once
    np.testing.assert_allclose(sampled.log_probs, expected.log_probs, atol=1e-5)
    data, fsdp, tensor = shape
    rows, groups = 8 // (data * fsdp), 2 // tensor if tensor <= 2 else 2
    assert shard_shapes(logits) == {(rows, 12, 96 // tensor)}
    for cache, expected_cache in zip(caches, expected_caches, strict=True):
        assert shard_shapes(cache.keys) == {(rows, groups, 8, 12)}
        assert shard_shapes(cache.values) == {(rows, groups, 12, 8)}
        np.testing.assert_allclose(cache.keys, expected_cache.keys, atol=1e-5)


def test_every_parameter_is_stored_in_parts(params):
    """By hand, for 2 x 2 x 2 devices: what each kind of leaf becomes."""
    placed = jax.device_put(params, tree_shardings(make_mesh(settings(2, 2, 2)), params))
    attention, feed_forward = (placed["layers"]["1"][k] for k in ("attention", "feed_forward"))
    assert shard_shapes(placed["token_embedding"]) == {(48, 16)}
    assert shard_shapes(placed["unembedding"]) == {(48, 16)}
    assert shard_shapes(attention["query"]["kernel"]) == {(16, 16)}
    assert shard_shapes(attention["query"]["bias"]) == {(16,)}
    assert shard_shapes(attention["query"]["lora_down"]) == {(16, 3)}
    assert shard_shapes(attention["query"]["lora_up"]) == {(3, 16)}
    assert shard_shapes(attention["key"]["kernel"]) == {(16, 8)}
    assert shard_shapes(attention["output"]["kernel"]) == {(16, 16)}
    assert shard_shapes(attention["output"]["lora_down"]) == {(16, 3)}
    assert shard_shapes(attention["output"]["lora_up"]) == {(3, 16)}
    assert shard_shapes(feed_forward["gate"]["kernel"]) == {(16, 32)}
    assert shard_shapes(feed_forward["down"]["kernel"]) == {(32, 16)}
    assert shard_shapes(feed_forward["down"]["lora_down"]) == {(32, 3)}
    assert shard_shapes(placed["final_norm"]["scale"]) == {(32,)}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_table_covers_every_family(name):
    config = decoder_config_from_hf({"model_type": name, **SHAPE, "tie_word_embeddings": FAMILIES[name].is_gemma})
    config = dataclasses.replace(config, lora=dataclasses.replace(LORA, targets="."))
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    mesh = make_mesh(settings(2, 2, 2))
    in_parts = jax.tree.map(
        lambda leaf, sharding: (
            len(sharding.shard_shape(leaf.shape)) < 2 or np.prod(sharding.shard_shape(leaf.shape)) < np.prod(leaf.shape)
        ),
        shapes,
        tree_shardings(mesh, shapes),
    )
    assert all(jax.tree.leaves(in_parts))


def test_a_leaf_without_a_rule_is_named():
    mesh = make_mesh(settings(2, 2, 2))
    leaf = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    with pytest.raises(MeshError, match=r"no rule .* layers/0/attention/mystery/kernel \[8, 8\]"):
        tree_shardings(mesh, {"layers": {"0": {"attention": {"mystery": {"kernel": leaf}}}}})
    with pytest.raises(MeshError, match=r"query/bias \[8, 8\]"):  # a bias has one dimension
        tree_shardings(mesh, {"query": {"bias": leaf}})


def test_what_an_axis_does_not_divide_is_replicated():
    mesh = make_mesh(settings(1, 2, 4))
    shapes = {"query": {"kernel": jax.ShapeDtypeStruct((7, 8), jnp.float32)}}
    assert tree_shardings(mesh, shapes)["query"]["kernel"].shard_shape((7, 8)) == (7, 2)


def test_constrain_is_nothing_without_a_mesh():
    array = jnp.zeros((8, 2))
    tree = {"mystery": array}
    assert constrain(array, "BT") is array and constrain_tree(tree) is tree
    with jax.set_mesh(make_mesh(settings(1, 1, 1))):
        assert constrain(array, "BT") is array and constrain_tree(tree) is tree


def test_meshes_take_their_slice_of_the_devices():
    policy, environment = make_mesh(settings(2, 1, 1)), make_mesh(settings(-1, 1, 2, 2))
    assert dict(environment.shape) == {"data": 3, "fsdp": 1, "tensor": 2}
    slices = [{device.id for device in mesh.devices.flat} for mesh in (policy, environment)]
    assert slices == [{0, 1}, {2, 3, 4, 5, 6, 7}]


@pytest.mark.parametrize("wanted", [(16, 1, 1), (4, 1, 1, 5), (-1, 3, 1), (1, -1, 1, 8), (8, 1, 1, 9)])
def test_a_mesh_that_does_not_fit_is_refused(wanted):
    with pytest.raises(MeshError, match=rf"data={wanted[0]}, .*does not fit the 8 devices"):
        make_mesh(settings(*wanted))


@pytest.mark.parametrize("wanted", [(-1, -1, 1), (0, 1, 1), (1, 1, -2), (1, 1, 1, -1)])
def test_nonsense_is_refused(wanted):
    with pytest.raises(ValueError, match="mesh|must be at least"):
        settings(*wanted)


def test_two_models_sample_side_by_side_on_disjoint_slices(config, params, batch, on_one_device):
    expected = on_one_device[0]
    meshes = [make_mesh(settings(2, 2, 1)), make_mesh(settings(1, 2, 2, 4))]
    placed = [jax.device_put(params, tree_shardings(mesh, params)) for mesh in meshes]
    for one, mesh in zip(placed, meshes, strict=True):
        with on_mesh_of(one):
            logits = forward(config, one, *batch).logits
        assert logits.sharding.device_set == set(mesh.devices.flat)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
