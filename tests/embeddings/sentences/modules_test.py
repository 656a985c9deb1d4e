"""Pooling, dense layers and normalisation against sentence-transformers; folders that are wrong."""

import json

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.embeddings.sentences.config_file import UnsupportedEncoderError
from eagle_jax.embeddings.sentences.modules import Normalize, Pooling, apply_head, pool, read_modules

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
LENGTHS = np.array([7, 1, 4, 5], np.int32)


def _hidden():
    return np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)


@pytest.mark.parametrize("num_skipped", [0, 3])
def test_pooling_is_that_of_sentence_transformers(num_skipped):
    torch = pytest.importorskip("torch")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    theirs = modules.Pooling(3, MODES, include_prompt=False)
    features = {
        "token_embeddings": torch.tensor(_hidden()),
        "attention_mask": torch.tensor(np.arange(7)[None] < LENGTHS[:, None]).long(),
        "prompt_length": num_skipped,
    }
    expected = theirs(features)["sentence_embedding"].numpy()
    assert expected.shape == (4, 18)
    pooled = np.asarray(pool(MODES, _hidden(), LENGTHS, num_skipped))
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


def test_pooling_by_hand():
    hidden = np.array([[[1.0, 2.0], [3.0, 0.0], [5.0, 4.0], [9.0, 9.0]]])  # of length 3
    # (1 * 1 + 2 * 3 + 3 * 5) / 6 = 22 / 6; (1 * 2 + 2 * 0 + 3 * 4) / 6 = 14 / 6
    expected = {
        "cls": [1, 2], "max": [5, 4], "mean": [3, 2],
        "mean_sqrt_len_tokens": [9 / 3**0.5, 6 / 3**0.5], "weightedmean": [22 / 6, 14 / 6],
        "lasttoken": [5, 4],
    }  # fmt: skip
    for mode, values in expected.items():
        pooled = pool((mode,), hidden, np.array([3]), 0)
        np.testing.assert_allclose(pooled[0], values, rtol=1e-6, err_msg=mode)


def test_unit_vectors_and_zero():
    embeddings = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    normed = apply_head(Normalize(), {}, embeddings)
    np.testing.assert_allclose(normed, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("activation", ["Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid"])
def test_dense_layers_are_those_of_sentence_transformers(activation, tmp_path):
    torch = pytest.importorskip("torch")
    modules = pytest.importorskip("sentence_transformers.base.modules")
    torch.manual_seed(0)
    embeddings = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    for index, (outputs, options) in enumerate(
        [(6, {"bias": False}), (4, {}), (6, {"use_residual": True}), (4, {"use_residual": True})]
    ):
        folder = tmp_path / str(index)
        theirs = modules.Dense(6, outputs, activation_function=getattr(torch.nn, activation)(), **options)
        (folder / "2_Dense").mkdir(parents=True)
        theirs.save(str(folder / "2_Dense"))
        _write_modules(folder, ["Transformer", "Pooling", "Dense"], ["", "", "2_Dense"])
        (folder / "config.json").write_text("{}")
        read = read_modules(folder)
        expected = theirs({"sentence_embedding": torch.tensor(embeddings)})["sentence_embedding"]
        np.testing.assert_allclose(
            apply_head(read.heads[0], read.head_params[0], embeddings), expected.detach().numpy(), atol=1e-6
        )


def _write_modules(folder, kinds, paths, library="sentence_transformers.models."):
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": library + kind}
        for index, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))


def test_a_folder_without_modules_is_mean_pooled(tmp_path):
    modules = read_modules(tmp_path)
    assert modules.transformer == tmp_path and modules.heads == ()
    assert modules.pooling == Pooling(("mean",), includes_prompt=True)


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode_mean_tokens": False}, ("mean",)),
        ({"pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode": ["max", "cls"]}, ("max", "cls")),
    ],
)
def test_pooling_modes_are_read_as_sentence_transformers_reads_them(config, modes, tmp_path):
    config = {"word_embedding_dimension": 8} | config
    (tmp_path / "config.json").write_text(json.dumps(config))
    _write_modules(tmp_path, ["Transformer", "Pooling"], ["", ""])
    assert read_modules(tmp_path).pooling.modes == modes
    theirs = pytest.importorskip("sentence_transformers.sentence_transformer.modules").Pooling
    loaded = theirs.load(str(tmp_path)).pooling_mode
    assert ((loaded,) if isinstance(loaded, str) else loaded) == modes


@pytest.mark.parametrize(
    ("kinds", "config", "message"),
    [
        (["Transformer", "Normalize"], {}, "modules are .*Normalize; computed here are"),
        (["Transformer", "Pooling", "CNN"], {}, "modules are .*CNN"),
        (["Transformer", "Pooling"], {"pooling_mode": "median"}, r"pooling_mode \['median'\]"),
        (
            ["Transformer", "Pooling", "Dense"],
            {"activation_function": "os.system"},
            "activation_function = 'os.system' is not supported",
        ),
        (
            ["Transformer", "Pooling", "Normalize"],
            {"module_input_name": "token_embeddings"},
            "module_input_name = 'token_embeddings'",
        ),
    ],
)
def test_what_is_not_computed_is_refused(kinds, config, message, tmp_path):
    _write_modules(tmp_path, kinds, [""] * len(kinds))
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedEncoderError, match=message):
        read_modules(tmp_path)
    _write_modules(tmp_path, ["Transformer", "Pooling"], ["", ""], library="mine.")
    with pytest.raises(UnsupportedEncoderError, match=r"modules are mine\.Transformer"):
        read_modules(tmp_path)


@pytest.mark.parametrize("content", ["{", '["a"]', '[{"path": ""}]', '[{"type": "", "path": "../x"}]'])
def test_a_damaged_list_of_modules_is_named(content, tmp_path):
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(UserError, match=r"modules\.json: not a list of modules"):
        read_modules(tmp_path)
