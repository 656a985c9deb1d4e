"""Generations on disk under everything that determines them, and what asking for them took.

An SQLite file in WAL mode. `generations` has a row for each generation. `requests` has a row for
each request to a remote model, written as it ends and in one transaction with its generation, so
that a kill at any moment loses nothing that was paid for and usage adds up over resumed runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import Prompt
from eagle_jax.language_model.generation import Generation, SamplingSettings, TextGenerator

ANSWERED, CACHED = "answered", "cached"
_TABLES = """
CREATE TABLE IF NOT EXISTS generations (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS requests (
    name TEXT NOT NULL, key TEXT NOT NULL, outcome TEXT NOT NULL,
    prompt_tokens INTEGER, completion_tokens INTEGER
);
"""


class CacheError(UserError):
    """A cache file cannot be used."""


class Request(NamedTuple):
    """A request for the row `key` and its outcome: `ANSWERED`, `CACHED` (nothing was sent), or the
    reason why it failed. Tokens as the server counted them, None where it did not tell."""

    key: str
    outcome: str
    prompt_tokens: int | None
    completion_tokens: int | None


class Usage(NamedTuple):
    """Requests of one generator by outcome and their tokens; `num_uncounted` requests may have
    cost tokens that the server did not tell."""

    outcomes: Mapping[str, int]
    prompt_tokens: int
    completion_tokens: int
    num_uncounted: int


def content_key(name: str, prompt: Prompt, sampling: SamplingSettings, seed: int, row: int) -> str:
    """SHA-256 of everything that a generation depends on."""
    asked = dataclasses.asdict(prompt)
    if not prompt.answer_start:  # which came later: what was paid for before is found
        del asked["answer_start"]
    content = [name, asked, sampling.asked(), seed, row]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class GenerationCache:
    """The file at `path`, made when it is first used; all methods may be called by any thread and
    raise `CacheError`."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._lock = threading.Lock()

    def look_up(self, keys: Sequence[str]) -> list[Generation | None]:
        """The generation of each key, None where there is none."""
        with self._transaction() as connection:
            query = "SELECT value FROM generations WHERE key = ?"
            rows = [connection.execute(query, (key,)).fetchone() for key in keys]
            return [None if row is None else read_generation(json.loads(row[0])) for row in rows]

    def write(self, generations: Mapping[str, Generation]) -> None:
        """Keeps generations by key: all of them, or none."""
        with self._transaction() as connection:
            _insert(connection, generations)

    def record(self, name: str, requests: Iterable[Request], generations: Mapping[str, Generation]) -> None:
        """Notes requests to the generator `name` and keeps what they brought."""
        rows = [(name, *request) for request in requests]
        with self._transaction() as connection:
            _insert(connection, generations)
            connection.executemany("INSERT INTO requests VALUES (?, ?, ?, ?, ?)", rows)

    def usage(self, name: str) -> Usage:
        """The requests to the generator `name`, over all runs that used this file."""
        with self._transaction() as connection:
            counted = connection.execute(
                "SELECT outcome, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), "
                "SUM(prompt_tokens IS NULL OR completion_tokens IS NULL) "
                "FROM requests WHERE name = ? GROUP BY outcome ORDER BY outcome",
                (name,),
            ).fetchall()
        totals = [sum(row[column] or 0 for row in counted) for column in (2, 3, 4)]
        return Usage({row[0]: row[1] for row in counted}, *totals)

    @functools.cached_property
    def _connection(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Texts of users are nobody else's; SQLite's files beside it become as this one.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(self.path, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_TABLES)
        return connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock, self._connection as connection:
                yield connection
        except (sqlite3.Error, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise CacheError(
                f"{self.path}: cannot be used as a cache of generations: {error}; "
                "move it away to begin anew (what it holds is asked for again)"
            ) from error


def _insert(connection: sqlite3.Connection, generations: Mapping[str, Generation]) -> None:
    rows = [(key, json.dumps(dataclasses.asdict(made))) for key, made in generations.items()]
    connection.executemany("INSERT OR REPLACE INTO generations VALUES (?, ?)", rows)


def read_generation(fields: Mapping[str, Any]) -> Generation:
    """The generation whose `dataclasses.asdict` went through JSON."""
    names = ("token_ids", "log_probs", "prompt_token_ids")
    # Older files lack the prompt's ids, and count what was cut from it.
    tuples = {name: None if fields.get(name) is None else tuple(fields[name]) for name in names}
    return Generation(text=fields["text"], stop_reason=fields["stop_reason"], **tuples)


class CachedGenerator:
    """Any generator, with its generations kept in a cache.

    A call with any unknown row asks `inner` for all its rows, since the noise of a local model
    depends on the row's number in the call.
    """

    def __init__(self, inner: TextGenerator, path: Path | str):
        self.inner = inner
        self.cache = GenerationCache(path)

    @property
    def name(self) -> str:
        return self.inner.name

    def generate(self, prompts: Sequence[Prompt], sampling: SamplingSettings, seed: int) -> list[Generation]:
        name = self.name
        keys = [content_key(name, prompt, sampling, seed, row) for row, prompt in enumerate(prompts)]
        found = self.cache.look_up(keys)
        if all(generation is not None for generation in found):
            return found
        made = self.inner.generate(prompts, sampling, seed)
        self.cache.write(dict(zip(keys, made, strict=True)))
        return made
