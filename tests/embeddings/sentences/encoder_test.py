"""Sentence encoders against sentence-transformers, on real weights and on random ones."""

import dataclasses
import json
import logging as python_logging
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from eagle_jax.base.errors import UserError
from eagle_jax.base.tensor_files import CheckpointError
from eagle_jax.embeddings.sentences import encoder as sentence_encoder
from eagle_jax.embeddings.sentences.config_file import UnsupportedEncoderError
from eagle_jax.embeddings.sentences.encoder import is_sentence_encoder, load_sentence_encoder

# kind of transformer -> (pooling, what follows it, prompts)
FOLDERS = {
    "bert_cls": ("bert", "cls", ["Normalize"], {}),
    "bert_max": ("bert", "max", [], {}),
    "bert_mean": ("bert", "mean", ["Dense", "Normalize"], {}),
    "bert_two": ("bert_relu", ["mean_sqrt_len_tokens", "weightedmean"], [], {}),
    "roberta": ("roberta", "lasttoken", [], {"query": "the old ", "passage": "to: "}),
    "mpnet": ("mpnet", "mean", ["Normalize"], {}),
    "t5_v1_0": ("t5_v1_0", "mean", ["Dense", "Normalize"], {}),
    "t5_v1_1": ("t5_v1_1", "mean", ["Dense"], {"query": "storm. "}),
}


@pytest.fixture(scope="module")
def folders(encoder_folder, tmp_path_factory):
    """Name -> a folder that sentence-transformers has saved, and its own encoder."""
    library = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    base = pytest.importorskip("sentence_transformers.base.modules")
    import torch

    made = {}
    for name, (kind, pooling, following, prompts) in FOLDERS.items():
        torch.manual_seed(1)
        transformer = base.Transformer(str(encoder_folder(kind)), max_seq_length=40, do_lower_case=name == "roberta")
        pooled = modules.Pooling(24, pooling, include_prompt=name != "t5_v1_1")
        heads = {"Dense": base.Dense(24, 7), "Normalize": base.Normalize()}
        theirs = library.SentenceTransformer(
            modules=[transformer, pooled, *(heads[head] for head in following)],
            device="cpu",
            prompts=prompts,
            truncate_dim=9 if name == "mpnet" else None,
        )
        folder = tmp_path_factory.mktemp(name) / name
        theirs.save(str(folder), create_model_card=False)
        made[name] = (folder, theirs)
    return made


@pytest.mark.parametrize("name", FOLDERS)
def test_embeddings_are_those_of_sentence_transformers(name, folders, texts):
    folder, theirs = folders[name]
    for prompt_name in (None, *FOLDERS[name][3]):
        encoder = load_sentence_encoder(folder, batch_size=4, prompt_name=prompt_name)
        expected = theirs.encode(texts, prompt_name=prompt_name, show_progress_bar=False)
        embeddings = encoder(texts)
        assert embeddings.dtype == np.float32 and embeddings.shape == (len(texts), encoder.dim)
        assert np.abs(expected).mean() > 0.05
        np.testing.assert_allclose(embeddings, expected, atol=1e-5)


