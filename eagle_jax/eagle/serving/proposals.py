"""What an agent proposes: one changed text for a user, with all that is known about it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.data.catalogue import Entity
from eagle_jax.eagle.environment import Step
from eagle_jax.eagle.evaluation.episodes import reward_of
from eagle_jax.embeddings.nearest import find_nearest

NEAR_COPY = 0.9  # share of words in common, from which on a text is a near copy of another


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proposal:
    """A text for a user, from the item it started from.

    rank: place by what the training rewards among those for the same item and user, from 1.
    """

    item_id: str
    title: str
    user_id: str
    rank: int
    text: str
    steps: tuple[Step, ...]
    utility: Mapping[str, Mapping[str, float]]  # encoder -> U and its terms, and quality
    gain: Mapping[str, float]  # encoder -> U less that of the item
    predicted_rating: float  # by the held-out encoder, in the unit of the ratings
    rating_low: float  # ends of the interval of `rating_intervals.COVERAGE`
    rating_high: float
    nearest: tuple[Mapping[str, Any], ...]  # {"item_id", "title", "distance"} under the training encoder
    distance_to_anchor: float  # under the held-out encoder
    nearer_share: float  # of the other items: those nearer to the anchor than the text is, see `faithfulness`
    left_anchor: bool  # by `faithfulness.QUANTILE` of them
    unchanged: bool  # the text is the item's
    near_copy_of: str | None  # id of another of the nearest items with `NEAR_COPY` of its words in common
    same_as_user: str | None  # an earlier user to whom the same text was proposed, from the same item
    malformed: Mapping[str, int]  # reason -> count over the steps
    environment_calls: int
    num_tokens: int | None  # read and written by policy and environment; None: one does not tell
    seconds: float  # the only field that another run of the same seed does not repeat

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Proposal:
        steps = tuple(Step(**step) for step in value["steps"])
        return cls(**{**value, "steps": steps, "nearest": tuple(value["nearest"])})


def ranked(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Those for one item and user, best training reward first (of equal ones the one played first).

    A text that was found twice is proposed once, at the price of both.
    """
    by_text: dict[str, Proposal] = {}
    for proposal in proposals:
        first = by_text.get(proposal.text)
        by_text[proposal.text] = proposal if first is None else _at_the_price_of_both(first, proposal)
    best_first = sorted(by_text.values(), key=lambda proposal: -reward_of(proposal.utility["train"]))
    return [dataclasses.replace(proposal, rank=rank) for rank, proposal in enumerate(best_first, start=1)]


def _at_the_price_of_both(first: Proposal, second: Proposal) -> Proposal:
    tokens = first.num_tokens, second.num_tokens
    return dataclasses.replace(
        first,
        environment_calls=first.environment_calls + second.environment_calls,
        num_tokens=None if None in tokens else sum(tokens),
        seconds=first.seconds + second.seconds,
    )


def with_earlier_users(proposals: Iterable[Proposal]) -> Iterator[Proposal]:
    """Fills in `same_as_user`; those of one item have to follow each other."""
    item, first_users = None, {}
    for proposal in proposals:
        if proposal.item_id != item:
            item, first_users = proposal.item_id, {}
        first = first_users.setdefault(proposal.text, proposal.user_id)
        yield dataclasses.replace(proposal, same_as_user=None if first == proposal.user_id else first)


def nearest_items(
    embeddings: np.ndarray, catalogue: np.ndarray, items: Sequence[Entity], count: int
) -> list[list[dict]]:
    """For each embedding [B, d] the `count` items nearest to it among theirs [N, d], the nearest first."""
    found, distances = find_nearest(embeddings, catalogue, min(count, len(catalogue)))
    return [
        [
            {"item_id": items[place].entity_id, "title": items[place].title, "distance": float(distance)}
            for place, distance in zip(*of_one, strict=True)
        ]
        for of_one in zip(found, distances, strict=True)
    ]


def near_copy(text: str, others: Iterable[Entity]) -> str | None:
    """The id of the first of the others that has `NEAR_COPY` of its words in common with `text`."""
    words = text.split()
    for other in others:
        if difflib.SequenceMatcher(None, words, other.description.split(), autojunk=False).ratio() >= NEAR_COPY:
            return other.entity_id
    return None


class Summary:
    """Counts over proposals, whatever their number."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._num = 0
        self._num_tokens: int | None = 0
        self._best_of_item: dict[str, list] = {}  # item -> [digest of the first user's best text, users, all alike]

    def add(self, proposal: Proposal) -> None:
        self._num += 1
        values = {
            "train_gain": proposal.gain["train"],
            "held_out_gain": proposal.gain["held_out"],
            "left_anchor_share": proposal.left_anchor,
            "unchanged_share": proposal.unchanged,
            "near_copy_share": proposal.near_copy_of is not None,
            "same_as_another_user_share": proposal.same_as_user is not None,
            "malformed_share": sum(proposal.malformed.values()) / max(len(proposal.steps), 1),
            "environment_calls": proposal.environment_calls,
            "seconds": proposal.seconds,
        }
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        tokens = self._num_tokens, proposal.num_tokens
        self._num_tokens = None if None in tokens else sum(tokens)
        if proposal.rank == 1:
            best = self._best_of_item.setdefault(proposal.item_id, [hash(proposal.text), 0, True])
            best[1] += 1
            best[2] &= best[0] == hash(proposal.text)

    def to_json(self) -> dict[str, Any]:
        """Shares and gains are means over proposals, calls, tokens and seconds sums.

        `same_for_all_users_share` is one of the items proposed from for two users or more: those
        whose best text is the same for all of them; None without any.
        """
        totals = ("environment_calls", "seconds")
        means = {name: value / self._num for name, value in self._sums.items() if name not in totals}
        alike = [same for _, users, same in self._best_of_item.values() if users > 1]
        return {
            "num_proposals": self._num,
            **means,
            "same_for_all_users_share": sum(alike) / len(alike) if alike else None,
            "num_items_with_several_users": len(alike),
            "environment_calls": int(self._sums.get("environment_calls", 0)),
            "num_tokens": self._num_tokens,
            "seconds": round(self._sums.get("seconds", 0.0), 1),
        }
