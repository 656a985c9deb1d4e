"""What is trained: patterns cover every family, the parts join to the whole, slips are named."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from eagle_jax.language_model.decoder.config import LoRA
from eagle_jax.language_model.decoder.transformer import init_params
from eagle_jax.learning.trainable import TrainableError, join, split
from tests.language_model.small_checkpoints import CHECKPOINTS, config_of

EVERYWHERE = LoRA(rank=2, alpha=4.0, targets="attention|feed_forward")


def shapes_of(name, lora=None):
    config = dataclasses.replace(config_of(name), lora=lora)
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_low_rank_updates_of_every_family_are_trained_and_nothing_else(name):
    params = shapes_of(name, EVERYWHERE)
    trainable, frozen = split(params, "lora")
    trained = flatten_dict(trainable, sep="/")
    assert {path.rpartition("/")[2] for path in trained} == {"lora_down", "lora_up"}
    kernels = [path for path in flatten_dict(shapes_of(name), sep="/") if path.endswith("kernel")]
    assert len(trained) == 2 * len(kernels) >= 2 * 2 * 6  # leaves, layers, kernels of one
    assert jax.tree.structure(frozen) == jax.tree.structure(shapes_of(name))
    whole = join(trainable, frozen)
    assert jax.tree.structure(whole) == jax.tree.structure(params)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (whole, params)), strict=True))


@pytest.mark.parametrize("name", ["llama_biases", "gemma3"])
def test_all_is_trained_or_only_the_adapter(name):
    decoder = shapes_of(name)
    assert split(decoder, "full") == (decoder, {})
    assert join(decoder, {}) == decoder
    adapter = {"layers": {"0": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}}
    trainable, frozen = split({"adapter": adapter, "decoder": decoder}, "adapter")
    assert trainable == {"adapter": adapter} and frozen == {"decoder": decoder}


@pytest.mark.parametrize(
    ("params", "mode", "message"),
    [
        ({"layers": {"0": {"mystery": 0}}}, "lora", "'lora': no pattern .* layers/0/mystery is"),
        ({"adapter": {"kernel": 0}, "rank": 0}, "adapter", "'adapter': no pattern .* rank is"),
        ({"lora_up": 0, "adapter": {"a": 0}}, "adapter", "no pattern says whether lora_up is"),
        ({"layers": {"kernel": 0}}, "lora", r"'lora' leaves nothing to train: .*lora_\(down"),
        ({"decoder": {"kernel": 0}}, "adapter", "nothing to train: .* adapter/"),
        ({}, "full", "nothing to train"),
    ],
)
def test_a_parameter_without_a_pattern_and_nothing_to_train_are_refused(params, mode, message):
    with pytest.raises(TrainableError, match=message):
        split(jax.tree.map(lambda _: jnp.zeros(2), params), mode)


def test_bfloat16_may_be_frozen_but_not_trained():
    low_rank, base = split(shapes_of("qwen3", EVERYWHERE), "lora")
    rounded = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), base)
    split(join(low_rank, rounded), "lora")
    with pytest.raises(TrainableError, match="trains .*, which is bfloat16; only float32 is"):
        split(join(low_rank, rounded), "full")
