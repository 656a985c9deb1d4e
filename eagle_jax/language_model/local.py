"""Crosses the border between text and arrays: text from, and features by, a decoder in memory.

Axes: B texts, T tokens, N new tokens, D model width, F = 3 D features.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from eagle_jax.base.errors import UserError
from eagle_jax.base.prompts import Prompt
from eagle_jax.language_model.decoder_config import DecoderConfig
from eagle_jax.language_model.generation import Generation, SamplingSettings, cut_at_stop
from eagle_jax.language_model.hf_checkpoints import LanguageModel
from eagle_jax.language_model.sampling import sample
from eagle_jax.language_model.tokenizer import Tokenizer
from eagle_jax.language_model.transformer import Params, forward

_FEATURE_LENGTH_MULTIPLE = 32


class PromptTooLongError(UserError):
    """Prompt and new tokens do not fit the positions that the model was made for."""


def _identity(model: LanguageModel) -> str:
    digest = hashlib.sha256(repr(model.config).encode())
    for leaf in jax.tree.leaves(model.params):
        digest.update(np.asarray(leaf).tobytes())
    return f"{model.name}@{digest.hexdigest()[:16]}"


@dataclasses.dataclass(frozen=True, eq=False)
class LocalGenerator:
    """A `TextGenerator` that samples from a decoder in memory.

    Prompts are padded to multiples of length_multiple tokens and batches to powers of two, at most
    batch_size: few shapes, few compilations. Row i of a call draws from fold_in(key(seed), i).
    """

    model: LanguageModel
    batch_size: int
    length_multiple: int

    @functools.cached_property
    def name(self) -> str:
        """The model's name and a digest of its weights."""
        return _identity(self.model)

    def with_params(self, params: Params) -> LocalGenerator:
        """The same generator with other parameters; nothing is compiled again."""
        model = dataclasses.replace(self.model, params=params)
        return dataclasses.replace(self, model=model)

    def generate(
        self, prompts: Sequence[Prompt], sampling: SamplingSettings, seed: int
    ) -> list[Generation]:
        """One generation per prompt. Raises PromptTooLongError that names the lengths."""
        ids = [self.model.tokenizer.encode_prompt(prompt.text) for prompt in prompts]
        self._check_lengths(ids, sampling.max_new_tokens)
        generations: dict[int, Generation] = {}
        by_stop: dict[tuple[str, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            by_stop.setdefault(tuple(prompt.stop), []).append(row)
        for stop, rows in by_stop.items():
            for start in range(0, len(rows), self.batch_size):
                batch_rows = rows[start : start + self.batch_size]
                batch_ids = [ids[row] for row in batch_rows]
                made = self._generate_batch(batch_rows, batch_ids, stop, sampling, seed)
                generations.update(zip(batch_rows, made, strict=True))
        return [generations[row] for row in range(len(prompts))]

    def _check_lengths(self, ids: list[list[int]], max_new_tokens: int) -> None:
        limit = self.model.config.max_position_embeddings
        for row, row_ids in enumerate(ids):
            if not row_ids:
                raise UserError(f"prompt {row} has no tokens; there is nothing to continue")
            if len(row_ids) + max_new_tokens > limit:
                raise PromptTooLongError(
                    f"prompt {row} has {len(row_ids)} tokens; with {max_new_tokens} new tokens it "
                    f"exceeds the {limit} positions of {self.model.name}"
                )

    def _generate_batch(
        self,
        rows: list[int],
        ids: list[list[int]],
        stop: tuple[str, ...],
        sampling: SamplingSettings,
        seed: int,
    ) -> list[Generation]:
        tokenizer = self.model.tokenizer
        stop_ids = {tokenizer.token_id(string) for string in stop} | {*tokenizer.eos_ids}
        stop_ids.discard(None)
        padding = _bucket(len(rows), self.batch_size) - len(rows)
        tokens, mask = tokenizer.left_pad(ids + [[]] * padding, self.length_multiple)
        output = sample(
            self.model.config,
            self.model.params,
            tokens,
            mask,
            _row_keys(jax.random.key(seed), np.array(rows + [0] * padding, np.uint32)),
            temperature=np.float32(sampling.temperature),
            top_p=np.float32(sampling.top_p),
            stop_token_ids=np.array(sorted(stop_ids), np.int32),
            max_new_tokens=sampling.max_new_tokens,
        )
        output = jax.device_get(output)
        lengths = output.mask.sum(axis=1)
        return [
            _to_generation(
                tokenizer,
                output.tokens[row, : lengths[row]].tolist(),
                output.log_probs[row, : lengths[row]].tolist(),
                stop,
                bool(output.stopped[row]),
            )
            for row in range(len(rows))
        ]


@jax.jit
def _row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


def _bucket(count: int, batch_size: int) -> int:
    """The next power of two, at most batch_size."""
    return min(1 << (count - 1).bit_length(), batch_size)


def _to_generation(
    tokenizer: Tokenizer,
    ids: list[int],
    log_probs: list[float],
    stop: tuple[str, ...],
    stopped: bool,
) -> Generation:
    """Cuts text at the first stop string and the tokens behind the one that completes it."""
    text, found = cut_at_stop(tokenizer.decode(ids), stop)
    if found:
        # A stop string of several tokens did not stop the loop, so tokens may follow it.
        complete = next(
            end
            for end in itertools.count(1)
            if cut_at_stop(tokenizer.decode(ids[:end]), stop)[1] or end == len(ids)
        )
        ids, log_probs = ids[:complete], log_probs[:complete]
    return Generation(
        text=text,
        token_ids=tuple(ids),
        log_probs=tuple(log_probs),
        stop_reason="stop" if found or stopped else "length",
    )


@dataclasses.dataclass(frozen=True, eq=False)
class LocalFeatures:
    """Features [B, F] of texts: token means of the embeddings, the middle and the last layer.

    Texts longer than the model's positions are cut there, with a warning that counts them.
    """

    model: LanguageModel
    batch_size: int

    @functools.cached_property
    def name(self) -> str:
        """The model's name and a digest of its weights."""
        return _identity(self.model)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [B, 3 D]. Raises UserError for a text without tokens."""
        limit = self.model.config.max_position_embeddings
        ids = [self.model.tokenizer.encode(text) for text in texts]
        if empty := [row for row, row_ids in enumerate(ids) if not row_ids]:
            raise UserError(f"text {empty[0]} has no tokens, so it has no features")
        if too_long := sum(len(row_ids) > limit for row_ids in ids):
            logging.warning(
                "%d of %d texts have more tokens than the %d positions of %s and are cut",
                too_long, len(ids), limit, self.model.name,
            )  # fmt: skip
        features = np.zeros((len(ids), 3 * self.model.config.hidden_size), np.float32)
        # Texts of like length share a batch: little padding.
        by_length = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        for start in range(0, len(ids), self.batch_size):
            rows = by_length[start : start + self.batch_size]
            padding = _bucket(len(rows), self.batch_size) - len(rows)
            tokens, mask = self.model.tokenizer.right_pad(
                [ids[row][:limit] for row in rows] + [[]] * padding, _FEATURE_LENGTH_MULTIPLE
            )
            means = _mean_states(self.model.config, self.model.params, tokens, mask)
            features[rows] = np.asarray(means)[: len(rows)]
        return features


@functools.partial(jax.jit, static_argnames="config")
def _mean_states(
    config: DecoderConfig, params: Params, tokens: jax.Array, mask: jax.Array
) -> jax.Array:
    """[B, T] -> [B, 3 D]: mask-means of hidden states 0, L // 2 and L."""
    states = forward(config, params, tokens, mask).hidden_states
    chosen = states[jnp.array([0, config.num_layers // 2, config.num_layers])]
    weights = mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    return jnp.einsum("sbtd,bt->bsd", chosen, weights).reshape(len(tokens), -1)
