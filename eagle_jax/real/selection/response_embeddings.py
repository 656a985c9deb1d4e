"""Crosses the border between text and arrays: embeddings of responses, for REAL's pair selection.

A response is embedded by itself, without its prompt (REAL, arXiv 2409.17169, section 3), by the
language model that is to be trained or by a sentence encoder; both are called alike.

Axes: B responses, T tokens, D width of an embedding.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from eagle_jax.base.errors import UserError
from eagle_jax.embeddings.sentences.encoder import SentenceEncoder
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params, forward
from eagle_jax.language_model.sampling.local import batches_by_length, identity
from eagle_jax.language_model.sharding import fetch, on_mesh_of

# Ours -> as sentence-transformers calls it.
_ENCODER_POOLINGS = {"mean": "mean", "last": "lasttoken", "cls": "cls"}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class DecoderEmbeddings:
    """Responses -> pooled states of a decoder's last layer, after its final norm.

    pooling: "mean" of the response's tokens or its "last" one. What the tokenizer adds, such as a
        beginning token, is read and not pooled: it is the same for every response. A decoder's
        first state ("cls") has seen nothing of what follows it, so that it is refused.
    with_prompt: the prompt is read before the response; its tokens are not pooled either.
    max_tokens: of prompt and response, at most the model's positions. A response beyond them loses
        its end, a prompt its beginning, each counted in a warning.
    batch_size: the most responses computed at once.
    """

    model: LanguageModel
    pooling: str
    with_prompt: bool
    max_tokens: int
    batch_size: int

    def __post_init__(self):
        if self.pooling == "cls":
            raise UserError(
                f"pooling 'cls' means nothing with the decoder {self.model.name}: its first token "
                "sees no token of the response behind it; use 'mean' or 'last', or 'cls' with a "
                "sentence encoder"
            )
        if self.pooling not in ("mean", "last"):
            raise UserError(f"pooling {self.pooling!r} is not known; expected 'mean' or 'last'")
        if self.max_tokens < 2:  # a beginning token and one of the response
            raise UserError(f"max_tokens must be at least 2, got {self.max_tokens}")

    @functools.cached_property
    def name(self) -> str:
        """The model, a digest of its weights and all that decides the embeddings."""
        read = "prompt and response" if self.with_prompt else "response"
        return f"{identity(self.model)} {self.pooling} of {read}, {self.max_tokens} tokens"

    def with_params(self, params: Params) -> DecoderEmbeddings:
        """The same embeddings under other parameters; nothing is compiled again."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, params=params))

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """float32 [B, D]. Raises UserError that names the row of a response without tokens."""
        ids, starts = self._encode(prompts, responses)
        embeddings = np.zeros((len(ids), self.model.config.hidden_size), np.float32)
        for rows, tokens, mask in batches_by_length(self.model.tokenizer, ids, self.batch_size):
            weights = np.zeros(mask.shape, np.float32)
            for place, row in enumerate(rows):
                start, end = starts[row], len(ids[row])
                start = end - 1 if self.pooling == "last" else start
                weights[place, start:end] = 1.0 / (end - start)
            with on_mesh_of(self.model.params):
                states = _pooled_states(self.model.config, self.model.params, tokens, mask, weights)
            embeddings[rows] = fetch(states)[: len(rows)]
        return embeddings

    def _encode(self, prompts, responses) -> tuple[list[list[int]], list[int]]:
        """The ids that are read, and where the response begins in them."""
        limit = min(self.max_tokens, self.model.config.max_position_embeddings)
        tokenizer = self.model.tokenizer
        ids, starts = [], []
        num_cut, num_cut_prompts = 0, 0
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            if self.with_prompt:
                before, after = tokenizer.encode_response(prompt, response)
            else:
                before, after = _encode_alone(tokenizer, response)
            if not after:
                raise UserError(f"response {row} has no tokens, so it has no embedding")
            begin = before[:1] if before and before[0] == tokenizer.bos_id else []
            kept = after[: limit - len(begin)]
            room = limit - len(begin) - len(kept)
            context = before[len(begin) :]
            num_cut += len(kept) < len(after)
            num_cut_prompts += len(context) > room
            context = context[max(0, len(context) - room) :]
            starts.append(len(begin) + len(context))
            ids.append([*begin, *context, *kept])
        if num_cut or num_cut_prompts:
            logging.warning(
                "of %d responses to embed by %s %d lose their end and %d prompts their beginning: "
                "together they have more than %d tokens",
                len(ids),
                self.model.name,
                num_cut,
                num_cut_prompts,
                limit,
            )
        return ids, starts


def _encode_alone(tokenizer: Tokenizer, response: str) -> tuple[list[int], list[int]]:
    """What the tokenizer adds before a text, and the text's own ids."""
    encoding = tokenizer.backend.encode(response)
    is_added = encoding.special_tokens_mask
    text_ids = [token for token, added in zip(encoding.ids, is_added, strict=True) if not added]
    start = is_added.index(0) if text_ids else 0
    return encoding.ids[:start], text_ids


@functools.partial(jax.jit, static_argnames="config")
def _pooled_states(
    config: DecoderConfig, params: Params, tokens: jax.Array, mask: jax.Array, weights: jax.Array
) -> jax.Array:
    """tokens, mask, weights [B, T] -> float32 [B, D]: weighted sums of the last hidden states."""
    states = forward(config, params, tokens, mask).hidden_states[-1].astype(jnp.float32)
    return jnp.einsum("btd,bt->bd", states, weights)


@dataclasses.dataclass(frozen=True, eq=False)
class EncoderEmbeddings:
    """Responses -> embeddings by a sentence encoder, which never reads the prompt."""

    encoder: SentenceEncoder

    @property
    def name(self) -> str:
        """The encoder's name and a digest of all that decides the embeddings."""
        return self.encoder.name

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """float32 [B, D]. Raises UserError that names the row of a response without tokens."""
        if len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts and {len(responses)} responses")
        if empty := [row for row, response in enumerate(responses) if not response.strip()]:
            raise UserError(f"response {empty[0]} is empty, so it has no embedding")
        return self.encoder(responses)


def with_pooling(encoder: SentenceEncoder, pooling: str) -> SentenceEncoder:
    """The encoder with the pooling "mean", "last" or "cls" in place of its own, which "own" keeps."""
    if pooling == "own":
        return encoder
    if pooling not in _ENCODER_POOLINGS:
        raise UserError(f"pooling {pooling!r} is not known; expected own, {', '.join(_ENCODER_POOLINGS)}")
    config = dataclasses.replace(encoder.config, pooling_modes=(_ENCODER_POOLINGS[pooling],))
    return dataclasses.replace(encoder, config=config)
