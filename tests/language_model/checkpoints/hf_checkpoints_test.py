"""Checkpoints that `transformers` reads back with the same logits, and damaged ones refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from eagle_jax.base.tensor_files import CheckpointError, TensorFiles
from eagle_jax.embeddings.sentences.tokenizer_files import TokenizerError
from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model, save_language_model
from eagle_jax.language_model.sharding import MeshSettings, make_mesh, tree_shardings
from tests.language_model.small_checkpoints import SHAPE, our_logits, their_logits


@pytest.fixture
def copy(checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint[0], folder)
    return folder


def read_tensors(folder):
    return dict(safetensors.numpy.load_file(folder / "model.safetensors"))


def test_transformers_reads_what_we_write_of_every_family(family_checkpoint, tmp_path):
    model = load_language_model(family_checkpoint[0])
    save_language_model(model, tmp_path, "float32")
    np.testing.assert_array_equal(their_logits(tmp_path), their_logits(family_checkpoint[1]))
    stored, original = read_tensors(tmp_path), read_tensors(family_checkpoint[0])
    assert stored.keys() == original.keys()
    for name, tensor in stored.items():
        np.testing.assert_array_equal(tensor, original[name], err_msg=name)
    assert load_language_model(tmp_path).config == model.config


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("written", ["float32", "bfloat16"])
def test_parameters_keep_their_values_in_either_dtype(checkpoint, tmp_path, dtype, written):
    model = load_language_model(checkpoint[0], dtype=dtype)
    save_language_model(model, tmp_path, written)
    again = load_language_model(tmp_path)
    narrow = "bfloat16" in (dtype, written)
    exact = load_language_model(checkpoint[0])
    for read, of_file, original in zip(*(jax.tree.leaves(each.params) for each in (model, again, exact)), strict=True):
        assert read.dtype == dtype
        assert of_file.dtype == np.float32
        expected = original.astype(jnp.bfloat16).astype(np.float32) if narrow else original
        np.testing.assert_array_equal(of_file, expected)
    np.testing.assert_allclose(our_logits(again), their_logits(tmp_path), atol=1e-4)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == written


def test_a_big_model_is_written_in_shards(checkpoint, copy):
    # Into a folder with an earlier, single file.
    model, limit = load_language_model(checkpoint[0]), 40_000
    save_language_model(model, copy, "float32", max_shard_bytes=limit)
    index = json.loads((copy / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in copy.glob("model*.safetensors"))
    count = len(files)
    assert count > 3
    assert files == [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    assert sorted(set(index["weight_map"].values())) == files
    stored = [safetensors.numpy.load_file(copy / file) for file in files]
    sizes = [sum(tensor.nbytes for tensor in tensors.values()) for tensors in stored]
    assert max(sizes) <= limit
    assert index["metadata"]["total_size"] == sum(sizes)
    assert index["weight_map"] == {name: file for file, tensors in zip(files, stored, strict=True) for name in tensors}
    np.testing.assert_allclose(our_logits(model), their_logits(copy), atol=1e-4)
    np.testing.assert_array_equal(our_logits(model), our_logits(load_language_model(copy)))
    # And back into one file: an index left behind would be read first.
    save_language_model(model, copy, "float32")
    assert [path.name for path in copy.glob("model*")] == ["model.safetensors"]


@pytest.fixture
def reads(monkeypatch):
    """(tensor name, shape, bytes) of everything that is read."""
    seen, read = [], TensorFiles.read

    def spy(self, name, index=...):
        part = read(self, name, index)
        seen.append((name, part.shape, part.nbytes))
        return part

    monkeypatch.setattr(TensorFiles, "read", spy)
    return seen


@pytest.mark.parametrize("shape", [(1, 2, 4), (4, 2, 1), (2, 1, 2)])
def test_on_a_mesh_each_part_is_read_for_itself(checkpoint, reads, shape):
    data, fsdp, tensor = shape
    mesh = make_mesh(MeshSettings(data=data, fsdp=fsdp, tensor=tensor, first_device=0))
    whole = load_language_model(checkpoint[0])
    reads.clear()
    model = load_language_model(checkpoint[0], mesh=mesh)
    shardings = tree_shardings(mesh, whole.params)
    for leaf, expected, sharding in zip(
        *(jax.tree.leaves(tree) for tree in (model.params, whole.params, shardings)), strict=True
    ):
        assert leaf.sharding == sharding
        np.testing.assert_array_equal(leaf, expected)
    # Every byte once, however many devices hold it, and no matrix in one piece.
    stored = read_tensors(checkpoint[0])
    assert sum(size for *_, size in reads) == sum(tensor.nbytes for tensor in stored.values())
    for name, part, _ in reads:
        # The kernel [inputs, outputs] lies on (fsdp, tensor) and is stored as [outputs, inputs].
        if name.endswith("q_proj.weight"):
            outputs, inputs = stored[name].shape
            assert part == (outputs // tensor, inputs // fsdp)
        if name.endswith("o_proj.weight"):
            outputs, inputs = stored[name].shape
            assert part == (outputs // fsdp, inputs // tensor)


def test_a_sharded_model_is_saved_as_a_whole_one_is(checkpoint, tmp_path):
    mesh = make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, first_device=0))
    model = load_language_model(checkpoint[0], dtype="bfloat16", mesh=mesh)
    save_language_model(model, tmp_path / "sharded", "bfloat16")
    save_language_model(load_language_model(checkpoint[0]), tmp_path / "whole", "bfloat16")
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "sharded" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_all_ends_are_written_for_other_programs(checkpoint, copy):
    transformers = pytest.importorskip("transformers")
    (copy / "generation_config.json").write_text('{"eos_token_id": [2, 94]}')
    save_language_model(load_language_model(copy), copy / "saved", "float32")
    theirs = transformers.GenerationConfig.from_pretrained(copy / "saved")
    assert (theirs.eos_token_id, theirs.pad_token_id) == ([2, 94], 0)
    assert load_language_model(copy / "saved").tokenizer.eos_ids == (2, 94)
    save_language_model(load_language_model(checkpoint[0]), copy / "one_end", "float32")
    assert not (copy / "one_end" / "generation_config.json").exists()


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
    for rounded, original in zip(jax.tree.leaves(model.params), jax.tree.leaves(exact.params), strict=True):
        assert rounded.dtype == np.float32
        np.testing.assert_array_equal(rounded, np.asarray(original).astype(dtype))
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00002.safetensors: not found"):
        load_language_model(copy)


UP, NORM = "model.layers.1.mlp.up_proj.weight", "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(UP), f"copy: tensor {UP}"),
        (lambda t: t.update({NORM: t[NORM][:-1]}), rf"model.safetensors: tensor {NORM} has shape \(47,\).*48"),
        # A bias that is not added would give other logits without a word.
        (
            lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": np.ones(3, np.float32)}),
            "q_proj.bias has no place",
        ),
        (lambda t: t.update({NORM: t[NORM].astype(np.int8)}), f"tensor {NORM} is I8"),
    ],
)
def test_wrong_tensors_are_named(copy, change, message):
    tensors = read_tensors(copy)
    change(tensors)
    safetensors.numpy.save_file(tensors, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_language_model(copy)


@pytest.mark.parametrize(("file", "error"), [("config.json", CheckpointError), ("tokenizer.json", TokenizerError)])
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
    with pytest.raises(ValueError, match="'int4'"):
        load_language_model(checkpoint[0], dtype="int4")


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


def test_buffers_that_old_checkpoints_carry_are_passed_over(checkpoint, copy):
    tensors = read_tensors(copy) | {
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(6, np.float32),
        "model.layers.0.attention.masked_bias": np.ones((), np.float32),
    }
    safetensors.numpy.save_file(tensors, copy / "model.safetensors")
    np.testing.assert_array_equal(our_logits(load_language_model(copy)), our_logits(load_language_model(checkpoint[0])))


def test_tokens_without_an_embedding_are_refused(checkpoint, copy):
    from tokenizers import AddedToken, Tokenizer

    backend = Tokenizer.from_file(str(copy / "tokenizer.json"))
    names = [f"<image_{number}>" for number in range(7)]
    # 95 tokens and 5 unused rows; the last two have no row but are never written in a text.
    backend.add_special_tokens([AddedToken(name, special=True) for name in names])
    backend.save(str(copy / "tokenizer.json"))
    assert load_language_model(copy).tokenizer.vocab_size == 102
    backend.add_tokens(["plain"])
    backend.save(str(copy / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="tokenizer has 103 tokens, .* only 100"):
        load_language_model(copy)


def make_gemma3_that_sees(folder, tokenizer_writer):
    """A Gemma 3 with a vision tower, as its checkpoints from 4B on are published."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    text = SHAPE | {"head_dim": 16, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config=vision | {"image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        initializer_range=0.15,
    )
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    tokenizer_writer(folder, with_bos=True)
    return their_logits(model)


def test_the_text_model_is_read_out_of_one_that_sees(tmp_path, tokenizer_writer, caplog):
    logits = make_gemma3_that_sees(tmp_path, tokenizer_writer)
    tensors = read_tensors(tmp_path)
    others = sum("language_model." not in name for name in tensors)
    assert 0 < others < len(tensors)
    np.testing.assert_allclose(our_logits(load_language_model(tmp_path)), logits, atol=1e-4)
    # The other order of the two names, in which newer models are written.
    renamed = {
        name.replace("language_model.model.", "model.language_model."): tensor for name, tensor in tensors.items()
    }
    safetensors.numpy.save_file(renamed, tmp_path / "model.safetensors")
    model = load_language_model(tmp_path)
    np.testing.assert_allclose(our_logits(model), logits, atol=1e-4)
    # Written, it is a text model.
    save_language_model(model, tmp_path / "text", "float32")
    np.testing.assert_allclose(their_logits(tmp_path / "text"), logits, atol=1e-4)
    # What belongs to the text model but has no place in it is an error here too.
    renamed["model.language_model.layers.0.extra.weight"] = np.ones(3, np.float32)
    safetensors.numpy.save_file(renamed, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="layers.0.extra.weight has no place"):
        load_language_model(tmp_path)
