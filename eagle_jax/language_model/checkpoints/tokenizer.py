"""Text to token ids and back, by the `tokenizers` library and the special tokens of a checkpoint.

Axes: B texts, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from absl import logging

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.tensor_files import read_json
from eagle_jax.embeddings.sentences.tokenizer_files import TokenizerError, read_tokenizer
from eagle_jax.language_model.checkpoints.chat_template import ChatTemplate

# Files that would go before those that we write.
_OLDER_FILES = (
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)


class Tokenizer:
    """A `tokenizers.Tokenizer` with its padding, beginning and end tokens and its chat template.

    `eos_ids` are all tokens that end a text: the end token and what the checkpoint names beside
    it, such as the end of a chat's turn. Padding is carried by masks, so where a checkpoint names
    no padding token, or one beyond the embedding's `num_embeddings` rows, any id does (`pad_id` is
    then the end token or 0), and only tokens named as padding are dropped in `decode`. Encoding
    raises TokenizerError for a text with another token that has no row.
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
        num_embeddings: int | None = None,
    ):
        self.backend = backend
        vocabulary = {} if num_embeddings is None else backend.get_vocab()
        self._unreadable = {i: token for token, i in vocabulary.items() if i >= num_embeddings}
        self._check_unreadable(num_embeddings)
        self.pad_token, self.bos_token, self.eos_token = pad_token, bos_token, eos_token
        self.bos_id = self._known_id("bos_token", bos_token)
        self.eos_id = self._known_id("eos_token", eos_token)
        named_pad_id = self._known_id("pad_token", pad_token)
        self.eos_ids = tuple(sorted({self.eos_id, *more_eos_ids} - {None}))
        self.chat_template = chat_template
        self._dropped = {named_pad_id, self.bos_id, *self.eos_ids} - {None}
        candidates = (named_pad_id, self.eos_id, 0)
        self.pad_id = next(i for i in candidates if i is not None and i not in self._unreadable)

    def _check_unreadable(self, num_embeddings: int | None) -> None:
        """All tokens need an embedding, but special ones such as Gemma 3 1B's of images."""
        added = self.backend.get_added_tokens_decoder()
        if any(i not in added or not added[i].special for i in self._unreadable):
            raise TokenizerError(
                f"the tokenizer has {self.vocab_size} tokens, the model's vocab_size is only {num_embeddings}"
            )
        if self._unreadable:
            tokens = ", ".join(self._unreadable.values())
            logging.warning("The model has no embedding of the special tokens %s", tokens)

    def _known_id(self, role: str, token: str | None) -> int | None:
        if token is None:
            return None
        token_id = self.backend.token_to_id(token)
        if token_id is None:
            raise TokenizerError(f"{role} {token!r} is not in the vocabulary of the tokenizer")
        if token_id in self._unreadable and role != "pad_token":
            raise TokenizerError(f"{role} {token!r} is token {token_id}, which has no embedding")
        return token_id

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids of the text, with the beginning token if the tokenizer's post-processor adds one."""
        return self._encode(text).ids

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of what a model is asked: as the chat template renders it where there is one.

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
        both = self._encode(rendered + response, adds_special).ids
        if both[: len(encoding.ids)] == encoding.ids:
            return encoding.ids, both[len(encoding.ids) :]
        return encoding.ids, self._encode(response, False).ids

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
            return self._encode(text), text
        # The template writes the beginning token itself.
        rendered = self.chat_template.render(text)
        return self._encode(rendered, False), rendered

    def _encode(self, text: str, adds_special: bool = True) -> tokenizers.Encoding:
        encoding = self.backend.encode(text, add_special_tokens=adds_special)
        if self._unreadable and (found := self._unreadable.keys() & set(encoding.ids)):
            tokens = ", ".join(repr(self._unreadable[i]) for i in sorted(found))
            raise TokenizerError(f"the model has no embedding of {tokens} in {text!r:.80}")
        return encoding

    def decode(self, ids: Sequence[int]) -> str:
        """Text without padding, beginning and end tokens; markers such as `#END_PLOT` are kept."""
        kept = [int(token_id) for token_id in ids if int(token_id) not in self._dropped]
        return self.backend.decode(kept, skip_special_tokens=False)

    def token_id(self, token: str) -> int | None:
        """Id of one token as the vocabulary spells it, None if it is not one token."""
        return self.backend.token_to_id(token)

    def left_pad(self, ids: Sequence[Sequence[int]], multiple: int) -> tuple[np.ndarray, np.ndarray]:
        """tokens [B, T] int32 and mask [B, T], T a multiple, the text at the end."""
        return self._pad(ids, multiple, left=True)

    def right_pad(self, ids: Sequence[Sequence[int]], multiple: int) -> tuple[np.ndarray, np.ndarray]:
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
        roles = {"pad_token": self.pad_token, "bos_token": self.bos_token, "eos_token": self.eos_token}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **({} if template is None else template.special_tokens),
            **{role: token for role, token in roles.items() if token is not None},
        }
        if self.backend.encode_special_tokens:  # tokenizer.json does not say it
            config["split_special_tokens"] = True
        if template is not None:
            config["chat_template"] = template.to_json()
        for name, text in (
            ("tokenizer.json", self.backend.to_str(pretty=True)),
            ("tokenizer_config.json", json.dumps(config, indent=2) + "\n"),
        ):
            write_atomically(Path(folder) / name, lambda file, text=text: file.write(text.encode()))
        for pattern in _OLDER_FILES:
            for path in Path(folder).glob(pattern):
                path.unlink(missing_ok=True)


def load_tokenizer(folder: Path | str, num_embeddings: int | None = None) -> Tokenizer:
    """Reads a folder's tokenizer for a model with so many embeddings; None: as many as tokens.

    Special tokens that no file of the tokenizer names are those whose ids config.json gives. All
    ids that config.json and generation_config.json call the end are ends.
    Raises TokenizerError or CheckpointError that names the file, or ChatTemplateError.
    """
    folder = Path(folder)
    theirs = read_tokenizer(folder)
    backend = theirs.backend_tokenizer
    config = folder / "config.json"

    def special(role: str) -> str | None:
        ids = _token_ids(config, f"{role}_token_id")
        return getattr(theirs, f"{role}_token") or (backend.id_to_token(ids[0]) if ids else None)

    template = None
    if theirs.chat_template is not None:
        template = ChatTemplate(folder, theirs.chat_template, theirs.special_tokens_map)
    named = {f"{role}_token": special(role) for role in ("pad", "bos", "eos")}
    ends = [
        token_id
        for path in (config, folder / "generation_config.json")
        for token_id in _token_ids(path, "eos_token_id")
    ]
    try:
        return Tokenizer(backend, **named, more_eos_ids=ends, chat_template=template, num_embeddings=num_embeddings)
    except TokenizerError as error:
        raise TokenizerError(f"{folder / 'tokenizer.json'}: {error}") from error


def _token_ids(path: Path, role: str) -> list[int]:
    """The id or ids that a JSON file gives a role; none where it says nothing, or -1."""
    value = read_json(path).get(role) if path.is_file() else None
    ids = value if isinstance(value, list) else [] if value in (None, -1) else [value]
    for token_id in ids:
        if type(token_id) is not int or not 0 <= token_id < 2**31:
            raise TokenizerError(f"{path}: {role} must be a token's number, got {token_id!r:.80}")
    return ids
