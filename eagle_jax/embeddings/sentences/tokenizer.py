"""Texts to token ids as a sentence-transformers folder wants them: prompt, lower case, cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import normalizers

from eagle_jax.base.errors import UserError
from eagle_jax.base.tensor_files import CheckpointError
from eagle_jax.embeddings.sentences.config_file import ConfigFile
from eagle_jax.embeddings.sentences.modules import SETTINGS_FILE
from eagle_jax.embeddings.sentences.tokenizer_files import read_tokenizer

# Tokenizers without a limit carry 1e30 as model_max_length.
_NO_LIMIT = 1 << 40
_SETTINGS = "sentence_bert_config.json"


@dataclasses.dataclass(frozen=True, eq=False)
class SentenceTokenizer:
    """`prompt` stands before every text; what is then longer than `max_tokens` is cut."""

    backend: tokenizers.Tokenizer
    prompt: str
    max_tokens: int

    @property
    def vocab_size(self) -> int:
        """One more than the largest id, of added tokens too."""
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1)

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
    # In older folders sentence_roberta_config.json and so on.
    found = sorted(transformer.glob("sentence_*_config.json"))
    settings = ConfigFile(found[0] if found else transformer / _SETTINGS, is_optional=True)
    theirs = read_tokenizer(transformer)
    backend = theirs.backend_tokenizer
    limit = settings.read("max_seq_length", int, 0, least=0) or theirs.model_max_length
    least = max(1, backend.num_special_tokens_to_add(is_pair=False))
    if not isinstance(limit, int | float) or not least <= min(limit, max_positions):
        raise CheckpointError(
            f"{transformer}: a limit of {limit!r} tokens and {max_positions} positions, "
            f"where {least} tokens stand in every text"
        )
    limit = int(min(limit, max_positions, _NO_LIMIT))
    if limit < _NO_LIMIT:
        backend.enable_truncation(limit, direction=theirs.truncation_side)
    if settings.read("do_lower_case", bool, False):
        own = [backend.normalizer] if backend.normalizer is not None else []
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return SentenceTokenizer(backend, _prompt(folder, prompt_name), limit)


def _prompt(folder: Path, prompt_name: str | None) -> str:
    settings = ConfigFile(folder / SETTINGS_FILE, is_optional=True)
    prompts = settings.read("prompts", dict, {})
    name = prompt_name or settings.read("default_prompt_name", str, "")
    if not name:
        return ""
    if not isinstance(prompts.get(name), str):
        raise UserError(
            f"{settings.path}: has no prompt named {name!r}, only {', '.join(map(repr, prompts)) or 'none'}"
        )
    return prompts[name]
