"""Text from a model behind an OpenAI-compatible endpoint: vLLM, Gemini, OpenAI and others.

Every row of a call is a request of its own, independent of the others given (seed, row). It is
looked up in the cache, asked for within the budget, asked again where that helps, and kept as soon
as it is there: a run that was killed pays nothing twice.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from eagle_jax.base.errors import UserError
from eagle_jax.base.processes import from_primary
from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.prompts import Prompt
from eagle_jax.language_model.generation import Generation, SamplingSettings
from eagle_jax.language_model.remote.budget import CallBudget
from eagle_jax.language_model.remote.cache import (
    ANSWERED,
    CACHED,
    GenerationCache,
    Request,
    content_key,
    read_generation,
)
from eagle_jax.language_model.remote.endpoint import Attempt, Endpoint
from eagle_jax.language_model.remote.settings import RemoteSettings

_CHAT_TEMPLATE_TOKENS = 64  # more than the chat template of a model adds to a prompt


class RemoteError(UserError):
    """A remote model gave no usable answer; the message names endpoint, model, row and reason."""


class _Stopped(Exception):
    """This row was not asked for, or not again, since another one ended the call."""


class _Row(NamedTuple):
    number: int
    key: str
    prompt: Prompt
    seed: int


class RemoteGenerator:
    """A `TextGenerator` over an endpoint.

    `pause(stop, seconds)` waits between tries, until `stop` is set at the longest.
    """

    def __init__(
        self,
        settings: RemoteSettings,
        cache: GenerationCache,
        pause: Callable[[threading.Event, float], Any] = threading.Event.wait,
    ):
        self.settings = settings
        self.cache = cache
        self._pause = pause
        self._endpoint = Endpoint(settings)
        budget = settings.budget
        self._budget = CallBudget(self.name, budget.max_requests, budget.max_tokens)

    @property
    def name(self) -> str:
        """Model, endpoint and whatever else changes its texts; never the key."""
        settings = self.settings
        name = f"{settings.model} at {settings.base_url} ({settings.api})"
        more = settings.request_fields
        return f"{name} {json.dumps(more, sort_keys=True)}" if more else name

    def generate(self, prompts: Sequence[Prompt], sampling: SamplingSettings, seed: int) -> list[Generation]:
        """One generation per prompt.

        Raises `RemoteError` or `BudgetExhausted` for the first row that cannot be had; no other row
        is begun then, but what is in flight is waited for and kept. Of several processes the first
        one asks for all.
        """

        def ask() -> list[dict[str, Any]]:
            return [dataclasses.asdict(made) for made in self._generate(prompts, sampling, seed)]

        return [read_generation(fields) for fields in from_primary(f"ask {self.name}", ask)]

    def _generate(self, prompts: Sequence[Prompt], sampling: SamplingSettings, seed: int) -> list[Generation]:
        name = self.name
        rows = []
        for row, prompt in enumerate(prompts):
            key = content_key(name, prompt, sampling, seed, row)
            rows.append(_Row(row, key, prompt, derive_seed(seed, row)))
        found = self.cache.look_up([row.key for row in rows])
        hits = [row for row, generation in zip(rows, found, strict=True) if generation is not None]
        self.cache.record(name, [Request(row.key, CACHED, 0, 0) for row in hits], {})
        missing = [row for row, generation in zip(rows, found, strict=True) if generation is None]
        for row, generation in zip(missing, self._ask_all(missing, sampling), strict=True):
            found[row.number] = generation
        return found

    def usage(self) -> dict[str, Any]:
        """Requests, tokens and cost over all runs that used this cache, as JSON has it.

        `cost` is None where a price is not known; `num_uncounted` requests may have cost tokens
        that the server did not tell. Of several processes, ask the first one.
        """
        used = self.cache.usage(self.name)
        prices = self.settings.prices
        cost = None
        if prices.prompt is not None and prices.completion is not None:
            spent = used.prompt_tokens * prices.prompt + used.completion_tokens * prices.completion
            cost = spent / 1e6
        outcomes = dict(used.outcomes)
        return {
            "model": self.settings.model,
            "base_url": self.settings.base_url,
            "num_cached": outcomes.pop(CACHED, 0),
            "num_requests": sum(outcomes.values()),
            "num_answered": outcomes.pop(ANSWERED, 0),
            "failed": outcomes,
            "prompt_tokens": used.prompt_tokens,
            "completion_tokens": used.completion_tokens,
            "num_uncounted": used.num_uncounted,
            "cost": cost,
        }

    def _ask_all(self, rows: Sequence[_Row], sampling: SamplingSettings) -> list[Generation]:
        stop = threading.Event()

        def ask(row: _Row) -> Generation:
            try:
                return self._ask(row, sampling, stop)
            except Exception:
                stop.set()  # here, before this thread takes the next row
                raise

        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            futures = [pool.submit(ask, row) for row in rows]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()  # all are done, or Ctrl-C: those in flight end, then we
        errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None and not isinstance(error, _Stopped):
                raise error
        return [future.result() for future in futures]

    def _ask(self, row: _Row, sampling: SamplingSettings, stop: threading.Event) -> Generation:
        """Asks for one row until it is there; raises `RemoteError` when that does not help."""
        for number in range(1, self.settings.max_tries + 1):
            attempt = self._try(row, sampling, stop)
            if attempt.generation is not None:
                return attempt.generation
            told = f"{attempt.outcome}: {attempt.detail}"
            seconds = max(self._backoff(row, number), attempt.retry_after)
            if attempt.final or number == self.settings.max_tries:
                raise self._failed(row, f"after {number} tries, {told}")
            if seconds > self.settings.max_wait_seconds:
                asked = f"it asks to wait {seconds:.0f} s, more than max_wait_seconds"
                raise self._failed(row, f"{asked}, {told}")
            logging.info("%s, row %d: %s; again in %.1f s", self.name, row.number, told, seconds)
            self._pause(stop, seconds)
        raise AssertionError("max_tries is at least 1")

    def _try(self, row: _Row, sampling: SamplingSettings, stop: threading.Event) -> Attempt:
        """One request within the budget, and its answer into the cache."""
        # No tokenizer makes more tokens than there are bytes.
        worst = len(row.prompt.text.encode()) + _CHAT_TEMPLATE_TOKENS + sampling.max_new_tokens
        if not self._budget.reserve(worst, stop):
            raise _Stopped
        tokens = worst
        try:
            attempt = self._endpoint.ask(row.prompt, sampling, row.seed)
            if None not in attempt.tokens:
                tokens = sum(attempt.tokens)
            made = {} if attempt.generation is None else {row.key: attempt.generation}
            request = Request(row.key, attempt.outcome, *attempt.tokens)
            self.cache.record(self.name, [request], made)
            return attempt
        finally:
            self._budget.settle(worst, tokens)

    def _backoff(self, row: _Row, number: int) -> float:
        """Seconds before try number + 1: doubling, and spread so that rows do not come back
        together."""
        longest = self.settings.backoff_seconds * 2.0 ** (number - 1)
        spread = np.random.default_rng([row.seed, number]).uniform(0.5, 1.0)
        return min(longest, self.settings.max_wait_seconds) * spread

    def _failed(self, row: _Row, why: str) -> RemoteError:
        return RemoteError(
            f"{self.name}: no usable answer for row {row.number}: {why}. What was answered is kept "
            f"in {self.cache.path}: the same command asks for the rest only"
        )
