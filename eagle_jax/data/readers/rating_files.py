"""Ratings or interactions of any file as a table, on a scale that is declared and never guessed.

Axis letters: `R` ratings, `U` users, `N` items, `n` rows of a block.
"""

from __future__ import annotations

import datetime
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eagle_jax.base.errors import UserError
from eagle_jax.data.bad_rows import BadRows
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.data.readers.blocks import ColumnBlock
from eagle_jax.data.readers.columns import read_columns
from eagle_jax.data.readers.scales import STARS, WEIGHTS, OutsideError, Scale, number_of

_MOST_OUTSIDE = 0.01  # of the ratings; more of them say that the scale is another one
_FEW_NAMES = 1 << 14  # are looked up one by one, as pyarrow takes milliseconds to begin with
_PLAIN_DIGITS = 15  # of a time; longer ones and what is no whole number are read one by one
_FEW_OUTSIDE = 10  # are bad rows, however short the file


class RatingColumns(NamedTuple):
    """Which columns say what; the rest is for files without a header line."""

    user: str
    item: str
    rating: str  # "" where every row is one interaction
    timestamp: str = ""
    layout: tuple[str, ...] = ()  # the names of all columns
    delimiter: str = ""

    timestamp_may_be_absent: bool = False


MOVIELENS_COLUMNS = RatingColumns("userId", "movieId", "rating", "timestamp", timestamp_may_be_absent=True)


def read_ratings(
    path: Path,
    *,
    known_items: Sequence[str],
    columns: RatingColumns = MOVIELENS_COLUMNS,
    scale: Scale = STARS,
    bad_rows: BadRows,
    doubtful: BadRows,
) -> RatingTable:
    """The good rows of a file; `known_items` gives the items and their order, users are numbered as they appear.

    To `bad_rows` go rows with a missing field, text in a number, NaN, a rating outside of the scale, no user, an item
    that is not known, undecodable bytes; and of several ratings of an item by one user all but the last, by timestamp
    and then by line. A timestamp that cannot be read counts as the oldest; its row goes to `doubtful`. On the scale
    `WEIGHTS` the weights of a pair are added, and the rating is log2(1 + their sum): one event is 1, three are 2.

    Raises UserError when the file is missing or empty, lacks a column, no good row is left, all items are unknown, or
    more than 1 % of the ratings are outside of the scale.
    """
    path = Path(path)
    rows = _Rows(path, columns, scale, known_items, bad_rows, doubtful)
    text = [name for name in (columns.user, columns.item, columns.rating) if name]
    numbers = [columns.timestamp] if columns.timestamp else []
    for block in read_columns(
        path,
        text,
        numbers,
        bad_rows,
        layout=columns.layout,
        delimiter=columns.delimiter,
        numbers_may_be_absent=columns.timestamp_may_be_absent,
    ):
        rows.add(block)
    rows.check()
    return rows.table()


