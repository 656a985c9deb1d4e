"""Crosses the border between text and arrays: text from, and features by, a decoder in memory.

Axes: B texts, T tokens, N new tokens, D model width, F = 3 D features.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import Prompt
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params, forward
from eagle_jax.language_model.generation import Generation, SamplingSettings, chat_answer, cut_at_stop
from eagle_jax.language_model.prompt_tokens import PromptTooLongError, cut_tokens, splice_placeholders
from eagle_jax.language_model.sampling.batch import sample_batch
from eagle_jax.language_model.sampling.sampling import SampleOutput
from eagle_jax.language_model.sharding import fetch, on_mesh_of

_FEATURE_LENGTH_MULTIPLE = 32
_FEW_ROWS = 16  # of a batch that takes no longer than to compile another shape


def identity(model: LanguageModel) -> str:
    """The model's name and a digest of its weights."""
    unsaid = [field for field in dataclasses.fields(model.config) if not field.repr]
    values = {field.name: getattr(model.config, field.name) for field in unsaid}
    more = {field.name: values[field.name] for field in unsaid if values[field.name] != field.default}
    digest = hashlib.sha256(f"{model.config}{more or ''}".encode())
    for leaf in jax.tree.leaves(model.params):
        digest.update(fetch(leaf).tobytes())
    return f"{model.name}@{digest.hexdigest()[:16]}"


