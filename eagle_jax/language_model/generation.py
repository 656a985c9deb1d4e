"""The seam through which everything above writes text: prompts in, generations out, batch first."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.prompts import Prompt


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """temperature 0 is greedy; top_p 1 keeps the whole distribution."""

    temperature: float
    top_p: float
    max_new_tokens: int

    def __post_init__(self):
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature must be 0 (greedy) or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """text without the stop string; token_ids and log_probs (stop token included) where known.

    stop_reason is "stop" (a stop string or the model's end token) or "length".
    """

    text: str
    token_ids: tuple[int, ...] | None
    log_probs: tuple[float, ...] | None
    stop_reason: str


class TextGenerator(Protocol):
    """Writes one generation per prompt. Row i depends on its prompt, the seed and i, nothing else.

    `name` identifies the model and its weights.
    """

    @property
    def name(self) -> str: ...

    def generate(
        self, prompts: Sequence[Prompt], sampling: SamplingSettings, seed: int
    ) -> list[Generation]: ...


class BudgetExhausted(RuntimeError):
    """The next call would ask for more generations than were granted."""


class CacheError(UserError):
    """A cache file cannot be used."""


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string in it, and whether there was one."""
    starts = [start for start in (text.find(string) for string in stop) if start >= 0]
    return (text[: min(starts)], True) if starts else (text, False)


class CachedGenerator:
    """Keeps generations in an SQLite file under (name, prompt, sampling, seed, row).

    A call with any unknown row asks `inner` for all its rows, since a row's noise depends on its
    number in the call.
    """

    def __init__(self, inner: TextGenerator, path: Path | str):
        self.inner = inner
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._connect() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS generations (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
            )

    @property
    def name(self) -> str:
        return self.inner.name

    def generate(
        self, prompts: Sequence[Prompt], sampling: SamplingSettings, seed: int
    ) -> list[Generation]:
        name = self.name
        keys = [
            _content_key(name, prompt, sampling, seed, row) for row, prompt in enumerate(prompts)
        ]
        with self._connect() as connection:
            found = [self._look_up(connection, key) for key in keys]
        if all(generation is not None for generation in found):
            return found
        made = self.inner.generate(prompts, sampling, seed)
        rows = [
            (key, json.dumps(dataclasses.asdict(generation)))
            for key, generation in zip(keys, made, strict=True)
        ]
        with self._connect() as connection:
            connection.executemany("INSERT OR REPLACE INTO generations VALUES (?, ?)", rows)
        return made

    @contextlib.contextmanager
    def _connect(self):
        """One transaction: all rows of a call are kept, or none."""
        try:
            with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
                yield connection
        except sqlite3.Error as error:
            raise CacheError(
                f"{self.path}: cannot be used as a cache of generations: {error}"
            ) from error

    def _look_up(self, connection: sqlite3.Connection, key: str) -> Generation | None:
        row = connection.execute("SELECT value FROM generations WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        fields = json.loads(row[0])
        for name in ("token_ids", "log_probs"):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        return Generation(**fields)


def _content_key(name: str, prompt: Prompt, sampling: SamplingSettings, seed: int, row: int) -> str:
    content = [name, prompt.text, list(prompt.stop), dataclasses.asdict(sampling), seed, row]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class BudgetedGenerator:
    """Counts generations and refuses a call that would exceed max_calls before asking."""

    def __init__(self, inner: TextGenerator, max_calls: int):
        self.inner = inner
        self.max_calls = max_calls
        self.num_calls = 0

    @property
    def name(self) -> str:
        return self.inner.name

    def generate(
        self, prompts: Sequence[Prompt], sampling: SamplingSettings, seed: int
    ) -> list[Generation]:
        if self.num_calls + len(prompts) > self.max_calls:
            raise BudgetExhausted(
                f"{self.name}: {len(prompts)} more generations after {self.num_calls} would exceed "
                f"the budget of {self.max_calls}"
            )
        self.num_calls += len(prompts)
        return self.inner.generate(prompts, sampling, seed)


class ScriptedGenerator:
    """Writes fn(prompt, rng), cut at the prompt's stop strings; rng follows from (seed, row)."""

    def __init__(self, fn: Callable[[Prompt, np.random.Generator], str], name: str = "scripted"):
        self.fn = fn
        self.name = name

    def generate(
        self, prompts: Sequence[Prompt], sampling: SamplingSettings, seed: int
    ) -> list[Generation]:
        texts = [
            self.fn(prompt, np.random.default_rng([seed, row]))
            for row, prompt in enumerate(prompts)
        ]
        return [
            Generation(
                text=cut_at_stop(text, prompt.stop)[0],
                token_ids=None,
                log_probs=None,
                stop_reason="stop",
            )
            for prompt, text in zip(prompts, texts, strict=True)
        ]