class _Rows:
    """Good rows of a file so far, and what is known of the others."""

    def __init__(
        self,
        path: Path,
        columns: RatingColumns,
        scale: Scale,
        known_items: Sequence[str],
        bad_rows: BadRows,
        doubtful: BadRows,
    ):
        self._path, self._columns, self._scale = path, columns, scale
        self._bad_rows, self._doubtful = bad_rows, doubtful
        self._known_items = tuple(known_items)
        self._item_of = {name: index for index, name in enumerate(self._known_items)}
        self._item_array = pa.array(self._known_items, pa.string())
        self._user_of: dict[str, int] = {}
        # Of every block: users, items, ratings, timestamps, lines.
        self._parts: tuple[list[np.ndarray], ...] = ([], [], [], [], [])
        self._outside: list[float] = []  # how many, the lowest and the highest of every block
        self._num_rated = 0
        self._strangers: list[str] = []  # items that are not known

    def add(self, block: ColumnBlock) -> None:
        users, user_codes = _names(block.text[self._columns.user])
        items = pc.utf8_trim_whitespace(block.text[self._columns.item].dictionary)
        item_codes = block.text[self._columns.item].indices.to_numpy()
        known = self._places(items)
        good, rating = self._judge_ratings(block)
        self._num_rated += int(good.sum())
        if "" in users:
            no_user = np.array([not name for name in users], bool)[user_codes]
            self._leave_out(block, good, no_user, lambda i: f"{self._columns.user} is empty")
        if (known < 0).any():
            if len(self._strangers) < 3:
                self._strangers += items.take(pa.array(np.flatnonzero(known < 0)[:3])).to_pylist()
            self._leave_out(
                block, good, known[item_codes] < 0, lambda i: f"unknown {self._columns.item}: {items[item_codes[i]]}"
            )
        user_index = self.number_of(users, user_codes[good])
        timestamp = self._timestamps(block, good)
        rating = rating[good].astype(np.float64 if self._scale is WEIGHTS else np.float32)
        found = (user_index, known[item_codes[good]], rating, timestamp, block.line[good])
        for part, values in zip(self._parts, found, strict=True):
            part.append(values)

    def _places(self, items: pa.StringArray) -> np.ndarray:
        """Indices of the items, -1 for one that is not known."""
        if len(items) < _FEW_NAMES:
            return np.array([self._item_of.get(name, -1) for name in items.to_pylist()], np.int32)
        return pc.index_in(items, self._item_array).fill_null(-1).to_numpy(zero_copy_only=False)

    def _judge_ratings(self, block: ColumnBlock) -> tuple[np.ndarray, np.ndarray]:
        """Which rows have a rating, and the rating of those; the others are bad rows."""
        good = np.ones(len(block.line), bool)
        if not self._columns.rating:
            return good, np.ones(len(block.line))
        texts, codes = _names(block.text[self._columns.rating])
        values, reasons = np.zeros(len(texts)), np.full(len(texts), None)
        is_outside = np.zeros(len(texts), bool)
        for place, text in enumerate(texts):
            try:
                values[place] = self._scale.read(text)
            except ValueError as error:
                reasons[place] = str(error)
                is_outside[place] = isinstance(error, OutsideError)
        if is_outside.any():
            outside = [number_of("rating", text.removesuffix("%")) for text in np.array(texts)[is_outside]]
            self._outside += [is_outside[codes].sum(), min(outside), max(outside)]
        for kind in sorted({reason.partition(":")[0] for reason in reasons if reason}):
            of_kind = np.array([bool(reason) and reason.partition(":")[0] == kind for reason in reasons])
            self._leave_out(block, good, of_kind[codes], lambda i: reasons[codes[i]])
        return good, values[codes]

    def _leave_out(self, block: ColumnBlock, good: np.ndarray, bad: np.ndarray, reason: Callable[[int], str]) -> None:
        """Those of the good rows that are bad after all; they have one reason, particulars aside."""
        rows = np.flatnonzero(good & bad)
        if len(rows):
            kind = reason(rows[0]).partition(":")[0]
            self._bad_rows.count(
                self._path, kind, block.line[rows], lambda i: (reason(rows[i]), block.row(int(rows[i])))
            )
            good[rows] = False

    def number_of(self, names: Sequence[str], codes: np.ndarray) -> np.ndarray:
        """Numbers of the users [n], new ones as they appear."""
        # In the order of their first good row; a name whose rows are all bad has no number.
        first = np.full(len(names), len(codes))
        np.minimum.at(first, codes, np.arange(len(codes)))
        index = np.zeros(len(names), np.int32)
        for code in np.argsort(first, kind="stable"):
            if first[code] < len(codes):
                index[code] = self._user_of.setdefault(names[code], len(self._user_of))
        return index[codes]

    def _timestamps(self, block: ColumnBlock, good: np.ndarray) -> np.ndarray:
        if self._columns.timestamp not in block.numbers:
            return np.zeros(int(good.sum()))
        column = block.numbers[self._columns.timestamp]
        if pa.types.is_floating(column.type):
            found = column.fill_null(0).to_numpy()[good]
            is_bad = ~np.isfinite(found)

            def text(i: int) -> str:
                return str(found[i])

        else:
            texts = column.cast(pa.string()).filter(pa.array(good))  # a dictionary, where it is the users' column, say
            is_plain = pc.and_(pc.ascii_is_decimal(texts), pc.less_equal(pc.binary_length(texts), _PLAIN_DIGITS))
            plain = pc.if_else(is_plain, texts, None).cast(pa.float64())
            found = plain.to_numpy(zero_copy_only=False).copy()
            read = functools.cache(_timestamp)  # days, say, are repeated
            for place in np.flatnonzero(~is_plain.to_numpy(zero_copy_only=False)):
                moment = read(texts[int(place)].as_py())
                found[place] = math.nan if moment is None else moment
            is_bad = np.isnan(found)

            def text(i: int) -> str:
                return texts[int(i)].as_py()

        rows, places = np.flatnonzero(is_bad), np.flatnonzero(good)
        name = self._columns.timestamp
        self._doubtful.count(
            self._path,
            f"{name} is no time",
            block.line[places[rows]],
            lambda i: (f"{name} is no time: {text(rows[i])!r:.40}", block.row(int(places[rows[i]]))),
        )
        return np.where(is_bad, -math.inf, found)

    def check(self) -> None:
        """Raises UserError where the file is another one than was declared."""
        num_outside = int(sum(self._outside[::3]))
        num_rated = self._num_rated + num_outside
        if num_outside > max(_FEW_OUTSIDE, _MOST_OUTSIDE * num_rated):
            raise UserError(
                f"{self._path}: {num_outside} of {num_rated} ratings are outside of the scale {self._scale.name}, from "
                f"{min(self._outside[1::3])} to {max(self._outside[2::3])}: declare the scale that the file has"
            )
        if any(map(len, self._parts[0])):
            return
        if self._strangers and self._num_rated:
            raise UserError(
                f"{self._path}: no rating left: no {self._columns.item} there is the id of an item; there are "
                f"{', '.join(self._strangers[:3])}, the items are {', '.join(self._known_items[:3])} and so on. "
                "Is it another column, or are the two files of different data?"
            )
        first = next(iter(self._bad_rows), "none, there is only a header")
        raise UserError(f"{self._path}: no rating left: {len(self._bad_rows)} bad rows, the first: {first}")

    def table(self) -> RatingTable:
        users, items, ratings, timestamps, lines = map(_joined, self._parts)
        pair = users.astype(np.int64) * len(self._known_items) + items
        # MovieLens' files are in order, so that nothing is rated twice there.
        ordered = pair if np.all(pair[1:] > pair[:-1]) else np.sort(pair)
        repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        good = np.ones(len(pair), bool)
        if len(repeated) and self._scale is WEIGHTS:
            _, good, place = np.unique(pair, return_index=True, return_inverse=True)
            ratings = np.bincount(place, ratings)[np.argsort(good)]
            good = np.sort(good)
        elif len(repeated):
            among = np.flatnonzero(np.isin(pair, repeated))
            winner = among[_last_of_each_pair(pair[among], timestamps[among])]
            lost = winner != among
            losers, winner = among[lost], winner[lost]
            user_names = tuple(self._user_of)

            def row(i: int) -> tuple[str, str]:
                names = user_names[users[losers[i]]], self._known_items[items[losers[i]]]
                reason = f"duplicate: line {lines[winner[i]]} rates the same item later"
                return reason, f"{names[0]},{names[1]},{ratings[losers[i]]}"

            self._bad_rows.count(self._path, "duplicate", lines[losers], row)
            good[losers] = False
        self._bad_rows.sort()
        rating = ratings if self._scale is WEIGHTS else ratings[good]
        return RatingTable(
            user_names=tuple(self._user_of),
            item_names=self._known_items,
            user_index=users[good].astype(np.int32),
            item_index=items[good].astype(np.int32),
            rating=(np.log2(1 + rating) if self._scale is WEIGHTS else rating).astype(np.float32),
        )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """The parts as one array; they are given up, as there may be gigabytes of them."""
    joined = np.concatenate(parts)
    parts.clear()
    return joined


def _names(column: pa.DictionaryArray) -> tuple[list[str], np.ndarray]:
    """The different texts of a column, stripped, and which one each row has [n]."""
    return [name.strip() for name in column.dictionary.to_pylist()], column.indices.to_numpy()


def _timestamp(text: str) -> float | None:
    """Of a number or of an ISO date; "" is the oldest, None is no time."""
    text = text.strip()
    if not text:
        return 0.0
    try:
        return number_of("timestamp", text)
    except ValueError:
        pass
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _last_of_each_pair(pair: np.ndarray, timestamp: np.ndarray) -> np.ndarray:
    """For every position, the position of the last (timestamp, then place) with the same pair."""
    order = np.lexsort((np.arange(len(pair)), timestamp, pair))
    is_last = np.append(pair[order][1:] != pair[order][:-1], True)
    group_end = np.flatnonzero(is_last)
    group = np.cumsum(is_last) - is_last
    winner = np.empty(len(pair), int)
    winner[order] = order[group_end[group]]
    return winner
