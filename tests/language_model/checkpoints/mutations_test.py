"""Seeded faults in a folder's JSON: refused in a line that names the file, or the peer's values."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.language_model.decoder.transformer import forward

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

BASE = Path(__file__).parent / "cases" / "base-decoder"
VALUES = (
    *(None, True, False, -1, 0, 1, 2.5, 10**6, -(2**70), 1e308, math.nan, math.inf),
    *("", "x", "16", [], [1], ["x"], {}, {"x": 1}, [[]], "\ud800", "../x", "a\u0000b"),
)
IDS = [1, 4, 9, 30, 50, 71, 4]
TEXTS = ("t1 t2 </s> <pad>", "T3 t4")


def mutate(path, rng):
    """Another value at a random key, or none."""
    content = json.loads(path.read_text())
    key = sorted(content)[rng.integers(len(content))]
    if rng.random() < 0.2:
        del content[key]
    else:
        content[key] = VALUES[rng.integers(len(VALUES))]
    path.write_text(json.dumps(content))
    return key


def theirs(folder):
    """Logits and ids of `transformers`; None where it reads the folder no more than we do."""
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([IDS])).logits[0].numpy()
        return logits, [tokenizer(text)["input_ids"] for text in TEXTS]
    except Exception:
        return None


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_faulty_folder_is_refused_or_gives_the_values_of_transformers(file, tmp_path):
    refused = accepted = 0
    for number in range(60):
        rng, folder = np.random.default_rng([7, number]), tmp_path / str(number)
        shutil.copytree(BASE, folder)
        key = mutate(folder / file, rng)
        try:
            model = load_language_model(folder)
        except UserError as error:
            assert str(folder) in str(error) and "\n" not in str(error)
            refused += 1
            continue
        accepted += 1
        tokens, mask = model.tokenizer.left_pad([IDS], 9)
        logits = np.asarray(forward(model.config, model.params, tokens, mask).logits[0, 2:])
        assert np.isfinite(logits).all(), (number, key)
        if (peer := theirs(folder)) is not None:
            message = f"{number}, {key}"
            np.testing.assert_allclose(logits, peer[0], atol=1e-4, err_msg=message)
            assert [model.tokenizer.encode(text) for text in TEXTS] == peer[1], (number, key)
    assert min(refused, accepted) >= 10
