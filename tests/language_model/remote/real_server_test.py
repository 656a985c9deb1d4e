"""The client of remote models against `transformers serve` with a small random model.

PyTorch's own greedy generation of the same model says what the texts have to be.
"""

import functools
import os
import socket
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from eagle_jax.data.prompts import Prompt
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.remote.client import RemoteGenerator
from eagle_jax.language_model.remote.settings import RemotePrices
from tests.language_model.remote.scripted_client import make
from tests.language_model.small_checkpoints import SHAPE

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
for package in ("openai", "fastapi", "uvicorn", "accelerate"):
    pytest.importorskip(package)

TEMPLATE = "{% for m in messages %}<user>{{ m['content'] }}{% endfor %}<assistant>"
GREEDY = SamplingSettings(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=12)
TEXTS = ("a tale of two towns", "the wind", "a")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A Llama with random weights whose tokens are the letters."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("model")
    letters = "abcdefghijklmnopqrstuvwxyz #"
    vocabulary = {token: i for i, token in enumerate(["<end>", "<user>", "<assistant>", *letters])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<end>",
        pad_token="<end>",
        additional_special_tokens=["<user>", "<assistant>"],
        chat_template=TEMPLATE,
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    special = {"bos_token_id": None, "eos_token_id": 0}
    shape = SHAPE | {"vocab_size": len(vocabulary), "initializer_range": 0.5, **special}
    config = transformers.LlamaConfig(**shape)
    model = transformers.LlamaForCausalLM(config)
    model.generation_config.do_sample = True  # the server samples where the model says so
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base_url(folder) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from transformers.cli.transformers import main; main()"
    options = f"--host 127.0.0.1 --port {port} --device cpu".split()
    command = [sys.executable, "-c", program, "serve", str(folder), *options]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = folder.parent / "server.log"
    with open(log, "w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def _wait_until_healthy(url: str, process: subprocess.Popen, log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy for loopback
    for _ in range(1200):
        assert process.poll() is None, log.read_text()
        try:
            with direct.open(url, timeout=5) as answer:
                assert answer.status == 200
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError(f"no server after 1200 attempts: {log.read_text()}")


def generator(base_url: str, model: Path, folder: Path, api: str, concurrency: int = 2) -> RemoteGenerator:
    prices = RemotePrices(prompt=1.0, completion=3.0)
    server = types.SimpleNamespace(base_url=base_url)
    return make(server, folder, model=str(model), api=api, concurrency=concurrency, prices=prices, timeout_seconds=60.0)


@functools.cache
def expected(folder: Path, text: str) -> tuple[int, list[int], str]:
    """Tokens of the prompt, and tokens and text of PyTorch's greedy generation."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        made = model.generate(**ids, do_sample=False, max_new_tokens=GREEDY.max_new_tokens)
    new = made[0, ids["input_ids"].shape[1] :].tolist()
    return ids["input_ids"].shape[1], new, tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize(("api", "told"), [("completion", "{}"), ("chat", "<user>{}<assistant>")])
def test_texts_and_tokens_are_those_of_pytorch(base_url, folder, tmp_path, api, told):
    reference = [expected(folder, told.format(text)) for text in TEXTS]
    assert len({text for *_, text in reference}) == len(TEXTS)
    prompts = [Prompt(text=text, stop=("#end",), opening="#BEGIN") for text in TEXTS]
    remote = generator(base_url, folder, tmp_path, api)
    made = remote.generate(prompts, GREEDY, seed=0)
    # A turn of a chat begins with its first word.
    wanted = [text.lstrip() if api == "chat" else text for *_, text in reference]
    assert [generation.text for generation in made] == wanted
    assert [generation.stop_reason for generation in made] == [
        "length" if len(new) == GREEDY.max_new_tokens else "stop" for _, new, _ in reference
    ]
    usage = remote.usage()
    assert usage["num_requests"] == usage["num_answered"] == len(TEXTS)
    assert usage["prompt_tokens"] == sum(length for length, *_ in reference)
    assert usage["completion_tokens"] == sum(len(new) for _, new, _ in reference)
    cost = (usage["prompt_tokens"] + 3 * usage["completion_tokens"]) / 1e6
    assert usage["cost"] == pytest.approx(cost)


def test_a_stop_string_ends_the_text(base_url, folder, tmp_path):
    _, _, text = expected(folder, TEXTS[0])
    stop = text[4:6]
    prompt = Prompt(text=TEXTS[0], stop=(stop,), opening="#BEGIN")
    remote = generator(base_url, folder, tmp_path, "completion")
    (made,) = remote.generate([prompt], GREEDY, seed=0)
    assert made.text == text[: text.index(stop)]
    assert made.stop_reason == "stop"


def test_sampling_follows_the_seed(base_url, folder, tmp_path):
    hot = SamplingSettings(temperature=1.5, top_k=0, top_p=1.0, max_new_tokens=30)
    prompts = [Prompt(text=TEXTS[0], stop=("#end",), opening="#BEGIN")] * 2
    runs = []
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        # One at a time: the server's requests share one random state.
        remote = generator(base_url, folder, tmp_path / name, "completion", 1)
        runs.append([made.text for made in remote.generate(prompts, hot, seed)])
    assert runs[0][0] != runs[0][1]  # the same prompt at another row
    assert runs[0] == runs[1] != runs[2]
