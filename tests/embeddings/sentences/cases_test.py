"""Folders that were once read wrongly, and seeded faults in one, against sentence-transformers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.embeddings.sentences.encoder import load_sentence_encoder
from tests.language_model.checkpoints.mutations_test import mutate

CASES = sorted(path.parent for path in (Path(__file__).parent / "cases").glob("*/expected.npy"))


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_embeddings_are_those_that_sentence_transformers_gave(folder):
    texts = json.loads((folder / "texts.json").read_text())
    embeddings = load_sentence_encoder(folder, batch_size=8)(texts)
    np.testing.assert_allclose(embeddings, np.load(folder / "expected.npy"), atol=1e-5)


def theirs(folder, texts):
    """Embeddings of sentence-transformers; None where it does not read the folder either."""
    library = pytest.importorskip("sentence_transformers")
    try:
        return library.SentenceTransformer(str(folder), device="cpu").encode(texts)
    except Exception:
        return None


@pytest.mark.parametrize(
    "file", ["config.json", "sentence_bert_config.json", "tokenizer_config.json", "1_Pooling/config.json"]
)
def test_a_faulty_folder_is_refused_or_gives_the_embeddings_of_the_peer(file, tmp_path):
    refused = compared = 0
    texts = json.loads((CASES[0] / "texts.json").read_text())
    for number in range(40):
        rng, folder = np.random.default_rng([7, number]), tmp_path / str(number)
        shutil.copytree(CASES[0], folder)
        key = mutate(folder / file, rng)
        try:
            embeddings = load_sentence_encoder(folder, batch_size=4)(texts)
        except UserError as error:
            assert str(folder) in str(error) and "\n" not in str(error), (number, key)
            refused += 1
            continue
        assert np.isfinite(embeddings).all(), (number, key)
        if (expected := theirs(folder, texts)) is not None:
            compared += 1
            message = f"{number}, {key}"
            np.testing.assert_allclose(embeddings, expected, atol=1e-5, err_msg=message)
    assert min(refused, compared) >= 10
