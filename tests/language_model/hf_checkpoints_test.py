"""Checkpoints that `transformers` reads back with the same logits, and damaged ones refused."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from eagle_jax.language_model.decoder_config import UnsupportedModelError
from eagle_jax.language_model.hf_checkpoints import (
    CheckpointError,
    load_language_model,
    save_language_model,
)
from eagle_jax.language_model.tokenizer import TokenizerError
from eagle_jax.language_model.transformer import forward

TOKENS = np.random.default_rng(0).integers(4, 94, (2, 9))


def our_logits(model):
    return np.asarray(
        forward(model.config, model.params, TOKENS, np.ones_like(TOKENS, bool)).logits
    )


@pytest.fixture
def copy(checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint[0], folder)
    return folder


def read_tensors(folder):
    return dict(safetensors.numpy.load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_reads_what_we_write(checkpoint, tmp_path, dtype):
    import torch
    import transformers

    model = load_language_model(checkpoint[0])
    save_language_model(model, tmp_path / "saved", dtype)
    again = load_language_model(tmp_path / "saved")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "saved", dtype=torch.float32
    )
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(our_logits(again), expected, atol=1e-4)
    if dtype == "float32":
        np.testing.assert_array_equal(our_logits(again), our_logits(model))
    assert again.config == model.config
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    text = "w3 w1 #END_PLOT"
    assert tokenizer(text)["input_ids"] == again.tokenizer.encode(text)
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("[PAD]", "[EOS]")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16])
def test_sharded_half_precision_is_read_as_float32(checkpoint, copy, dtype):
    tensors = {name: value.astype(dtype) for name, value in read_tensors(copy).items()}
    (copy / "model.safetensors").unlink()
    weight_map = {}
    for shard in (0, 1):
        names = sorted(tensors)[shard::2]
        file = f"model-0000{shard + 1}-of-00002.safetensors"
        safetensors.numpy.save_file({name: tensors[name] for name in names}, copy / file)
        weight_map |= dict.fromkeys(names, file)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    model, exact = load_language_model(copy), load_language_model(checkpoint[0])
    for rounded, original in zip(
        jax.tree.leaves(model.params), jax.tree.leaves(exact.params), strict=True
    ):
        assert rounded.dtype == np.float32
        np.testing.assert_array_equal(rounded, np.asarray(original).astype(dtype))
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00002.safetensors: not found"):
        load_language_model(copy)


def test_a_missing_tensor_is_named(copy):
    tensors = read_tensors(copy)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    safetensors.numpy.save_file(tensors, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"copy: tensor model.layers.1.mlp.up_proj.weight"):
        load_language_model(copy)


def test_a_wrong_shape_is_named_with_both_shapes(copy):
    tensors = read_tensors(copy)
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1]
    safetensors.numpy.save_file(tensors, copy / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"model.safetensors: tensor model.norm.weight has shape \(47,\).*48"
    ):
        load_language_model(copy)


def test_a_tensor_without_a_place_is_refused(copy):
    # A bias that is not added would give other logits without a word.
    tensors = read_tensors(copy) | {"model.layers.0.self_attn.q_proj.bias": np.ones(3, np.float32)}
    safetensors.numpy.save_file(tensors, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match="q_proj.bias has no place"):
        load_language_model(copy)


def test_integer_weights_are_refused(copy):
    tensors = read_tensors(copy)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.int8)
    safetensors.numpy.save_file(tensors, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match="tensor model.norm.weight is I8"):
        load_language_model(copy)


def test_a_git_lfs_pointer_is_recognised(copy):
    (copy / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    with pytest.raises(CheckpointError, match="model.safetensors: is a git LFS pointer"):
        load_language_model(copy)


@pytest.mark.parametrize("kept", [0, 4, 200, -10])
def test_a_truncated_file_is_recognised(copy, kept):
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[:kept])
    with pytest.raises(CheckpointError, match="model.safetensors: truncated"):
        load_language_model(copy)


def test_an_unknown_family_is_named_with_its_file(copy):
    config = json.loads((copy / "config.json").read_text()) | {"model_type": "rwkv"}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match="config.json: model_type 'rwkv'"):
        load_language_model(copy)


@pytest.mark.parametrize(
    ("file", "error"), [("config.json", CheckpointError), ("tokenizer.json", TokenizerError)]
)
def test_missing_and_garbled_json_is_named(copy, file, error):
    (copy / file).write_text("{")
    with pytest.raises(error, match=f"{file}: not"):
        load_language_model(copy)
    (copy / file).unlink()
    with pytest.raises(error, match=f"{file}: not found"):
        load_language_model(copy)


def test_an_unknown_dtype_is_refused(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="'int4'"):
        save_language_model(load_language_model(checkpoint[0]), tmp_path, "int4")


def test_a_tied_matrix_may_be_kept_under_either_name(checkpoint, copy):
    tensors = read_tensors(copy)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    safetensors.numpy.save_file(tensors, copy / "model.safetensors")
    if checkpoint[1].config.tie_word_embeddings:
        np.testing.assert_array_equal(
            our_logits(load_language_model(copy)), our_logits(load_language_model(checkpoint[0]))
        )
    else:
        with pytest.raises(CheckpointError, match="model.embed_tokens.weight is missing"):
            load_language_model(copy)
