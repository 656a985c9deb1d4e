"""GPT-2 and GPT-NeoX keep query, key and value as one tensor; we keep three."""

import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy

from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model, save_language_model
from eagle_jax.language_model.checkpoints.peft_adapters import save_peft_adapter
from eagle_jax.language_model.decoder.config import LoRA, UnsupportedModelError
from eagle_jax.language_model.decoder.lora import add_lora
from eagle_jax.language_model.sharding import MeshSettings, make_mesh
from tests.language_model.small_checkpoints import make_checkpoint, our_logits


@pytest.fixture(scope="module", params=["gpt2", "gpt_neox"])
def fused(request, tmp_path_factory):
    return make_checkpoint(request.param, tmp_path_factory.mktemp(request.param))[0]


def test_gpt2_as_it_was_published_has_shorter_names_and_buffers(tmp_path):
    make_checkpoint("gpt2", tmp_path)
    expected = our_logits(load_language_model(tmp_path))
    file = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    bare["h.0.attn.bias"] = np.tril(np.ones((1, 1, 96, 96), np.float32))
    safetensors.numpy.save_file(bare, file)
    np.testing.assert_array_equal(our_logits(load_language_model(tmp_path)), expected)


def test_a_merged_update_of_one_part_leaves_the_others_and_is_no_adapter(fused, tmp_path):
    model = load_language_model(fused)
    lora = LoRA(rank=2, alpha=4.0, targets="attention/key$")
    config, params = add_lora(model.config, model.params, lora, jax.random.key(0))
    up = jax.random.normal(jax.random.key(1), (2, 48))
    params["layers"]["1"]["attention"]["key"]["lora_up"] = up
    updated = dataclasses.replace(model, config=config, params=params)
    save_language_model(updated, tmp_path, "float32", max_shard_bytes=5_000)
    again = load_language_model(tmp_path)
    for part in ("query", "value"):
        before, after = (of.params["layers"]["1"]["attention"][part]["kernel"] for of in (model, again))
        np.testing.assert_array_equal(before, after)
    assert np.abs(our_logits(again) - our_logits(model)).max() > 0.05
    np.testing.assert_allclose(our_logits(again), our_logits(updated), atol=1e-5)
    with pytest.raises(UnsupportedModelError, match="save the merged model"):
        save_peft_adapter(updated, tmp_path, "base")


def test_parts_of_a_tensor_are_read_onto_a_mesh(fused):
    mesh = make_mesh(MeshSettings(data=1, fsdp=2, tensor=4, first_device=0))
    whole, split = load_language_model(fused), load_language_model(fused, mesh=mesh)
    for ours, theirs in zip(jax.tree.leaves(whole.params), jax.tree.leaves(split.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    kernel = split.params["layers"]["0"]["attention"]["key"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(24, 12)}
