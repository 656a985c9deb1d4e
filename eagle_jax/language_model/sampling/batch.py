"""Crosses the border between text and arrays: a batch of prompts, as token ids, is continued.

What several prompts begin with is read once. Axes: U beginnings, B batch, T tokens, M vectors,
D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.decoder.attention import KeyValue
from eagle_jax.language_model.decoder.transformer import SoftEmbeddings
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.sampling.sampling import (
    SampleOutput,
    SamplingState,
    continue_sampling,
    prefill_shared,
    sampled,
    start_sampling,
)
from eagle_jax.language_model.sampling.shared_prefixes import split_prompts
from eagle_jax.language_model.sampling.token_drawing import drawing_of
from eagle_jax.language_model.sharding import fetch, on_mesh_of

_CHUNK = 16  # tokens drawn between two looks at what has been written


def sample_batch(
    model: LanguageModel,
    prompts: Sequence[list[int]],
    vectors: np.ndarray,
    keys: jax.Array,
    sampling: SamplingSettings,
    stop_token_ids: Sequence[int],
    is_complete: Callable[[list[int]], bool] | None,
    length_multiple: int,
) -> SampleOutput:
    """Continues at most B prompts by keys [B], as NumPy arrays; rows without a prompt are empty.

    A token v >= vocab_size stands for vectors[v - vocab_size] [M, D]. Rows end at a stop token or,
    where stop tokens do not tell, when is_complete(tokens so far); tokens may follow in that case.
    """
    drawing = drawing_of(sampling, stop_token_ids)
    limit = sampling.max_new_tokens
    chunk = limit if is_complete is None else _CHUNK
    count = min(chunk, limit)
    seen = None
    if sampling.repetition_penalty != 1:
        seen = np.zeros((len(keys), model.config.vocab_size), bool)
        for row, ids in enumerate(prompts):
            seen[row, [token_id for token_id in ids if token_id < model.config.vocab_size]] = True
    with on_mesh_of(model.params):
        state, shared = _start(model, prompts, vectors, keys, drawing, seen, limit, length_multiple)
    while True:
        with on_mesh_of(model.params):
            state = continue_sampling(model.config, model.params, state, keys, drawing, np.int32(count), shared)
            output, done = fetch((sampled(state), state.done))
        if count >= limit:
            return output
        done = done | [
            not has_ended and is_complete(tokens[mask].tolist())
            for tokens, mask, has_ended in zip(output.tokens, output.mask, done, strict=True)
        ]
        if done.all():
            return output._replace(stopped=done & output.mask.any(axis=1))
        state = state._replace(done=done)
        count = min(count + chunk, limit)


def _start(
    model, prompts, vectors, keys, drawing, seen, max_new_tokens, multiple
) -> tuple[SamplingState, tuple[KeyValue, ...] | None]:
    """The batch after its prompts have been read and one token been drawn, and what all its rows share."""
    config, params = model.config, model.params
    split = split_prompts(prompts, multiple)
    if split is None:
        width = _few_sizes(-(-max(map(len, prompts)) // multiple) * multiple)
        ends = _to_arrays(model, prompts, vectors, len(keys), width)
        room, prefix = _few_sizes(width + max_new_tokens) - width, None
    else:
        beginnings, room = _beginnings(model, split, vectors, max_new_tokens)
        ends = _to_arrays(model, split.suffixes, vectors, len(keys), split.suffix_length)
        rows = np.zeros(len(keys), np.int32)
        rows[: len(prompts)] = split.rows
        prefix = prefill_shared(config, params, *beginnings, rows)
    state = start_sampling(config, params, *ends, keys, drawing, prefix, seen, max_new_tokens=max_new_tokens, room=room)
    return state, prefix and prefix.shared


def _beginnings(model, split, vectors, max_new_tokens):
    """Arrays of what several prompts begin with, and how many slots the rest needs behind the ends.

    A single beginning has slots of its own, whatever the ends' lengths: the examples before all prompts of one kind
    are always the same program.
    """
    end, length = split.suffix_length, split.prefix_length
    if len(split.prefixes) == 1:
        length = _few_sizes(len(split.prefixes[0]))
        room = _few_sizes(end + max_new_tokens, 2) - end
    else:
        room = _few_sizes(length + end + max_new_tokens) - length - end
    return _to_arrays(model, split.prefixes, vectors, len(split.prefixes), length), room


def _few_sizes(num_slots: int, of_each_power: int = 4) -> int:
    """A number of slots, of so many from a power of two to the next, that is enough: prompts of like length share a
    compilation, and what is not needed is masked."""
    multiple = 1 << max((num_slots - 1).bit_length() - of_each_power.bit_length(), 0)
    return -(-num_slots // multiple) * multiple


def _to_arrays(
    model: LanguageModel, rows: Sequence[list[int]], vectors: np.ndarray, count: int, multiple: int
) -> tuple[np.ndarray, np.ndarray, SoftEmbeddings | None]:
    """Left-padded tokens and mask [count, T], and the vectors that stand there."""
    empty = [[]] * (count - len(rows))
    tokens, mask = model.tokenizer.left_pad([*rows, *empty], multiple)
    if not len(vectors):
        return tokens, mask, None
    is_soft = tokens >= model.config.vocab_size
    numbers = np.where(is_soft, tokens - model.config.vocab_size, 0)
    soft = SoftEmbeddings(vectors[numbers], is_soft)
    return np.where(is_soft, model.tokenizer.pad_id, tokens), mask, soft
