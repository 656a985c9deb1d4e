"""Training low-rank updates of a frozen model: memory, checkpoints, bfloat16, scanned layers."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.eagle.agent.policy_gradient import Experience, update_agent
from eagle_jax.eagle.agent.state import init_agent
from eagle_jax.language_model.decoder.config import LoRA
from eagle_jax.language_model.decoder.lora import LORA_LEAVES, add_lora
from eagle_jax.language_model.decoder.transformer import init_params
from eagle_jax.learning.loop import Records
from eagle_jax.learning.policy_batch import PolicyBatch
from eagle_jax.learning.supervised import Batch, train_next_token
from eagle_jax.learning.trainable import join, split
from tests.language_model.small_checkpoints import config_of
from tests.learning.next_token import next_token_settings
from tests.toy_world import eagle_settings

LOW_RANK = LoRA(rank=2, alpha=8.0, targets="attention/(query|value)|feed_forward/down")
SETTINGS = next_token_settings(num_steps=8, learning_rate=0.03)


def make_decoder(name, dtype=jnp.float32):
    """A decoder with low-rank updates, both halves of which are random."""
    config = config_of(name)
    params = init_params(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    config, params = add_lora(config, params, LOW_RANK, jax.random.key(1))
    rng = np.random.default_rng(1)

    def leaf(path, old):
        is_up = path[-1].key == "lora_up"
        return jnp.asarray(rng.normal(0, 0.1, old.shape), jnp.float32) if is_up else old

    return config, jax.tree_util.tree_map_with_path(leaf, params)


def draw_batches(step):
    rng = np.random.default_rng(step)
    tokens = rng.integers(4, 8, (4, 10), dtype=np.int32)  # four words of a hundred: to be learnt
    mask = np.arange(10)[None] < rng.integers(5, 11, (4, 1))
    return (Batch(tokens, mask, mask.astype(np.float32)),)


def make_experience():
    rng = np.random.default_rng(3)
    tokens = rng.integers(4, 94, (6, 12), dtype=np.int32)
    mask = np.arange(12)[None] >= rng.integers(0, 6, (6, 1))
    batch = PolicyBatch(tokens, mask, np.ones((6, 4), bool))
    features = rng.normal(size=(3, 2, 5)).astype(np.float32)
    return Experience(batch, features, np.array([1.0, 2.0, 6.0], np.float32))


def num_bytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def leaves_at(tree, kept):
    """Leaves of a tree of parameters by path; `kept` chooses by the last key."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in flat if kept(path[-1].key)}


def test_a_frozen_bfloat16_model_learns_by_float32_updates(tmp_path):
    config, params = make_decoder("qwen3", jnp.bfloat16)

    records = Records(Checkpoints(tmp_path / "ckpt", digest="d", max_to_keep=1), tmp_path, "test")
    trained = train_next_token(config, params, "lora", draw_batches, SETTINGS, records)
    rows = records.history()
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    frozen = leaves_at(params, lambda name: name not in LORA_LEAVES)
    for path, leaf in leaves_at(trained, lambda name: name not in LORA_LEAVES).items():
        assert leaf is frozen[path] and leaf.dtype == jnp.bfloat16
    low_rank = leaves_at(params, lambda name: name in LORA_LEAVES)
    for path, leaf in leaves_at(trained, lambda name: name in LORA_LEAVES).items():
        assert leaf.dtype == jnp.float32
        assert jnp.abs(leaf - low_rank[path]).max() > 0.01
    record = json.loads((tmp_path / "ckpt/step_00000008/CHECKPOINT.json").read_text())
    leaves = {name: kind for name, kind in record["leaves"].items() if not kind.endswith("[]")}
    assert len(leaves) == 3 * len(low_rank)  # the updates and Adam's two moments of them
    assert all(kind.startswith("float32[") for kind in leaves.values())


def test_policy_and_reference_share_one_frozen_base():
    config, params = make_decoder("llama")
    reference, frozen = split(params, "lora")
    settings = eagle_settings(horizon=2, value_hidden=(4,), minibatch_size=6)
    experience = make_experience()
    state = init_agent(reference, 5, settings, jax.random.key(0))
    start = jax.device_get(reference)
    base = num_bytes(frozen)
    rest = num_bytes((reference, state, experience))
    assert rest < 0.2 * base

    compiled = update_agent.lower(config, settings, frozen, reference, state, experience).compile()
    memory = compiled.memory_analysis()
    assert base < memory.argument_size_in_bytes < base + 1.1 * rest
    assert memory.output_size_in_bytes < 1.1 * rest

    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(frozen)]
    new, _ = update_agent(config, settings, frozen, reference, state, experience)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.trainable))  # donated
    for own in (new.trainable, reference):
        tree = split(join(own, frozen), "lora")[1]
        assert [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)] == buffers
    chex.assert_trees_all_equal(jax.device_get(reference), start)
    assert optax.tree.norm(optax.tree.sub(new.trainable, reference)) > 0.01


def test_policy_updates_are_the_same_computed_again_and_scanned():
    config, params = make_decoder("gemma3")
    trainable, frozen = split(params, "lora")
    reference = jax.tree.map(lambda leaf: 0.5 * leaf, trainable)
    settings = eagle_settings(horizon=2, value_hidden=(4,), minibatch_size=6, max_gradient_norm=1e6)

    def step(config):
        state = init_agent(trainable, 5, settings, jax.random.key(0))
        state, metrics = update_agent(config, settings, frozen, reference, state, make_experience())
        return optax.tree.get(state.optimizer_state, "mu"), metrics

    ours, theirs = step(dataclasses.replace(config, remat=True, scan_layers=True)), step(config)
    assert optax.tree.norm(theirs[0]) > 0.01
    chex.assert_trees_all_close(ours, theirs, atol=1e-5, rtol=1e-5)
