"""The tokenizer that a GGUF file's metadata describe, written as a folder of Hugging Face's files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers, processors

from eagle_jax.embeddings.sentences.tokenizer_files import TokenizerError

_KEYS = {
    "tokenizer_type": "model",
    "pre_tokenizer_type": "pre",
    "tokens": "tokens",
    "scores": "scores",
    "token_type": "token_type",
    "merges": "merges",
}
_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_ENDS = ("eos_token_id", "eot_token_id")  # of a text, and of a turn
_LLAMA3 = ("llama3", "llama-v3", "llama-bpe")
# How text is split before byte level, where a file only names it and `transformers` does not know
# the name: digits one by one.
_SINGLE_DIGITS = ("smollm", "refact", "command-r", "starcoder", "codeshell", "exaone", "minerva-7b")


def write_gguf_tokenizer(path: Path, metadata: Mapping[str, Any], model_type: str, folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and a config.json of family and end tokens.

    Raises TokenizerError that names the file and what is not known.
    """
    given = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    kind, pre = given.get("model"), given.get("pre", "default")
    if kind not in ("llama", "gpt2") or "tokens" not in given:
        raise TokenizerError(f"{path}: tokenizer.ggml.model = {kind!r} is not read, only llama and gpt2")
    backend = _backend(path, metadata["general.architecture"], given)
    tokens, config = given["tokens"], {"tokenizer_class": "PreTrainedTokenizerFast"}
    for role, key in _ROLES.items():
        if key in given:
            config[role] = _token(path, backend, tokens, key, given[key])
    adds_bos = given.get("add_bos_token", kind == "llama" or pre in _LLAMA3)
    backend.post_processor = _post_processor(backend, config, adds_bos, given.get("add_eos_token", False))
    if "tokenizer.chat_template" in metadata:
        config["chat_template"] = metadata["tokenizer.chat_template"]
    ends = [given[key] for key in _ENDS if key in given]
    backend.save(str(folder / "tokenizer.json"))
    for name, content in (
        ("tokenizer_config.json", config),
        ("config.json", {"model_type": model_type, "eos_token_id": ends}),
    ):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def _token(path: Path, backend: tokenizers.Tokenizer, tokens: list[str], key: str, token_id: int) -> str:
    if not 0 <= token_id < len(tokens):
        raise TokenizerError(f"{path}: tokenizer.ggml.{key} = {token_id} is no token, there are {len(tokens)}")
    return backend.id_to_token(token_id)  # which may spell it otherwise than the file


def _backend(path: Path, architecture: str, given: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """As `transformers` builds it, with the splits that it does not know and no guessed one."""
    from transformers.integrations.gguf import gguf_tokenizer_mapping as theirs  # takes seconds

    kind, pre = given["model"], given.get("pre", "default")
    known = (*theirs.GGUF_PRE_TOKENIZER_SPLITS, *_SINGLE_DIGITS, "gpt-2")
    if kind == "gpt2" and pre not in known:
        raise TokenizerError(
            f"{path}: tokenizer.ggml.pre = {pre!r} is not known, so that text would be split as by chance; "
            f"known: {', '.join(sorted(known))}"
        )
    is_gemma = architecture in theirs.GGUF_SENTENCEPIECE_BUILDERS
    has_prefix = given.get("add_space_prefix", kind == "llama" and not is_gemma)
    if has_prefix != (kind == "llama" and not is_gemma):
        raise TokenizerError(f"{path}: tokenizer.ggml.add_space_prefix = {has_prefix} is not computed of {kind}")
    described = {name: given[key] for name, key in _KEYS.items() if key in given}
    try:
        backend, _ = theirs.convert_gguf_tokenizer(architecture, described)
    except Exception as error:  # of many kinds, as damage leads to
        raise TokenizerError(f"{path}: not a tokenizer: {type(error).__name__}: {error}") from error
    if pre in _SINGLE_DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return backend


def _post_processor(backend: tokenizers.Tokenizer, config: Mapping[str, Any], adds_bos: bool, adds_eos: bool):
    """Puts the beginning and end tokens around a text, where the file says so."""
    begin = config.get("bos_token") if adds_bos else None
    end = config.get("eos_token") if adds_eos else None
    pattern = [part for part in (begin, "$A", end) if part is not None]
    special = [(token, backend.token_to_id(token)) for token in (begin, end) if token is not None]
    return processors.TemplateProcessing(single=pattern, pair=[*pattern, "$B"], special_tokens=special)
