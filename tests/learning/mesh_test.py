"""Training on meshes, and on a mesh of two processes, does what one device does."""

import jax
import numpy as np
import pytest

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.language_model.sharding import MeshSettings, mesh_of
from eagle_jax.learning.supervised import init_training
from tests.base.processes_test import start_two
from tests.learning.mesh_program import (
    NEXT_TOKEN,
    assert_stored_in_parts,
    generated,
    leaves,
    logits,
    next_token_step,
    place,
    policy_step,
    write_tokenizer,
)


def on_mesh(shape):
    data, fsdp, tensor = shape
    return place(MeshSettings(data=data, fsdp=fsdp, tensor=tensor, first_device=0))


def train(params):
    """Two next-token steps and a policy update: (states, metrics) of each."""
    state, _ = next_token_step(params, init_training(params, NEXT_TOKEN))
    first = leaves(state)
    return first, next_token_step(params, state), policy_step(params)


def compute(params, tokenizer):
    """The state after a step, and all that is computed."""
    first, next_token, policy = train(params)
    results = {"logits": logits(params), "next_token": next_token, "policy": policy}
    return first, results | {"generated": generated(params, tokenizer)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared") / "tokenizer"
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def on_one_device(tokenizer):
    first, results = compute(place(None), tokenizer)
    return first, leaves(results)


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, leaf in found.items():
        np.testing.assert_allclose(leaf, expected[name], atol=1e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (1, 2, 4)])
def test_all_is_as_on_one_device_and_left_in_its_place(on_one_device, tokenizer, shape):
    params = on_mesh(shape)
    first, results = compute(params, tokenizer)
    assert_close(first, on_one_device[0])
    assert_close(leaves(results), on_one_device[1])
    next_token, policy = results["next_token"], results["policy"]
    for state in (next_token[0], policy[0].trainable, policy[0].optimizer_state):
        assert_stored_in_parts(state, mesh_of(params))


def test_two_processes_go_on_where_one_was_and_the_other_way_round(on_one_device, tokenizer):
    folder = tokenizer.parent
    params = on_mesh((1, 8, 1))
    state, _ = next_token_step(params, init_training(params, NEXT_TOKEN))
    Checkpoints(folder / "from_one", digest="abc", max_to_keep=1).save(1, state)
    for code, _, stderr in start_two("tests.learning.mesh_program", folder):
        assert code == 0, stderr
    with np.load(folder / "whole.npz", allow_pickle=False) as archive:
        whole = dict(archive)
    assert_close(whole, on_one_device[1])
    params = on_mesh((1, 2, 4))
    template = init_training(params, NEXT_TOKEN)
    saved = Checkpoints(folder / "from_two", digest="abc", max_to_keep=1)
    step, restored = saved.restore_latest(template)
    assert step == 2
    for leaf, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(template), strict=True):
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
    expected = {name.removeprefix("next_token/0/"): leaf for name, leaf in whole.items()}
    for name, leaf in leaves(restored).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)
