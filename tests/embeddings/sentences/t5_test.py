"""T5's encoder against PyTorch `transformers`, bucket by bucket and in hidden states."""

import numpy as np
import pytest

from eagle_jax.base.tensor_files import read_json
from eagle_jax.embeddings.sentences import t5 as t5_encoder
from eagle_jax.embeddings.sentences.attention import relative_position_buckets
from eagle_jax.embeddings.sentences.checkpoints import UnsupportedEncoderError


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 12), (64, 1000)])
def test_buckets_are_those_of_transformers(num_buckets, max_distance):
    torch = pytest.importorskip("torch")
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    offsets = torch.arange(700)[None] - torch.arange(700)[:, None]
    expected = t5.T5Attention._relative_position_bucket(
        offsets, True, num_buckets, max_distance
    ).numpy()
    np.testing.assert_array_equal(
        relative_position_buckets(700, num_buckets, max_distance), expected
    )


def test_buckets_by_hand():
    # 8 buckets up to distance 8: to the left 0, 1 exact, then 2 <= distance < 4: bucket 2,
    # 4 <= distance: bucket 3; to the right the same plus 4.
    buckets = relative_position_buckets(6, 8, 8)
    assert buckets[0].tolist() == [0, 5, 6, 6, 7, 7]
    assert buckets[5].tolist() == [3, 3, 2, 2, 1, 0]


def _load(folder):
    config = t5_encoder.config_from_hf(read_json(folder / "config.json"))
    return config, t5_encoder.load_params(folder, config, "float32")


@pytest.mark.parametrize("kind", ["t5_v1_0", "t5_v1_1"])
def test_hidden_states_are_those_of_transformers(kind, encoder_folder):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config, params = _load(encoder_folder(kind))
    assert config.is_gated == (kind == "t5_v1_1")
    tokens = np.random.default_rng(0).integers(4, config.vocab_size, (4, 30)).astype(np.int32)
    mask = np.arange(30)[None] < np.array([30, 1, 17, 4])[:, None]
    model = transformers.T5EncoderModel.from_pretrained(encoder_folder(kind)).eval()
    with torch.inference_mode():
        expected = model(
            input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long()
        ).last_hidden_state.numpy()
    hidden = np.asarray(t5_encoder.encode(config, params, tokens, mask))
    assert np.abs(expected[mask]).mean() > 0.1
    np.testing.assert_allclose(hidden[mask], expected[mask], atol=1e-5)


def test_a_whole_t5_gives_its_encoder(encoder_folder, tmp_path):
    """T5ForConditionalGeneration's checkpoint holds a decoder too."""
    transformers = pytest.importorskip("transformers")
    config, params = _load(encoder_folder("t5_v1_1"))
    whole = transformers.T5ForConditionalGeneration(
        transformers.T5Config.from_pretrained(encoder_folder("t5_v1_1"))
    )
    encoder = transformers.T5EncoderModel.from_pretrained(encoder_folder("t5_v1_1"))
    whole.encoder.load_state_dict(encoder.encoder.state_dict())
    whole.save_pretrained(tmp_path)
    _, same = _load(tmp_path)
    tokens = np.arange(4, 16, dtype=np.int32)[None]
    mask = np.ones((1, 12), bool)
    np.testing.assert_array_equal(
        t5_encoder.encode(config, same, tokens, mask),
        t5_encoder.encode(config, params, tokens, mask),
    )


def test_what_is_not_computed_is_refused(encoder_folder):
    config_json = read_json(encoder_folder("t5_v1_0") / "config.json")
    with pytest.raises(UnsupportedEncoderError, match="feed_forward_proj = 'gated-silu'"):
        t5_encoder.config_from_hf(config_json | {"feed_forward_proj": "gated-silu"})
