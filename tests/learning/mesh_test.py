"""Training on meshes, and on a mesh of two processes, does what one device does."""

import shutil

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
    place,
    policy_step,
    supervised_step,
    write_tokenizer,
)


def on_mesh(shape):
    data, fsdp, tensor = shape
    return place(MeshSettings(data=data, fsdp=fsdp, tensor=tensor, first_device=0))


def compute(params, folder):
    """The state after a step, which is saved in folder/from_one, and all that is computed."""
    state, _ = supervised_step(params, init_training(params, NEXT_TOKEN))
    first = leaves(state)
    shutil.rmtree(folder / "from_one", ignore_errors=True)
    Checkpoints(folder / "from_one", digest="abc", max_to_keep=1).save(1, state)
    results = {"next_token": supervised_step(params, state), "policy": policy_step(params), "logits": logits(params)}
    return first, results | {"generated": generated(params, folder / "tokenizer")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    write_tokenizer(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def on_one_device(folder):
    first, results = compute(place(None), folder)
    return first, leaves(results)


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, leaf in found.items():
        np.testing.assert_allclose(leaf, expected[name], atol=1e-5, rtol=1e-5, err_msg=name)


def test_all_is_as_on_one_device_and_left_in_its_place(on_one_device, folder):
    params = on_mesh((1, 2, 4))  # below: (2, 2, 2)
    first, results = compute(params, folder)
    assert_close(first, on_one_device[0])
    assert_close(leaves(results), on_one_device[1])
    next_token, policy = results["next_token"], results["policy"]
    for state in (next_token[0], policy[0].trainable, policy[0].optimizer_state):
        assert_stored_in_parts(state, mesh_of(params))


def test_two_processes_go_on_where_one_was_and_the_other_way_round(on_one_device, folder):
    for code, _, stderr in start_two("tests.learning.mesh_program", folder):
        assert code == 0, stderr
    with np.load(folder / "whole.npz", allow_pickle=False) as archive:
        whole = dict(archive)
    assert_close(whole, on_one_device[1])
    template = init_training(on_mesh((1, 8, 1)), NEXT_TOKEN)
    saved = Checkpoints(folder / "from_two", digest="abc", max_to_keep=1)
    step, restored = saved.restore_latest(template)
    assert step == 2
    for leaf, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(template), strict=True):
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
    expected = {name.removeprefix("next_token/0/"): leaf for name, leaf in whole.items()}
    for name, leaf in leaves(restored).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)