@dataclasses.dataclass(frozen=True, eq=False)
class LocalGenerator:
    """A `TextGenerator` that samples from a decoder in memory.

    Prompts are padded to multiples of length_multiple tokens, batches to powers of four up to 16 rows and of two
    above, at most batch_size: few shapes, few compilations, each of which may take longer than a small batch. What
    prompts of a batch begin with alike is read once.
    Row i of a call draws from fold_in(key(seed), i).
    """

    model: LanguageModel
    batch_size: int
    length_multiple: int

    @functools.cached_property
    def name(self) -> str:
        """The model's name and a digest of its weights."""
        return identity(self.model)

    def with_params(self, params: Params) -> LocalGenerator:
        """The same generator with other parameters; nothing is compiled again."""
        model = dataclasses.replace(self.model, params=params)
        return dataclasses.replace(self, model=model)

    def generate(self, prompts: Sequence[Prompt], sampling: SamplingSettings, seed: int) -> list[Generation]:
        """One generation per prompt; prompts that are too long are cut, counted in a warning.

        Raises PromptTooLongError that names the lengths where that is not enough.
        """
        ids = [self.model.tokenizer.encode_prompt(prompt.text + prompt.answer_start) for prompt in prompts]
        return self._generate(prompts, ids, np.zeros((0, 0)), sampling, seed)

    def generate_spliced(
        self,
        prompts: Sequence[Prompt],
        embeddings: Sequence[np.ndarray],
        placeholder: str,
        sampling: SamplingSettings,
        seed: int,
    ) -> list[Generation]:
        """`generate` where placeholders, a token each, stand for vectors in token-embedding space.

        embeddings[i] [number of placeholders in prompt i, D], in their order. Raises UserError that
        names the prompt where counts or widths differ.
        """
        tokenizer, vocab = self.model.tokenizer, self.model.config.vocab_size
        placeholder_id = tokenizer.token_id(placeholder)
        if placeholder_id is None:
            raise UserError(f"placeholder {placeholder!r} is not one token of {self.model.name}")
        # A vector becomes a token behind the vocabulary: equal vectors are equal tokens.
        numbers: dict[bytes, int] = {}
        table: list[np.ndarray] = []
        ids = []
        for row, (prompt, vectors) in enumerate(zip(prompts, embeddings, strict=True)):
            spliced = []
            for vector in np.asarray(vectors, np.float32):
                if vector.shape != (self.model.config.hidden_size,):
                    raise UserError(
                        f"prompt {row}: an embedding of shape {vector.shape}, but the tokens of "
                        f"{self.model.name} have {self.model.config.hidden_size} coordinates"
                    )
                number = numbers.setdefault(vector.tobytes(), vocab + len(table))
                if number == vocab + len(table):
                    table.append(vector)
                spliced.append(number)
            row_ids = tokenizer.encode_prompt(prompt.text)
            ids.append(splice_placeholders(row_ids, placeholder_id, spliced, row))
        return self._generate(prompts, ids, np.array(table), sampling, seed)

    def _generate(
        self,
        prompts: Sequence[Prompt],
        ids: list[list[int]],
        vectors: np.ndarray,
        sampling: SamplingSettings,
        seed: int,
    ) -> list[Generation]:
        ids = self._cut(prompts, ids, sampling.max_new_tokens)
        generations: dict[int, Generation] = {}
        by_stop: dict[tuple[str, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            by_stop.setdefault(tuple(map(self._written, prompt.stop)), []).append(row)
        for stop, rows in by_stop.items():
            rows.sort(key=ids.__getitem__)  # prompts that begin alike share a batch
            for start in range(0, len(rows), self.batch_size):
                batch_rows = rows[start : start + self.batch_size]
                output = self._sample(batch_rows, ids, vectors, stop, sampling, seed)
                for index, row in enumerate(batch_rows):
                    made = _to_generation(self.model.tokenizer, output, index, stop)
                    generations[row] = dataclasses.replace(
                        made, text=self._said(made.text, prompts[row], ids[row]), prompt_token_ids=tuple(ids[row])
                    )
        return [generations[row] for row in range(len(prompts))]

    def _written(self, stop: str) -> str:
        """A stop string as the tokenizer writes it: one without # makes END_ACTION of #END_ACTION, for prompts too."""
        written = self.model.tokenizer.decode(self.model.tokenizer.encode(stop))
        text = written.strip()
        is_part = stop not in written and text in stop and 2 * len(text) > len(stop)
        return text if is_part else stop

    def _said(self, text: str, prompt: Prompt, ids: Sequence[int]) -> str:
        """The text behind the start of its answer, or what is an answer in it where its model chats."""
        text = prompt.answer_start.lstrip() + text
        if self.model.tokenizer.chat_template is None:
            return text
        # The template of a model that always thinks opens the thoughts itself.
        is_thinking = self.model.tokenizer.decode(ids[-8:]).rstrip().endswith("<think>")
        return chat_answer(f"<think>{text}" if is_thinking else text, prompt.opening)

    def _cut(self, prompts: Sequence[Prompt], ids: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Ids that leave room for the new tokens."""
        limit = self.model.config.max_position_embeddings
        kept, num_cut = [], []
        for row, (prompt, row_ids) in enumerate(zip(prompts, ids, strict=True)):
            if not row_ids:
                raise UserError(f"prompt {row} has no tokens; there is nothing to continue")
            num_cut.append(max(0, len(row_ids) + max_new_tokens - limit))
            try:
                kept.append(cut_tokens(self.model.tokenizer, prompt, row_ids, num_cut[-1]))
            except PromptTooLongError as error:
                raise PromptTooLongError(
                    f"prompt {row} has {len(row_ids)} tokens; with {max_new_tokens} new tokens it "
                    f"exceeds the {limit} positions of {self.model.name}: {error}"
                ) from error
        if sum(num_cut):
            logging.warning(
                "%d of %d prompts are too long for the %d positions of %s with %d new tokens: "
                "%d tokens are cut from the blocks that their tasks name",
                np.count_nonzero(num_cut),
                len(prompts),
                limit,
                self.model.name,
                max_new_tokens,
                sum(num_cut),
            )
        return kept

    def _sample(
        self,
        rows: list[int],
        ids: list[list[int]],
        vectors: np.ndarray,
        stop: tuple[str, ...],
        sampling: SamplingSettings,
        seed: int,
    ) -> SampleOutput:
        """One batch: stop strings of one token end rows as they are drawn, others now and then."""
        tokenizer = self.model.tokenizer
        stop_ids = {tokenizer.token_id(string) for string in stop} | set(tokenizer.eos_ids)
        is_complete = None
        if None in stop_ids:
            is_complete = lambda tokens: cut_at_stop(tokenizer.decode(tokens), stop)[1]  # noqa: E731
        base = 4 if len(rows) <= _FEW_ROWS else 2
        padding = _bucket(len(rows), self.batch_size, base) - len(rows)
        return sample_batch(
            self.model,
            [ids[row] for row in rows],
            vectors,
            _row_keys(jax.random.key(seed), np.array(rows + [0] * padding, np.uint32)),
            sampling,
            sorted(stop_ids - {None}),
            is_complete,
            self.length_multiple,
        )


@jax.jit
def _row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


def _bucket(count: int, batch_size: int, base: int = 2) -> int:
    """The next power of the base, at most batch_size."""
    bucket = 1
    while bucket < count:
        bucket *= base
    return min(bucket, batch_size)


def _to_generation(tokenizer: Tokenizer, output: SampleOutput, row: int, stop: tuple[str, ...]) -> Generation:
    """Cuts text at the first stop string and the tokens behind the one that completes it."""
    length = int(output.mask[row].sum())
    ids = output.tokens[row, :length].tolist()
    text, found = cut_at_stop(tokenizer.decode(ids), stop)
    if found:
        length = 1 + bisect.bisect_left(
            range(1, length), True, key=lambda end: cut_at_stop(tokenizer.decode(ids[:end]), stop)[1]
        )
    return Generation(
        text=text,
        token_ids=tuple(ids[:length]),
        log_probs=tuple(output.log_probs[row, :length].tolist()),
        stop_reason="stop" if found or output.stopped[row] else "length",
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
        return identity(self.model)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [B, 3 D]. Raises UserError for a text without tokens."""
        limit = self.model.config.max_position_embeddings
        ids = [self.model.tokenizer.encode(text) for text in texts]
        if empty := [row for row, row_ids in enumerate(ids) if not row_ids]:
            raise UserError(f"text {empty[0]} has no tokens, so it has no features")
        if too_long := sum(len(row_ids) > limit for row_ids in ids):
            logging.warning(
                "%d of %d texts have more tokens than the %d positions of %s and are cut",
                too_long,
                len(ids),
                limit,
                self.model.name,
            )
        features = np.zeros((len(ids), 3 * self.model.config.hidden_size), np.float32)
        kept = [row_ids[:limit] for row_ids in ids]
        for rows, tokens, mask in batches_by_length(self.model.tokenizer, kept, self.batch_size):
            with on_mesh_of(self.model.params):
                means = _mean_states(self.model.config, self.model.params, tokens, mask)
                features[rows] = fetch(means)[: len(rows)]
        return features


def batches_by_length(
    tokenizer: Tokenizer, ids: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """The rows, tokens [B, T] and mask [B, T] of one batch after the other, padded on the right.

    Texts of like length share a batch: little padding. B is a power of two, at most batch_size,
    and may be more than there are rows; T is a multiple of 32: few shapes.
    """
    by_length = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for start in range(0, len(ids), batch_size):
        rows = by_length[start : start + batch_size]
        padding = _bucket(len(rows), batch_size) - len(rows)
        batch_ids = [ids[row] for row in rows] + [[]] * padding
        yield rows, *tokenizer.right_pad(batch_ids, _FEATURE_LENGTH_MULTIPLE)


@functools.partial(jax.jit, static_argnames="config")
def _mean_states(config: DecoderConfig, params: Params, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """[B, T] -> [B, 3 D]: mask-means of hidden states 0, L // 2 and L."""
    states = forward(config, params, tokens, mask).hidden_states
    chosen = states[jnp.array([0, config.num_layers // 2, config.num_layers])]
    weights = mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    return jnp.einsum("sbtd,bt->bsd", chosen, weights).reshape(len(tokens), -1)
