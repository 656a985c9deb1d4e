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
from eagle_jax.language_model.checkpoints.chat_template import ChatTemplate, read_chat_template


class TokenizerError(UserError):
    """A tokenizer's files are missing or cannot be read."""


class Tokenizer:
    """A `tokenizers.Tokenizer` with its padding, beginning and end tokens and its chat template.

    `eos_ids` are all tokens that end a text: the end token and what the checkpoint names beside
    it, such as the end of a chat's turn. Padding is carried by masks, so where a checkpoint names
    no padding token any id does (`pad_id` is then the end token or 0), and only tokens named as
    padding are dropped in `decode`.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        pad_token: str | None,
        bos_token: str | None,
        eos_token: str | None,
        more_eos_ids: Sequence[int] = (),
        chat_template: ChatTemplate | None = None,
    ):
        self.backend = backend
        self.pad_token, self.bos_token, self.eos_token = pad_token, bos_token, eos_token
        self.bos_id = self._known_id("bos_token", bos_token)
        self.eos_id = self._known_id("eos_token", eos_token)
        named_pad_id = self._known_id("pad_token", pad_token)
        self.eos_ids = tuple(sorted({self.eos_id, *more_eos_ids} - {None}))
        self.chat_template = chat_template
        self._dropped = {named_pad_id, self.bos_id, *self.eos_ids} - {None}
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

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of what a model is asked: the user's turn where there is a chat template, else text.

        Raises ChatTemplateError that names the folder.
        """
        return self._encode_prompt(text)[0].ids

    def encode_response(self, prompt: str, response: str) -> tuple[list[int], list[int]]:
        """Ids of the prompt as `encode_prompt` gives them, and of the response that follows it.

        Both texts are encoded together where the prompt's ids are the same then: many a tokenizer
        spells words within a text otherwise than at its beginning. Else each for itself.
        """
        encoding, rendered = self._encode_prompt(prompt)
        # What a template rendered has the beginning token already.
        adds_special = self.chat_template is None
        both = self.backend.encode(rendered + response, add_special_tokens=adds_special).ids
        if both[: len(encoding.ids)] == encoding.ids:
            return encoding.ids, both[len(encoding.ids) :]
        return encoding.ids, self.backend.encode(response, add_special_tokens=False).ids

    def prompt_offsets(self, text: str) -> list[tuple[int, int]]:
        """The characters [start, end) of `text` that each token of `encode_prompt` stands for.

        They lie outside of the text, or are none, for what the template or the tokenizer adds.
        """
        encoding, rendered = self._encode_prompt(text)
        # A template may strip the text that it is given.
        begin = rendered.find(text.strip()) - (len(text) - len(text.lstrip()))
        return [(start - begin, end - begin) for start, end in encoding.offsets]

    def _encode_prompt(self, text: str) -> tuple[tokenizers.Encoding, str]:
        if self.chat_template is None:
            return self.backend.encode(text), text
        # The template writes the beginning token itself.
        rendered = self.chat_template.render(text)
        return self.backend.encode(rendered, add_special_tokens=False), rendered

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
        template = self.chat_template
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **({} if template is None else template.special_tokens),
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
        if template is not None:
            config["chat_template"] = template.to_json()
        for name, text in (
            ("tokenizer.json", self.backend.to_str(pretty=True)),
            ("tokenizer_config.json", json.dumps(config, indent=2) + "\n"),
        ):
            write_atomically(Path(folder) / name, lambda file, text=text: file.write(text.encode()))


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """Reads tokenizer.json; special tokens from tokenizer_config.json, else the ids of config.json.

    All ids that config.json and generation_config.json call the end are ends.
    Raises TokenizerError naming the file, or ChatTemplateError.
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
    spelled = {
        role: token["content"] if isinstance(token, dict) else token
        for role, token in named.items()
        if role.endswith("_token") and isinstance(token, dict | str)
    }
    config = Path(folder) / "config.json"

    def special(role: str) -> str | None:
        ids = _token_ids(config, f"{role}_token_id")
        return spelled.get(f"{role}_token") or (backend.id_to_token(ids[0]) if ids else None)

    return Tokenizer(
        backend,
        pad_token=special("pad"),
        bos_token=special("bos"),
        eos_token=special("eos"),
        more_eos_ids=[
            token_id
            for path in (config, Path(folder) / "generation_config.json")
            for token_id in _token_ids(path, "eos_token_id")
        ],
        chat_template=read_chat_template(Path(folder), named.get("chat_template"), spelled),
    )


def _token_ids(path: Path, role: str) -> list[int]:
    """The id or ids that a JSON file gives a role; none where it says nothing."""
    value = _read_json(path).get(role)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if wrong := [token_id for token_id in ids if type(token_id) is not int or token_id < 0]:
        raise TokenizerError(f"{path}: {role} must be a token's number, got {wrong[0]!r}")
    return ids


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path}: not JSON: {error}") from error
