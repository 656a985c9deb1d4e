"""Encoders of all families against PyTorch `transformers`, and their laws."""

import json

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.tensor_files import read_json
from eagle_jax.embeddings.sentences.checkpoints import load_params
from eagle_jax.embeddings.sentences.families import read_config
from eagle_jax.embeddings.sentences.layers import relative_position_buckets
from eagle_jax.embeddings.sentences.transformer import encode

KINDS = ("bert", "bert_relu", "roberta", "mpnet", "t5_v1_0", "t5_v1_1")


def _load(folder, dtype="float32"):
    config = read_config(folder / "config.json")
    return config, load_params(folder, config, dtype)


def _batch(config):
    rng = np.random.default_rng(0)
    tokens = rng.integers(4, config.vocab_size, (5, 30)).astype(np.int32)
    lengths = np.array([30, 1, 7, 17, 2])
    return tokens, np.arange(30)[None] < lengths[:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_those_of_transformers(kind, encoder_folder):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config, params = _load(encoder_folder(kind))
    assert config.is_gated == (kind == "t5_v1_1")
    tokens, mask = _batch(config)
    tokens = np.where(mask, tokens, config.first_position - 1 if config.first_position else 0)
    kinds = {"t5": transformers.T5EncoderModel}
    model = kinds.get(config.model_type, transformers.AutoModel)
    model = model.from_pretrained(encoder_folder(kind)).eval()
    with torch.inference_mode():
        expected = model(
            input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long()
        ).last_hidden_state.numpy()
    hidden = np.asarray(encode(config, params, tokens, mask))
    assert np.abs(expected[mask]).mean() > 0.1
    np.testing.assert_allclose(hidden[mask], expected[mask], atol=1e-5)


def test_a_whole_t5_gives_its_encoder(encoder_folder, tmp_path):
    """T5ForConditionalGeneration's checkpoint holds a decoder too."""
    transformers = pytest.importorskip("transformers")
    config, params = _load(encoder_folder("t5_v1_1"))
    whole = transformers.T5ForConditionalGeneration(transformers.T5Config.from_pretrained(encoder_folder("t5_v1_1")))
    encoder = transformers.T5EncoderModel.from_pretrained(encoder_folder("t5_v1_1"))
    whole.encoder.load_state_dict(encoder.encoder.state_dict())
    whole.save_pretrained(tmp_path)
    _, same = _load(tmp_path)
    tokens = np.arange(4, 16, dtype=np.int32)[None]
    mask = np.ones((1, 12), bool)
    np.testing.assert_array_equal(encode(config, same, tokens, mask), encode(config, params, tokens, mask))


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 12), (64, 1000)])
def test_buckets_are_those_of_transformers(num_buckets, max_distance):
    torch = pytest.importorskip("torch")
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    offsets = torch.arange(700)[None] - torch.arange(700)[:, None]
    expected = t5.T5Attention._relative_position_bucket(offsets, True, num_buckets, max_distance).numpy()
    np.testing.assert_array_equal(relative_position_buckets(700, num_buckets, max_distance), expected)


def test_buckets_by_hand():
    # 8 buckets up to distance 8: to the left 0, 1 exact, then 2 <= distance < 4: bucket 2,
    # 4 <= distance: bucket 3; to the right the same plus 4.
    buckets = relative_position_buckets(6, 8, 8)
    assert buckets[0].tolist() == [0, 5, 6, 6, 7, 7]
    assert buckets[5].tolist() == [3, 3, 2, 2, 1, 0]


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("t5_v1_0", {"feed_forward_proj": "gated-silu"}, "feed_forward_proj = 'gated-silu' is not"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
        ("bert", {"is_decoder": True}, "is_decoder = True"),
        ("bert", {"hidden_act": "mish"}, "hidden_act = 'mish' is not supported; known: .*gelu"),
        ("bert", {"hidden_size": None}, "lacks hidden_size"),
        ("bert", {"hidden_size": "24"}, "hidden_size must be int from 1 to 2147483647, got '24'"),
        ("bert", {"layer_norm_eps": float("nan")}, "layer_norm_eps must be float from 0 to .*, got nan"),
        ("bert", {"num_attention_heads": 5}, "5 heads do not divide a hidden_size of 24"),
    ],
)
def test_what_is_not_computed_is_refused(kind, change, message, encoder_folder, tmp_path):
    path, config_json = tmp_path / "config.json", read_json(encoder_folder(kind) / "config.json")
    path.write_text(json.dumps(config_json | change))
    with pytest.raises(UserError, match=rf"config\.json.* {message}"):
        read_config(path)
