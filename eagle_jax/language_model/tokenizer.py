"""Text to token ids and back, by the `tokenizers` library and the special tokens of a checkpoint.

Axes: B texts, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.errors import UserError


class TokenizerError(UserError):
    """A tokenizer's files are missing or cannot be read."""


class Tokenizer:
    """A `tokenizers.Tokenizer` with its padding, beginning and end tokens.

    Padding is carried by masks, so where a checkpoint names no padding token any id does (`pad_id`
    is then the end token or 0), and only tokens named as padding are dropped in `decode`.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        pad_token: str | None,
        bos_token: str | None,
        eos_token: str | None,
    ):
        self.backend = backend
        self.pad_token, self.bos_token, self.eos_token = pad_token, bos_token, eos_token
        self.bos_id = self._known_id("bos_token", bos_token)
        self.eos_id = self._known_id("eos_token", eos_token)
        named_pad_id = self._known_id("pad_token", pad_token)
        self._dropped = {named_pad_id, self.bos_id, self.eos_id} - {None}
        candidates = (named_pad_id, self.eos_id, 0)
        self.pad_id = next(token_id for token_id in candidates if token_id is not None)

    def _known_id(self, role: str, token: str | None) -> int | None:
        if token is None:
            return None
        token_id = self.backend.token_to_id(token)
        if token_id is None:
            raise TokenizerError(f"{role} {token!r} is not in the vocabulary of the tokenizer")
        return token_id

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids of the text, with the beginning token if the tokenizer's post-processor adds one."""
        return self.backend.encode(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text without padding, beginning and end tokens; markers such as `#END_PLOT` are kept."""
        kept = [int(token_id) for token_id in ids if int(token_id) not in self._dropped]
        return self.backend.decode(kept, skip_special_tokens=False)

    def token_id(self, token: str) -> int | None:
        """Id of one token as the vocabulary spells it, None if it is not one token."""
        return self.backend.token_to_id(token)

    def left_pad(
        self, ids: Sequence[Sequence[int]], multiple: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """tokens [B, T] int32 and mask [B, T], T a multiple, the text at the end."""
        return self._pad(ids, multiple, left=True)

    def right_pad(
        self, ids: Sequence[Sequence[int]], multiple: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """tokens [B, T] int32 and mask [B, T], T a multiple, the text in front."""
        return self._pad(ids, multiple, left=False)

    def _pad(self, ids, multiple: int, left: bool) -> tuple[np.ndarray, np.ndarray]:
        longest = max((len(row) for row in ids), default=0)
        length = max(1, -(-longest // multiple)) * multiple
        tokens = np.full((len(ids), length), self.pad_id, np.int32)
        mask = np.zeros((len(ids), length), bool)
        for row, row_ids in enumerate(ids):
            start = length - len(row_ids) if left else 0
            tokens[row, start : start + len(row_ids)] = row_ids
            mask[row, start : start + len(row_ids)] = True
        return tokens, mask

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json as `transformers` reads them."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **{
                role: token
                for role, token in (
                    ("pad_token", self.pad_token),
                    ("bos_token", self.bos_token),
                    ("eos_token", self.eos_token),
                )
                if token is not None
            },
        }
        for name, text in (
            ("tokenizer.json", self.backend.to_str(pretty=True)),
            ("tokenizer_config.json", json.dumps(config, indent=2) + "\n"),
        ):
            write_atomically(Path(folder) / name, lambda file, text=text: file.write(text.encode()))


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """Reads tokenizer.json; special tokens from tokenizer_config.json, else the ids of config.json.

    Raises TokenizerError naming the file.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise TokenizerError(f"{path}: not found; a checkpoint needs a fast tokenizer's file")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(
            f"{path}: not a tokenizer of the `tokenizers` library: {error}"
        ) from error
    named = _read_json(Path(folder) / "tokenizer_config.json")
    numbered = _read_json(Path(folder) / "config.json")

    def special(role: str) -> str | None:
        token = named.get(f"{role}_token")
        if token is not None:
            return token["content"] if isinstance(token, dict) else token
        token_id = numbered.get(f"{role}_token_id")
        first = token_id[0] if isinstance(token_id, list) else token_id
        return None if first is None else backend.id_to_token(first)

    return Tokenizer(
        backend, pad_token=special("pad"), bos_token=special("bos"), eos_token=special("eos")
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path}: not JSON: {error}") from error
