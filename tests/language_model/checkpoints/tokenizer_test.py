"""Text to ids and back, padding, and which special tokens are kept."""

import json

import numpy as np
import pytest

from eagle_jax.language_model.checkpoints.tokenizer import load_tokenizer


@pytest.fixture
def folder(tmp_path, tokenizer_writer):
    tokenizer_writer(tmp_path, with_bos=True)
    return tmp_path


def test_ids_of_special_tokens(folder):
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    assert tokenizer.vocab_size == 95
    assert tokenizer.token_id("#END_PLOT") == 94
    assert tokenizer.token_id("#END PLOT") is None


def test_round_trip_keeps_markers_and_drops_the_frame(folder):
    tokenizer = load_tokenizer(folder)
    text = "w1 w5 #END_PLOT w7"
    ids = tokenizer.encode(text)
    assert ids == [1, 5, 9, 94, 11]  # [BOS], words from id 4 on, the marker
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([0, 0, *ids, 2]) == text
    assert tokenizer.decode(np.array(ids, np.int32)) == text


def test_padding(folder):
    tokenizer = load_tokenizer(folder)
    tokens, mask = tokenizer.left_pad([[7, 8, 9], [5]], 4)
    np.testing.assert_array_equal(tokens, [[0, 7, 8, 9], [0, 0, 0, 5]])
    np.testing.assert_array_equal(mask, [[0, 1, 1, 1], [0, 0, 0, 1]])
    tokens, mask = tokenizer.right_pad([[7, 8, 9, 6, 5], [5]], 4)
    np.testing.assert_array_equal(tokens, [[7, 8, 9, 6, 5, 0, 0, 0], [5] + [0] * 7])
    np.testing.assert_array_equal(mask, [[1] * 5 + [0] * 3, [1] + [0] * 7])


def test_special_tokens_fall_back_to_config_json(folder):
    (folder / "tokenizer_config.json").unlink()
    (folder / "config.json").write_text('{"eos_token_id": [2, 3], "bos_token_id": 1}')
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 2)
    # No padding token is named, so id 0 is a token like any other.
    assert tokenizer.decode([0, 4]) == "[PAD] w0"


def test_a_special_token_outside_the_vocabulary_is_added_as_transformers_does(folder):
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    assert load_tokenizer(folder).pad_id == 95
    assert load_tokenizer(folder, num_embeddings=95).pad_id == 0
