"""Texts to token ids as a sentence-transformers folder wants them: prompt, lower case, cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import normalizers

from eagle_jax.base.errors import UserError
from eagle_jax.base.tensor_files import read_json
from eagle_jax.embeddings.sentences.modules import SETTINGS_FILE
from eagle_jax.embeddings.sentences.tokenizer_files import read_tokenizer

# Tokenizers without a limit carry 1e30 as model_max_length.
_NO_LIMIT = 1 << 40


@dataclasses.dataclass(frozen=True, eq=False)
class SentenceTokenizer:
    """`prompt` stands before every text; what is then longer than `max_tokens` is cut."""

    backend: tokenizers.Tokenizer
    prompt: str
    max_tokens: int

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt with what stands before it; 0 without a prompt."""
        if not self.prompt:
            return 0
        encoding = self.backend.encode(self.prompt)
        return len(encoding.ids) - sum(encoding.special_tokens_mask[-1:])  # the end comes later

    @property
    def identity(self) -> str:
        """Equal for tokenizers that give equal ids."""
        return repr((self.prompt, self.max_tokens, self.backend.to_str()))

    def __call__(self, texts: Sequence[str]) -> tuple[list[np.ndarray], int]:
        """int32 ids of each text, and how many texts were cut.

        Raises UserError for a text without tokens, which an empty one is for some tokenizers.
        """
        encodings = self.backend.encode_batch_fast([self.prompt + text for text in texts])
        ids = [np.asarray(encoding.ids, np.int32) for encoding in encodings]
        if empty := [row for row, own in enumerate(ids) if not len(own)]:
            raise UserError(f"text {empty[0]} has no tokens, so it has no embedding")
        return ids, sum(bool(encoding.overflowing) for encoding in encodings)


def load_sentence_tokenizer(
    folder: Path, transformer: Path, prompt_name: str | None, max_positions: int
) -> SentenceTokenizer:
    """Reads tokenizer.json and the settings of both folders.

    Raises UserError for a prompt that config_sentence_transformers.json does not have, and
    CheckpointError for files.
    """
    settings = _settings_of_transformer(transformer)
    theirs = read_tokenizer(transformer)
    backend = theirs.backend_tokenizer
    limit = settings.get("max_seq_length") or theirs.model_max_length
    limit = int(min(limit, max_positions, _NO_LIMIT))
    if limit < _NO_LIMIT:
        backend.enable_truncation(limit, direction=theirs.truncation_side)
    if settings.get("do_lower_case", False):
        own = [backend.normalizer] if backend.normalizer is not None else []
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return SentenceTokenizer(backend, _prompt(folder, prompt_name), limit)


def _settings_of_transformer(folder: Path) -> Mapping[str, Any]:
    """sentence_bert_config.json, or sentence_roberta_config.json and so on in older folders."""
    paths = sorted(folder.glob("sentence_*_config.json"))
    return read_json(paths[0]) if paths else {}


def _prompt(folder: Path, prompt_name: str | None) -> str:
    path = folder / SETTINGS_FILE
    settings = _read_optional(path)
    prompts = settings.get("prompts") or {}
    name = settings.get("default_prompt_name") if prompt_name is None else prompt_name
    if name is None:
        return ""
    if prompts.get(name) is None:
        raise UserError(
            f"{path}: has no prompt named {name!r}, only {', '.join(map(repr, prompts)) or 'none'}"
        )
    return prompts[name]


def _read_optional(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.is_file() else {}