def test_an_older_folder_gives_the_same(folders, texts, tmp_path):
    """The transformer in a folder of its own, flags for pooling, settings under another name."""
    folder, _ = folders["roberta"]
    old = tmp_path / "old"
    shutil.copytree(folder, old / "0_Transformer")
    (old / "0_Transformer" / "modules.json").unlink()
    (old / "0_Transformer" / "1_Pooling").rename(old / "1_Pooling")
    settings = {"max_seq_length": 40, "do_lower_case": True}
    (old / "0_Transformer" / "sentence_bert_config.json").unlink()
    (old / "0_Transformer" / "sentence_xlm-roberta_config.json").write_text(json.dumps(settings))
    flags = {"word_embedding_dimension": 24, "pooling_mode_lasttoken": True}
    (old / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    modules[0]["type"] = "sentence_transformers.models.Transformer"
    (old / "modules.json").write_text(json.dumps(modules))
    expected = load_sentence_encoder(folder, batch_size=4)(texts)
    np.testing.assert_array_equal(load_sentence_encoder(old, batch_size=4)(texts), expected)


def test_a_plain_folder_is_read_as_sentence_transformers_reads_it(encoder_folder, texts):
    library = pytest.importorskip("sentence_transformers")
    folder = encoder_folder("roberta")
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(texts)
    encoder = load_sentence_encoder(folder, batch_size=16)
    np.testing.assert_allclose(encoder(texts), expected, atol=1e-5)


def test_real_weights(mini_lm, texts):
    library = pytest.importorskip("sentence_transformers")
    texts = [*texts, "word " * 400, "Ⅷ ﬁn İstanbul é é \u200b", "[MASK] [SEP] [PAD] ?"]
    encoder = load_sentence_encoder(mini_lm, batch_size=8)
    expected = library.SentenceTransformer(str(mini_lm), device="cpu").encode(texts)
    assert encoder.dim == 384 and encoder.tokenizer.max_tokens == 256
    np.testing.assert_allclose(encoder(texts), expected, atol=1e-5)
    near, far = encoder(["A cat sits.", "A kitten is sitting.", "Stocks fell."])[1:] @ encoder(["A cat sits."]).T
    assert near > 0.6 > 0.2 > far


def test_order_and_company_do_not_matter(folders, texts):
    encoder = load_sentence_encoder(folders["bert_mean"][0], batch_size=4)
    together = encoder(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = encoder([texts[row] for row in order])
    np.testing.assert_allclose(shuffled, together[order], atol=2e-6)
    alone = np.concatenate([encoder([text]) for text in texts])
    np.testing.assert_allclose(alone, together, atol=2e-6)
    assert encoder([]).shape == (0, 7)


def test_few_shapes_are_compiled(folders, texts):
    folder, _ = folders["bert_cls"]
    encoder = load_sentence_encoder(folder, batch_size=4)
    program = sentence_encoder._program(None)
    many = [" ".join(["fog"] * (index % 36)) for index in range(100)]
    before = program._cache_size()
    embeddings = encoder(many)
    assert program._cache_size() - before <= 5  # 8, 16, 24, 32 and 40 tokens, 4 rows each
    again = load_sentence_encoder(folder, batch_size=4)
    np.testing.assert_array_equal(again(many), embeddings)
    assert program._cache_size() - before <= 5


def test_a_mesh_gives_the_same(folders, texts):
    folder, _ = folders["t5_v1_0"]
    alone = load_sentence_encoder(folder, batch_size=4)(texts)
    auto = (jax.sharding.AxisType.Auto,)
    for shape, axes in (((2, 2, 2), ("data", "fsdp", "tensor")), ((8,), ("data",))):
        mesh = jax.make_mesh(shape, axes, axis_types=auto * len(axes))
        encoder = load_sentence_encoder(folder, batch_size=4, mesh=mesh)
        np.testing.assert_allclose(encoder(texts), alone, atol=2e-6)
    assert len(jax.tree.leaves(encoder.params)[0].sharding.device_set) == 8
    # Every device has whole texts, so that only the results travel.
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    tokens = jax.device_put(np.zeros((8, 16), np.int32), split)
    lengths = jax.device_put(np.ones(8, np.int32), split)
    program = sentence_encoder._program(mesh)
    text = program.lower(encoder.config, encoder.params, tokens, lengths).compile().as_text()
    assert "all-gather" in text and "all-reduce" not in text and "[1,16,24]" in text


def test_bfloat16_is_near(folders, texts):
    folder, _ = folders["mpnet"]
    exact = load_sentence_encoder(folder, batch_size=4)(texts)
    rough = load_sentence_encoder(folder, batch_size=4, dtype="bfloat16")(texts)
    cosine = np.sum(exact * rough, axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rough, axis=1)
    assert np.all(cosine > 0.998) and np.any(exact != rough) and rough.dtype == np.float32
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, got 'half'"):
        load_sentence_encoder(folder, batch_size=4, dtype="half")


def test_texts_that_are_cut_are_counted(folders, texts, caplog):
    folder, theirs = folders["bert_max"]
    num_long = sum(len(ids) > 40 for ids in theirs.tokenizer(texts)["input_ids"])
    assert 0 < num_long < len(texts)
    encoder = load_sentence_encoder(folder, batch_size=4)
    with caplog.at_level(python_logging.WARNING, logger="absl"):
        encoder(texts)
    assert [record.getMessage() for record in caplog.records if record.name == "absl"] == [
        f"{num_long} of 7 texts have more than the 40 tokens of bert_max and are cut"
    ]


def test_the_name_tells_weights_prompts_and_settings_apart(folders):
    folder, _ = folders["roberta"]
    encoder = load_sentence_encoder(folder, batch_size=4)
    assert encoder.name.startswith("roberta@")
    assert load_sentence_encoder(folder, batch_size=8).name == encoder.name
    changed = dataclasses.replace(encoder, params=jax.tree.map(lambda leaf: leaf * 1.001, encoder.params))
    query = load_sentence_encoder(folder, batch_size=4, prompt_name="query")
    assert len({encoder.name, changed.name, query.name}) == 3


def test_folders_are_recognised(folders, encoder_folder, tmp_path):
    assert is_sentence_encoder(folders["bert_cls"][0])
    assert is_sentence_encoder(encoder_folder("mpnet"))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert not is_sentence_encoder(tmp_path)
    assert not is_sentence_encoder(tmp_path / "nowhere")
    with pytest.raises(UnsupportedEncoderError, match=r"config\.json: model_type = 'llama' is not"):
        load_sentence_encoder(tmp_path, batch_size=4)


@pytest.fixture
def copy(folders, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(folders["bert_mean"][0], folder)
    return folder


def _change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


def test_names_with_a_prefix_and_heads_that_are_not_needed(copy, folders, texts):
    def rename(tensors):
        for name in list(tensors):
            tensors["bert." + name] = tensors.pop(name)
        tensors["cls.predictions.bias"] = np.zeros(3, np.float32)
        tensors["bert.embeddings.position_ids"] = np.zeros((1, 48), np.int64)

    expected = load_sentence_encoder(folders["bert_mean"][0], batch_size=4)(texts)
    _change_tensors(copy, rename)
    np.testing.assert_array_equal(load_sentence_encoder(copy, batch_size=4)(texts), expected)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("encoder.layer.1.output.dense.bias", None, "is missing"),
        ("encoder.layer.2.x", np.zeros(1, np.float32), "has no place"),
        ("embeddings.LayerNorm.bias", np.zeros(25, np.float32), r"has shape \(25,\), config\.json says \(24,\)"),
    ],
)
def test_wrong_tensors_are_named(name, tensor, message, copy):
    def change(tensors):
        tensors[name] = tensor
        if tensor is None:
            del tensors[name]

    _change_tensors(copy, change)
    with pytest.raises(CheckpointError, match=f"tensor {name} {message}"):
        load_sentence_encoder(copy, batch_size=4)


def test_an_unknown_prompt_and_a_tokenizer_that_is_missing_or_too_large_are_named(copy):
    with pytest.raises(UserError, match=r"json: has no prompt named 'passages', only 'document'"):
        load_sentence_encoder(copy, batch_size=4, prompt_name="passages")
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 60}))
    with pytest.raises(CheckpointError, match=r"the model's vocab_size is only 60"):
        load_sentence_encoder(copy, batch_size=4)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not found; AutoTokenizer"):
        load_sentence_encoder(copy, batch_size=4)
