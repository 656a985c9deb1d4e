"""Folders made to be misread: each gives the values of `transformers` and PEFT, or is refused.

`cases/` holds decoders of two layers: expected.npy are the logits of `transformers` 5.23 for
ids.json, expected.json the ids and names of its AutoTokenizer, or what PEFT says.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer as Backend
from tokenizers import normalizers

from eagle_jax.base.errors import UserError
from eagle_jax.base.tensor_files import CheckpointError
from eagle_jax.embeddings.sentences.tokenizer_files import TokenizerError
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel, load_language_model, save_language_model
from eagle_jax.language_model.checkpoints.peft_adapters import load_peft_adapter
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer, load_tokenizer
from eagle_jax.language_model.decoder.transformer import forward, init_params
from tests.language_model.small_checkpoints import config_of

CASES = Path(__file__).parent / "cases"
FOLDERS, TOKENIZERS = CASES / "hf-folders", CASES / "tokenizers"


def read(folder, file="expected.json"):
    return json.loads((folder / file).read_text())


def our_logits(folder, padding):
    model, ids = load_language_model(folder), read(folder, "ids.json")
    tokens, mask = model.tokenizer.left_pad([ids], len(ids) + padding)
    return np.asarray(forward(model.config, model.params, tokens, mask).logits[0, padding:])


@pytest.mark.parametrize("name", sorted(p.parent.name for p in FOLDERS.glob("*/expected.npy")))
@pytest.mark.parametrize("padding", [0, 5])
def test_a_folder_gives_the_logits_of_transformers(name, padding):
    expected = np.load(FOLDERS / name / "expected.npy")
    np.testing.assert_allclose(our_logits(FOLDERS / name, padding), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config-is-array", "tokenizer_config.json: must hold an object"),
        ("deep-json", "config.json: not JSON: maximum recursion"),
        ("nan-weights", r"model.safetensors: tensor \S+up_proj.weight holds NaN"),
        ("numbers-as-strings", "config.json: llama.*'hidden_size' expected int"),
        ("only-bin", "pytorch_model.bin: a pickle can run any program.*safetensors"),
        ("only-sentencepiece", "only tokenizer.model; .*save_pretrained"),
        ("rms-norm-eps-nan", "config.json: llama: rms_norm_eps = nan"),
        ("rms-norm-eps-negative", "config.json: llama: rms_norm_eps = -1.0"),
    ],
)
def test_a_folder_is_refused_with_file_and_key(name, words):
    with pytest.raises(UserError, match=words):
        load_language_model(FOLDERS / name)


def test_every_folder_is_tested():
    refused = {path.name for path in FOLDERS.iterdir()} - {path.parent.name for path in FOLDERS.glob("*/expected.npy")}
    assert len(refused) == 8


@pytest.mark.parametrize("name", sorted(path.name for path in TOKENIZERS.iterdir()))
def test_a_tokenizer_gives_the_ids_and_names_of_transformers(name):
    tokenizer, expected = load_tokenizer(TOKENIZERS / name), read(TOKENIZERS / name)
    for text, ids in zip(expected.get("texts", ()), expected.get("ids", ()), strict=True):
        assert tokenizer.encode(text) == ids
    for role in {"bos_token", "eos_token", "pad_token"} & expected.keys():
        assert getattr(tokenizer, role) == expected[role]


@pytest.mark.parametrize("name", sorted(path.name for path in TOKENIZERS.iterdir()))
def test_a_saved_tokenizer_gives_the_same_ids_in_autotokenizer(name, tmp_path):
    tokenizer = load_tokenizer(TOKENIZERS / name)
    # What an earlier save left there does not count.
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "the"}')
    (tmp_path / "chat_template.jinja").write_text("old")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (*read(TOKENIZERS / name).get("texts", ()), "in</s>the<|mark|> thin"):
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
        assert load_tokenizer(tmp_path).encode(text) == tokenizer.encode(text)
    assert (theirs.eos_token, theirs.chat_template) == (tokenizer.eos_token, None)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *((f"rank-{kind}", "r must be") for kind in ("zero", "negative", "as-text", "float")),
        *((f"alpha-{kind}", "lora_alpha must be") for kind in ("null", "as-text")),
    ],
)
def test_an_adapter_is_refused_with_file_and_key(name, key):
    model = load_language_model(CASES / "base-decoder")
    with pytest.raises(CheckpointError, match=f"adapter_config.json: {key}"):
        load_peft_adapter(model, CASES / "adapters" / name)


def test_a_token_without_an_embedding_is_refused_in_a_text_not_as_padding():
    tokenizer = load_language_model(FOLDERS / "pad-outside-embedding").tokenizer
    assert tokenizer.pad_token == "[PAD]" and tokenizer.pad_id < 96
    with pytest.raises(TokenizerError, match=r"no embedding of '\[PAD\]' in 't1 \[PAD\]'"):
        tokenizer.encode("t1 [PAD]")


def test_an_end_without_an_embedding_is_refused(tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(FOLDERS / "pad-outside-embedding", folder)
    config = read(folder, "tokenizer_config.json") | {"eos_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match=r"tokenizer.json: eos_token '\[PAD\]' is token 96"):
        load_language_model(folder)


def test_stored_padding_does_not_reach_a_prompt(tmp_path):
    shutil.copytree(TOKENIZERS / "stored-truncation", tmp_path / "copy")
    backend = Backend.from_file(str(tmp_path / "copy" / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    expected = backend.encode("t1 t2").ids
    backend.enable_padding(length=32)
    backend.save(str(tmp_path / "copy" / "tokenizer.json"))
    assert load_tokenizer(tmp_path / "copy").encode("t1 t2") == expected


def test_where_autotokenizer_gives_other_ids_the_folder_says_how_to_read_it(tmp_path):
    backend = load_tokenizer(TOKENIZERS / "split-special-tokens").backend
    backend.normalizer = normalizers.Lowercase()  # which Qwen2Tokenizer drops
    config = config_of("qwen2_5")
    model = LanguageModel(
        "small",
        config,
        init_params(config, jax.random.key(0)),
        Tokenizer(backend, pad_token="<pad>", bos_token=None, eos_token="</s>"),
    )
    save_language_model(model, tmp_path, "float32")
    assert "PreTrainedTokenizerFast.from_pretrained" in (tmp_path / "README.md").read_text()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)("THE")["input_ids"] != [257]
    right = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert right("THE</s>")["input_ids"] == load_tokenizer(tmp_path).encode("THE</s>")
    # Not where it reads what we wrote.
    same = load_language_model(CASES / "base-decoder")
    save_language_model(same, tmp_path / "same", "float32")
    assert not (tmp_path / "same" / "README.md").exists()
