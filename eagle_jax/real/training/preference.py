"""Preference optimisation of a language model on pairs of texts (REAL, arXiv 2409.17169; DPO).

Axis letters: `B` responses, `P` prompt tokens, `N` response tokens.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import NonFiniteError
from eagle_jax.data.preferences.examples import PreferenceExample, PreferencePair, all_responses
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.sharding import fetch, on_mesh_of
from eagle_jax.learning.loop import Hook, Records, train
from eagle_jax.learning.policy_batch import PolicyBatch, action_log_probs, pack_actions, read_policy_batch
from eagle_jax.learning.trainable import TrainingMode, join, split
from eagle_jax.real.training.step import (
    PreferenceBatch,
    PreferenceSettings,
    PreferenceState,
    init_preference,
    train_step,
)

Probe = Callable[[int, Params], Mapping[str, float]]


class _Row(NamedTuple):
    """Token ids of a prompt and of a response to it."""

    prompt: list[int]
    response: list[int]


def _encode(
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    responses: Sequence[str],
    ending: str | None,
    settings: PreferenceSettings,
) -> list[_Row]:
    """Tokens of each prompt and of the response, with `ending` behind it; None: the end token.

    A response that ends so has its ending already. A longer prompt keeps its end (and a beginning
    token), a longer response its beginning; a warning counts what was cut. Raises UserError that
    names the response where nothing of it is left.
    """
    max_prompt_tokens, max_tokens = settings.max_prompt_tokens, settings.max_tokens
    if ending is None and tokenizer.eos_id is None:
        raise UserError("the tokenizer names no end token; say which text ends a response")
    rows, num_cut_prompts, num_cut_responses = [], 0, 0
    for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        before, after = tokenizer.encode_response(prompt, with_ending(response, ending or ""))
        if ending is None and after[-1:] != [tokenizer.eos_id]:
            after = [*after, tokenizer.eos_id]
        if not before or not after:
            empty = "response" if before else "prompt"
            raise UserError(f"the {empty} of number {number} (from 0) has no tokens")
        if len(before) > max_prompt_tokens:
            num_cut_prompts += 1
            begin = before[:1] if before[0] == tokenizer.bos_id else []
            before = begin + before[len(before) - max_prompt_tokens + len(begin) :]
        num_cut_responses += len(before) + len(after) > max_tokens
        rows.append(_Row(before, after[: max_tokens - len(before)]))
    if num_cut_prompts or num_cut_responses:
        logging.warning(
            "of %d responses %d have a prompt of more than %d tokens, which loses its beginning, "
            "and %d lose their end: prompt and response have more than %d tokens",
            len(rows),
            num_cut_prompts,
            max_prompt_tokens,
            num_cut_responses,
            max_tokens,
        )
    return rows


def with_ending(response: str, ending: str) -> str:
    """The response and what ends it, once."""
    return response if response.endswith(ending) else response + ending


def distinct_places(
    tokenizer: Tokenizer, examples: Sequence[PreferenceExample], ending: str | None, settings: PreferenceSettings
) -> list[list[int]]:
    """For each example the places of the responses that are left when of those that are the same,
    as training cuts them, only the first one stays."""
    rows = iter(_encode(tokenizer, *all_responses(examples), ending, settings))
    kept = []
    for example in examples:
        own = [tuple(next(rows).response) for _ in example.responses]
        kept.append([place for place, row in enumerate(own) if row not in own[:place]])
    return kept


def _pack(tokenizer: Tokenizer, rows: Sequence[_Row]) -> PolicyBatch:
    """Left-padded prompts and right-padded responses; P and N are up to half more than needed, to
    compile seldom."""
    prompts, responses = [row.prompt for row in rows], [row.response for row in rows]
    return pack_actions(tokenizer, prompts, responses, _multiple(prompts), _multiple(responses))


def _multiple(ids: Sequence[Sequence[int]]) -> int:
    """Half of the power of two below the longest: two shapes from one power to the next."""
    return 1 << max(3, (max(map(len, ids)) - 1).bit_length() - 2)


def log_probs_of(
    model: LanguageModel,
    prompts: Sequence[str],
    responses: Sequence[str],
    ending: str | None,
    settings: PreferenceSettings,
    batch_size: int,
) -> np.ndarray:
    """log pi(response | prompt) [B] float32, nats, computed `batch_size` at a time.

    Texts are cut as in training.
    """
    return _log_probs(model, _encode(model.tokenizer, prompts, responses, ending, settings), batch_size)


def _log_probs(model: LanguageModel, rows: Sequence[_Row], batch_size: int) -> np.ndarray:
    return _of_rows(lambda batch: action_log_probs(model.config, model.params, batch, 1.0), model, rows, batch_size)


def _of_rows(
    values_of: Callable[[PolicyBatch], jax.Array],
    model: LanguageModel,
    rows: Sequence[_Row],
    batch_size: int,
    width: tuple[int, ...] = (),
) -> np.ndarray:
    """What a function of batches says of all rows [B, *width] float32, `batch_size` at a time."""
    found = np.zeros((len(rows), *width), np.float32)
    for chosen, batch in _batches(model.tokenizer, rows, batch_size):
        with on_mesh_of(model.params):
            values = values_of(batch)
        found[chosen] = fetch(values)[: len(chosen)]
    return found


def state_sums_of(
    model: LanguageModel,
    prompts: Sequence[str],
    responses: Sequence[str],
    ending: str | None,
    settings: PreferenceSettings,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Sums [B, D] of the last hidden states from which a response's tokens are predicted, and their numbers [B].

    Of a response y of T tokens these are the states behind the prompt and behind y's first T - 1 tokens, after the
    final norm. Texts are cut as in training.
    """
    rows = _encode(model.tokenizer, prompts, responses, ending, settings)
    width = (model.config.hidden_size,)
    sums = _of_rows(lambda batch: _state_sums(model.config, model.params, batch), model, rows, batch_size, width)
    return sums, np.array([len(row.response) for row in rows])


