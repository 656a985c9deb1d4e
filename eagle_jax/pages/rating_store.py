"""Forms given to raters and what they answered, in one SQLite file.

A form is given to a rater once and answered once; both are transactions of their own, on disk
before the page says so, so that a kill at any moment loses nothing and several raters (or servers)
do not disturb each other.

Who gets what: the item that the fewest raters were given, at random among these. The generated text
stands where it stood less often for this item, then for this rater, else at random: over an even
number of raters each item was shown in both orders equally often. One form in `CHECK_EVERY` is an
attention check: it says what to answer. All of it by the seed, the rater's number and the form's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.eagle.evaluation.rater_form import BlindLabel, RaterAnswers

CHECK_EVERY = 8
PERSON, MODEL = "person", "model"

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS raters (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, code TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS forms (
  rater INTEGER NOT NULL REFERENCES raters, place INTEGER NOT NULL, item INTEGER NOT NULL,
  label TEXT NOT NULL, expected TEXT, answers TEXT, given REAL NOT NULL, answered REAL,
  PRIMARY KEY (rater, place));
"""
_FORMS = (
    "SELECT raters.id, raters.kind, place, item, label, expected, answers, answered - given "
    "FROM forms JOIN raters ON raters.number = forms.rater "
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """One form of one rater.

    place: its number among the rater's, from 0. item: its place among the run's. label: where the
    generated text stands. expected: what an attention check tells to answer; None: it is no check.
    """

    rater: str
    kind: str
    place: int
    item: int
    label: BlindLabel
    expected: RaterAnswers | None
    answers: RaterAnswers | None
    seconds: float | None

    @property
    def passed(self) -> bool:
        """Of an answered check: whether it was answered as it tells."""
        return all(self.answers[number] == answer for number, answer in self.expected.items())


class RatingStore:
    """The ratings of one run in `path`, which is made where it is not there, for its owner alone.

    about: what the forms depend on, by name; raises `UserError` where the file was begun with
    another value, or is none of ours. checks: of each item, question -> what a check may tell to
    answer. is_blind: the generated text has another one beside it; where it stands alone, it is at A.
    """

    def __init__(
        self,
        path: Path,
        about: Mapping[str, str | int],
        checks: Sequence[Mapping[int, Sequence[str]]],
        raters_per_item: int,
        seed: int,
        *,
        is_blind: bool = True,
    ):
        self.path = path
        self._checks, self._raters_per_item, self._seed = checks, raters_per_item, seed
        self._labels = "AB" if is_blind else "A"
        self._lock = threading.Lock()
        with self._transaction() as connection:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            for name, value in about.items():
                found = _fact(connection, name, str(value))
                if found != str(value):
                    raise UserError(
                        f"{path}: was begun with {name} {found}, now {value}; go on with that, or move the file away"
                    )

    def secret(self, name: str) -> str:
        """A word that nobody guesses, the same whenever this file is opened."""
        with self._transaction() as connection:
            return _fact(connection, name, secrets.token_urlsafe(12))

    def new_rater(self) -> str:
        """A person more; returns the code by which they go on."""
        code = "-".join(secrets.token_hex(2) for _ in range(3))
        with self._transaction() as connection:
            _insert_rater(connection, secrets.token_hex(4), PERSON, code)
        return code

    def knows(self, code: str) -> bool:
        with self._transaction() as connection:
            return _number(connection, code) is not None

    def current_form(self, code: str) -> Form | None:
        """The form that the rater has not answered yet, else the next one; None: nothing is left.

        Raises KeyError for a code that nobody has.
        """
        with self._transaction() as connection:
            rater = _number(connection, code)
            if rater is None:
                raise KeyError(code)
            mine = "WHERE forms.rater = ? AND answers IS NULL"
            if found := connection.execute(_FORMS + mine, (rater,)).fetchone():
                return _form(found)
            (place,) = connection.execute("SELECT COUNT(*) FROM forms WHERE rater = ?", (rater,)).fetchone()
            if (chosen := self._choose(connection, rater, place)) is None:
                return None
            item, label, expected = chosen
            connection.execute(
                "INSERT INTO forms VALUES (?, ?, ?, ?, ?, NULL, ?, NULL)",
                (rater, place, item, label, expected and json.dumps(expected), time.time()),
            )
            return _form(connection.execute(_FORMS + mine, (rater,)).fetchone())

    def answer(self, code: str, place: int, answers: RaterAnswers) -> bool:
        """Keeps the answers to the rater's form; False: it was answered before, or never given."""
        with self._transaction() as connection:
            changed = connection.execute(
                "UPDATE forms SET answers = ?, answered = ? WHERE rater = ? AND place = ? AND answers IS NULL",
                (json.dumps(answers), time.time(), _number(connection, code), place),
            )
            return changed.rowcount == 1

    def forms(self) -> list[Form]:
        """All that were answered, by rater."""
        with self._transaction() as connection:
            order = "WHERE answers IS NOT NULL ORDER BY forms.rater, place"
            return [_form(row) for row in connection.execute(_FORMS + order)]

    def add(self, forms: Sequence[Form]) -> int:
        """Keeps forms that were answered elsewhere; returns how many were not there yet.

        All or none: raises `UserError` where a rater's form is there with something else in it.
        """
        added = 0
        with self._transaction() as connection:
            for form in forms:
                one = "WHERE raters.id = ? AND place = ?"
                found = connection.execute(_FORMS + one, (form.rater, form.place)).fetchone()
                if found is None:
                    row = connection.execute("SELECT number FROM raters WHERE id = ?", (form.rater,)).fetchone()
                    number = row[0] if row else _insert_rater(connection, form.rater, form.kind, None)
                    expected = form.expected and json.dumps(form.expected)
                    connection.execute(
                        "INSERT INTO forms VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
                        (number, form.place, form.item, form.label, expected, json.dumps(form.answers), form.seconds),
                    )
                    added += 1
                elif dataclasses.replace(_form(found), seconds=form.seconds) != form:
                    raise UserError(
                        f"{self.path}: form {form.place} of rater {form.rater} is there with other answers; "
                        "nothing was taken over"
                    )
        return added

    def _choose(self, connection: sqlite3.Connection, rater: int, place: int):
        """(item, label, expected) of the rater's next form; None: nothing is left."""
        rng = np.random.default_rng((self._seed, rater, place))
        counts = "item, COUNT(*), SUM(answers IS NOT NULL), SUM(label = 'A')"
        counted = connection.execute(
            f"SELECT {counts} FROM forms JOIN raters ON number = rater "
            "WHERE expected IS NULL AND kind = ? GROUP BY item",
            (PERSON,),
        )
        given, answered, shown_at_a = np.zeros((3, len(self._checks)), int)
        for item, *numbers in counted:
            given[item], answered[item], shown_at_a[item] = numbers
        is_open = answered < self._raters_per_item
        mine = connection.execute(
            "SELECT item, label FROM forms WHERE rater = ? AND expected IS NULL", (rater,)
        ).fetchall()
        is_open[[item for item, _ in mine]] = False
        if not is_open.any():
            return None
        block, place_in_block = divmod(place, CHECK_EVERY)
        if place_in_block == np.random.default_rng((self._seed, rater, block, 1)).integers(CHECK_EVERY):
            item = int(rng.integers(len(self._checks)))
            expected = {number: str(rng.choice(options)) for number, options in self._checks[item].items()}
            expected = {number: int(word) if word.isdigit() else word for number, word in expected.items()}
            return item, str(rng.choice(list(self._labels))), expected
        item = int(rng.choice(np.flatnonzero(is_open & (given == given[is_open].min()))))
        of_rater = sum(label == "A" for _, label in mine)
        surplus = 2 * shown_at_a[item] - given[item] or 2 * of_rater - len(mine) or rng.choice((-1, 1))
        return item, self._labels[-1] if surplus > 0 else "A", None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; requests come from several threads, and wait for each other."""
        try:
            with self._lock, self._connection as connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
        except (sqlite3.Error, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{self.path}: cannot be used for ratings: {reason}") from error

    @functools.cached_property
    def _connection(self) -> sqlite3.Connection:
        # The answers of people are nobody else's; SQLite's files beside it become as this one.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection


def is_code(text: str) -> str | None:
    """The code that a person typed, as it was given; None where it is none."""
    letters = re.sub(r"[\s-]", "", text.lower())
    return "-".join(letters[at : at + 4] for at in (0, 4, 8)) if re.fullmatch("[0-9a-f]{12}", letters) else None


def _fact(connection: sqlite3.Connection, name: str, value: str) -> str:
    """What is kept under the name, `value` from now on where nothing is."""
    connection.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, value))
    return connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0]


def _insert_rater(connection: sqlite3.Connection, rater: str, kind: str, code: str | None) -> int:
    row = (rater, kind, code)
    return connection.execute("INSERT INTO raters (id, kind, code) VALUES (?, ?, ?)", row).lastrowid


def _number(connection: sqlite3.Connection, code: str) -> int | None:
    found = connection.execute("SELECT number FROM raters WHERE code = ?", (code,)).fetchone()
    return found and found[0]


def _form(row: tuple) -> Form:
    rater, kind, place, item, label, expected, answers, seconds = row
    expected, answers = (
        text and {int(number): answer for number, answer in json.loads(text).items()} for text in (expected, answers)
    )
    return Form(
        rater=rater, kind=kind, place=place, item=item, label=label, expected=expected, answers=answers, seconds=seconds
    )
