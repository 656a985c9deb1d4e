"""BERT, XLM-R and MPNet against PyTorch `transformers`, and their laws."""

import jax
import numpy as np
import pytest

from eagle_jax.base.tensor_files import read_json
from eagle_jax.embeddings.sentences import bert
from eagle_jax.embeddings.sentences.checkpoints import UnsupportedEncoderError

KINDS = ("bert", "bert_relu", "roberta", "mpnet")


def _load(folder, dtype="float32"):
    config = bert.config_from_hf(read_json(folder / "config.json"))
    return config, bert.load_params(folder, config, dtype)


def _batch(config, length=13):
    rng = np.random.default_rng(0)
    tokens = rng.integers(4, config.vocab_size, (5, length)).astype(np.int32)
    lengths = np.array([13, 1, 7, 12, 2])
    return tokens, np.arange(length)[None] < lengths[:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_those_of_transformers(kind, encoder_folder):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config, params = _load(encoder_folder(kind))
    tokens, mask = _batch(config)
    tokens = np.where(mask, tokens, config.first_position - 1 if config.first_position else 0)
    model = transformers.AutoModel.from_pretrained(encoder_folder(kind)).eval()
    with torch.inference_mode():
        expected = model(
            input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long()
        ).last_hidden_state.numpy()
    hidden = np.asarray(bert.encode(config, params, tokens, mask))
    assert np.abs(expected[mask]).mean() > 0.3
    np.testing.assert_allclose(hidden[mask], expected[mask], atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_padding_and_the_other_texts_do_not_matter(kind, encoder_folder):
    config, params = _load(encoder_folder(kind))
    tokens, mask = _batch(config)
    hidden = np.asarray(bert.encode(config, params, tokens, mask))
    wide = np.pad(tokens, ((0, 0), (0, 9)), constant_values=17)
    wide_mask = np.pad(mask, ((0, 0), (0, 9)))
    order = np.array([3, 0, 2])
    other = np.asarray(bert.encode(config, params, wide[order], wide_mask[order]))
    np.testing.assert_allclose(other[:, :13][mask[order]], hidden[order][mask[order]], atol=2e-6)


def test_bfloat16_keeps_two_digits(encoder_folder):
    config, params = _load(encoder_folder("bert"))
    _, half = _load(encoder_folder("bert"), "bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(half)} == {"bfloat16"}
    tokens, mask = _batch(config)
    exact = np.asarray(bert.encode(config, params, tokens, mask))[mask]
    rough = np.asarray(bert.encode(config, half, tokens, mask).astype(np.float32))[mask]
    error = np.linalg.norm(rough - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
        ({"is_decoder": True}, "is_decoder = True"),
        ({"hidden_act": "mish"}, "hidden_act = 'mish' is not supported; known: .*gelu"),
    ],
)
def test_what_is_not_computed_is_refused(change, message, encoder_folder):
    config_json = read_json(encoder_folder("bert") / "config.json")
    with pytest.raises(UnsupportedEncoderError, match=message):
        bert.config_from_hf(config_json | change)
    del config_json["hidden_size"]
    with pytest.raises(UnsupportedEncoderError, match=r"config\.json lacks hidden_size"):
        bert.config_from_hf(config_json)