@functools.partial(jax.jit, static_argnames="config")
def _state_sums(config: DecoderConfig, params: Params, batch: PolicyBatch) -> jax.Array:
    states = read_policy_batch(config, params, batch)[0].states.astype(jnp.float32)
    return jnp.einsum("bnd,bn->bd", states, batch.action_mask.astype(jnp.float32))


def _batches(tokenizer: Tokenizer, rows: Sequence[_Row], batch_size: int) -> Iterator[tuple[list[int], PolicyBatch]]:
    """The places of the rows of a batch, and the batch, padded to its size; rows of like length share one."""
    by_length = sorted(range(len(rows)), key=lambda i: (len(rows[i].prompt), len(rows[i].response)))
    for start in range(0, len(rows), batch_size):
        chosen = by_length[start : start + batch_size]
        padding = [_Row([], [])] * (batch_size - len(chosen))
        yield chosen, _pack(tokenizer, [*(rows[i] for i in chosen), *padding])


def num_training_steps(num_pairs: int, settings: PreferenceSettings) -> int:
    """Optimiser steps of all epochs; the last step of each may have fewer pairs."""
    return settings.num_epochs * -(-num_pairs // settings.batch_size)


def train_preference(
    model: LanguageModel,
    mode: TrainingMode,
    pairs: Sequence[PreferencePair],
    ending: str | None,
    settings: PreferenceSettings,
    *,
    records: Records,
    seed: int,
    probe: Probe | None,
) -> tuple[Params, list[dict[str, Any]]]:
    """Trains from the last checkpoint, or from `model`, which is the reference and is left alone.

    Returns the parameters and the rows of metrics.jsonl, those of earlier runs included.

    The reference's log-probs are computed once, before the first step. The order of an epoch's
    pairs derives from (seed, epoch). `probe(step, params)` is called before the first step, after
    every `probe_every` steps and after the last; its values are logged as "probe/<name>". It must
    copy parameters that it keeps: the next step donates them.

    Raises UserError for no pairs, a warm-up not shorter than the run or more tokens than the model
    has positions; NonFiniteError with the pair and the side of a log-prob of the reference that is
    not finite, or with the first step whose loss or gradient is not.
    """
    num_steps = num_training_steps(len(pairs), settings)
    _check_run(model, pairs, settings, num_steps)
    trainable, frozen = split(model.params, mode)
    batches = PairBatches(model, pairs, ending, settings, seed)

    def iterate(step: int, state: PreferenceState) -> tuple[PreferenceState, dict[str, jax.Array]]:
        batch = batches.of_step(step - 1)
        with on_mesh_of(model.params):
            return train_step(model.config, settings, num_steps, frozen, state, batch)

    def probed(step: int, state: PreferenceState) -> dict[str, float]:
        values = probe(step, join(state.trainable, frozen))
        return {f"probe/{name}": value for name, value in values.items()}

    state = train(
        init_preference(trainable, settings, len(pairs), num_steps),
        iterate,
        [Hook(settings.probe_every, probed, at_start=True)] if probe else [],
        records,
        num_steps=num_steps,
        log_every=settings.log_every,
        checkpoint_every=settings.checkpoint_every,
        unit="step",
    )
    return join(state.trainable, frozen), records.history()


def _check_run(
    model: LanguageModel, pairs: Sequence[PreferencePair], settings: PreferenceSettings, num_steps: int
) -> None:
    if not pairs:
        raise UserError("there are no preference pairs to train on")
    if settings.warmup_steps >= num_steps:
        raise UserError(
            f"warmup_steps is {settings.warmup_steps}, but {len(pairs)} pairs in batches of "
            f"{settings.batch_size} are {num_steps} steps in {settings.num_epochs} epochs: warm up "
            "for fewer steps, or train for more epochs"
        )
    limit = model.config.max_position_embeddings
    if settings.max_tokens > limit:
        raise UserError(f"max_tokens is {settings.max_tokens}, but {model.name} has {limit} positions")


@dataclasses.dataclass(frozen=True)
class PairBatches:
    """The pairs as arrays; what the reference says of all of them is computed before the first."""

    model: LanguageModel
    pairs: Sequence[PreferencePair]
    ending: str | None
    settings: PreferenceSettings
    seed: int

    @functools.cached_property
    def rows(self) -> list[_Row]:
        """Chosen and rejected in turn."""
        prompts = [pair.prompt for pair in self.pairs for _ in range(2)]
        texts = [text for pair in self.pairs for text in (pair.chosen, pair.rejected)]
        rows = _encode(self.model.tokenizer, prompts, texts, self.ending, self.settings)
        for pair, (chosen, rejected) in enumerate(zip(rows[::2], rows[1::2], strict=True)):
            if chosen == rejected:
                raise UserError(
                    f"pair {pair} of {len(self.pairs)} (from 0): within {self.settings.max_tokens} "
                    "tokens both responses are the same: raise max_tokens, or leave the pair out"
                )
        return rows

    @functools.cached_property
    def reference(self) -> np.ndarray:
        """Log-probs [R, 2]."""
        part = 2 * self.settings.batch_size // self.settings.accumulation
        log_probs = _log_probs(self.model, self.rows, part).reshape(-1, 2)
        for pair, side in np.argwhere(~np.isfinite(log_probs))[:1]:
            raise NonFiniteError(
                f"pair {pair} of {len(self.pairs)} (from 0): the reference model's log-prob of its "
                f"{('chosen', 'rejected')[side]} response is {log_probs[pair, side]}; the model's "
                "parameters or this text are broken"
            )
        return log_probs

    def of_step(self, step: int) -> PreferenceBatch:
        """Step from 0 on; rows of padding follow where the pairs of an epoch are too few."""
        size = self.settings.batch_size
        num_pairs = len(self.pairs)
        epoch, place = divmod(step, -(-num_pairs // size))
        order = np.random.default_rng([self.seed, epoch]).permutation(num_pairs)
        chosen = order[place * size :][:size]
        missing = size - len(chosen)
        sides = [self.rows[2 * pair + side] for pair in chosen for side in range(2)]
        packed = _pack(self.model.tokenizer, [*sides, *[_Row([], [])] * (2 * missing)])
        return PreferenceBatch(
            responses=PolicyBatch(*(a.reshape(size, 2, -1) for a in packed)),
            reference_log_probs=np.pad(self.reference[chosen], ((0, missing), (0, 0))),
            pairs=np.pad(chosen, (0, missing), constant_values=num_pairs).astype(np.int32),
            is_pair=np.arange(size) < len(chosen),
        )
