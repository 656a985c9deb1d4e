"""Crosses the border between text and arrays: prompts with vectors in them become batches.

Axes: B batch, T tokens, S slots of a kind in a prompt, d domain width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import Prompt
from eagle_jax.data.tasks import PLACEHOLDERS
from eagle_jax.elm.model.adapter import EmbeddingError, check_embeddings
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class EmbeddedPrompt:
    """A prompt and (kind, vector [d]) for each placeholder in its text, in their order."""

    prompt: Prompt
    embeddings: tuple[tuple[str, np.ndarray], ...]


class EmbeddedBatch(NamedTuple):
    """Right-padded tokens, what is real, how much each token counts as a target, all [B, T], and
    the embeddings: vectors[kind] [B, S, d], zeros behind a prompt's own.

    slots [B, T]: which of a prompt's vectors stands for the token, numbered over all kinds in
    alphabetical order, S numbers each; -1: the token stands for itself.
    """

    tokens: np.ndarray
    mask: np.ndarray
    loss_weights: np.ndarray
    vectors: dict[str, np.ndarray]
    slots: np.ndarray


def encode_embedded(
    tokenizer: Tokenizer,
    widths: Mapping[str, int],
    prompts: Sequence[EmbeddedPrompt],
    completions: Sequence[str | Sequence[int]],
    *,
    length_multiple: int,
    slot_multiple: int,
) -> EmbeddedBatch:
    """Prompts and completions (texts, or the token ids that were sampled) as one batch.

    A completion's tokens count 1 as targets, a prompt's not at all.
    T and S are multiples: prompts with few and many embeddings share a shape. widths: d by kind.
    Raises UserError that names the prompt.
    """
    kinds = sorted(widths)
    ids = kind_of_id(tokenizer, kinds)
    rows = [
        _encode_row(tokenizer, prompt.prompt.text, completion)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    found = [
        own_vectors(prompt, [ids[i] for i in row_ids if i in ids], widths, row)
        for row, (prompt, (row_ids, _)) in enumerate(zip(prompts, rows, strict=True))
    ]
    most = max((len(vectors) for by_kind in found for vectors in by_kind.values()), default=0)
    num_slots = max(1, -(-most // slot_multiple)) * slot_multiple
    tokens, mask = tokenizer.right_pad([a + b for a, b in rows], length_multiple)
    weights = np.where(mask, np.float32(1.0), np.float32(0.0))
    slots = np.full(tokens.shape, -1, np.int32)
    vectors = {k: np.zeros((len(rows), num_slots, widths[k]), np.float32) for k in kinds}
    for row, (prompt_ids, _) in enumerate(rows):
        weights[row, : len(prompt_ids)] = 0.0
        for number, kind in enumerate(kinds):
            kind_vectors = found[row][kind]
            places = [place for place, i in enumerate(prompt_ids) if ids.get(i) == kind]
            slots[row, places] = number * num_slots + np.arange(len(places))
            count = len(kind_vectors)
            vectors[kind][row, :count] = np.reshape(kind_vectors, (count, widths[kind]))
    return EmbeddedBatch(tokens, mask, weights, vectors, slots)


def kind_of_id(tokenizer: Tokenizer, kinds: Sequence[str]) -> dict[int, str]:
    """Token id of each kind's placeholder -> the kind."""
    kinds_by_id = {tokenizer.token_id(PLACEHOLDERS[kind]): kind for kind in kinds}
    if None in kinds_by_id:
        raise UserError(
            f"the tokenizer lacks the placeholder {PLACEHOLDERS[kinds_by_id[None]]!r} of "
            f"{kinds_by_id[None]} embeddings: add it by with_placeholders"
        )
    return kinds_by_id


def _encode_row(tokenizer: Tokenizer, prompt: str, completion: str | Sequence[int]) -> tuple[list[int], list[int]]:
    if isinstance(completion, str):
        return tokenizer.encode_response(prompt, completion)
    return tokenizer.encode_prompt(prompt), list(completion)


def own_vectors(
    prompt: EmbeddedPrompt, kinds_in_text: list[str], widths: Mapping[str, int], row: int
) -> dict[str, list[np.ndarray]]:
    """The vectors of each kind in their order; they must be those that the text has room for."""
    given = [kind for kind, _ in prompt.embeddings]
    if given != kinds_in_text:
        names = (", ".join(kinds) or "none" for kinds in (kinds_in_text, given))
        raise EmbeddingError(
            "prompt {}: its text has placeholders for the embeddings {}, given are {}".format(row, *names)
        )
    by_kind: dict[str, list[np.ndarray]] = {kind: [] for kind in widths}
    for number, (kind, vector) in enumerate(prompt.embeddings):
        vector = np.asarray(vector, np.float32)
        named = f"prompt {row}, embedding {number} ({kind})"
        if vector.ndim != 1:
            raise EmbeddingError(f"{named}: expected one vector [d], got shape {vector.shape}")
        check_embeddings(vector[None], widths[kind], named)
        by_kind[kind].append(vector)
    return by_kind
