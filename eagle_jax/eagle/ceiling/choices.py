"""What choosing gains: the best of some texts by the reward, judged by another encoder.

Under an encoder, U of a text z for a user u is c(z) + p_u(z) + o(z): what everybody likes, what this user
likes (`embeddings.reliability`), and what has nothing to do with users, as novelty. A choice picks a text for
each pair of an anchor and a user by the reward's U alone; its gain under either encoder is that text's U less
the anchor's, part by part.

Axis letters: `A` anchors, `U` users, `T` texts of an anchor, the anchor's own first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.embeddings.reliability import UserTerms, agreement_of_halves, user_terms
from eagle_jax.embeddings.scorer import HELD_OUT, INDEPENDENT, Scorer
from eagle_jax.reports.statistics import BootstrapSettings, crossed_interval

GAIN_PARTS = {
    "utility": "Gain in U",
    "user_term": "Of it: user term",
    "common": "What everybody likes",
    "personal": "What this user likes",
    "other": "Not of users (novelty, quality)",
}
BEST_REWRITING, ONE_INSTRUCTION, ANY_INSTRUCTION = "best", "one instruction", "any instruction"
FOR_ANOTHER = "best for another"
FIELD_CHANGE, OTHER_ENTITIES = "field change", "other entities"


class Worth(NamedTuple):
    """What an encoder says of an anchor's texts."""

    common: np.ndarray  # [T]
    personal: np.ndarray  # [U, T]
    other: np.ndarray  # [T]

    def part(self, name: str) -> np.ndarray:
        """[U, T] of one of `GAIN_PARTS`."""
        parts = {"common": self.common[None], "personal": self.personal, "other": self.other[None]}
        wanted = {"utility": parts, "user_term": ("common", "personal")}.get(name, (name,))
        return sum(parts[one] for one in wanted) + np.zeros_like(self.personal)


def worth(scorer: Scorer, texts: Sequence[str], users: np.ndarray) -> Worth:
    """Of texts [T] for users [U], by their indices."""
    embeddings = scorer.embed(texts)
    parts = user_terms(scorer.user_embeddings, embeddings)
    terms = scorer.terms(embeddings, np.zeros(len(texts), np.int32))
    return Worth(parts.common, parts.personal[users], np.float64(terms.utility) - np.float64(terms.user_term))


def choices(rewards: Sequence[np.ndarray], num_rewrites: int, num_others: int) -> dict[str, list[np.ndarray]]:
    """Name of a choice -> for each anchor the weight of each text for each user [U, T]; rows sum to 1.

    rewards: U by the reward of each anchor's texts [U, T]: the anchor, `num_rewrites` rewritings by the same
    instructions in the same order, changes of its fields by rule, `num_others` other entities. The anchor itself stays
    where nothing is better. FOR_ANOTHER: each user gets what is best for the next one, of which nothing is personal.
    """
    fixed = int(np.argmax([0.0, *mean_gains(rewards, num_rewrites)]))

    def one_hot(reward: np.ndarray, places: np.ndarray) -> np.ndarray:
        return np.eye(reward.shape[1])[places]

    def best_of(reward: np.ndarray, first: int, last: int) -> np.ndarray:
        places = np.r_[0, first:last]
        return one_hot(reward, places[reward[:, places].argmax(axis=1)])

    def even(reward: np.ndarray) -> np.ndarray:
        weights = np.zeros_like(reward)
        weights[:, 1 : num_rewrites + 1] = 1 / num_rewrites
        return weights

    ends = [reward.shape[1] - num_others for reward in rewards]
    found = {
        BEST_REWRITING: [best_of(reward, 1, num_rewrites + 1) for reward in rewards],
        FOR_ANOTHER: [np.roll(best_of(reward, 1, num_rewrites + 1), -1, axis=0) for reward in rewards],
        ONE_INSTRUCTION: [one_hot(reward, np.full(len(reward), fixed)) for reward in rewards],
        ANY_INSTRUCTION: [even(reward) for reward in rewards],
        FIELD_CHANGE: [best_of(reward, num_rewrites + 1, end) for reward, end in zip(rewards, ends, strict=True)],
        OTHER_ENTITIES: [best_of(reward, end, reward.shape[1]) for reward, end in zip(rewards, ends, strict=True)],
    }
    if max(ends) == num_rewrites + 1:
        del found[FIELD_CHANGE]
    return found


def mean_gains(rewards: Sequence[np.ndarray], num_rewrites: int) -> np.ndarray:
    """Of each instruction over all anchors and users, by the reward [num_rewrites]."""
    return np.mean([reward[:, 1 : num_rewrites + 1].mean(axis=0) - reward[:, 0].mean() for reward in rewards], axis=0)


def gains(weights: Sequence[np.ndarray], worths: Sequence[Worth], part: str) -> np.ndarray:
    """Of each anchor and user [A, U]."""
    found = []
    for weight, own in zip(weights, worths, strict=True):
        values = own.part(part)
        found.append(np.sum(weight * (values - values[:, :1]), axis=1))
    return np.stack(found)


def measure(
    worths: Mapping[str, Sequence[Worth]],
    reward: str,
    instructions: Sequence[str],
    num_others: int,
    bootstrap: BootstrapSettings,
) -> dict[str, Any]:
    """All that the report says, JSON-able: a row for each choice, with gains under each encoder by part.

    worths: encoder, or what it is called where fields are held -> of each anchor; `reward` is the one that chooses.
    """
    num_rewrites = len(instructions)
    rewards = [own.part("utility") for own in worths[reward]]
    found = choices(rewards, num_rewrites, num_others)
    best_first = np.argsort(-mean_gains(rewards, num_rewrites), kind="stable")
    num_anchors, num_users = len(worths[reward]), len(worths[reward][0].personal)
    films, users = np.repeat(np.arange(num_anchors), num_users), np.tile(np.arange(num_users), num_anchors)
    rows = [
        {
            "choice": name,
            "cells": {
                f"{encoder}/{part}": crossed_interval(
                    gains(weights, worths[encoder], part).ravel(), bootstrap, films, users
                ).as_cell()
                for encoder in worths
                for part in GAIN_PARTS
            },
        }
        for name, weights in found.items()
    ]
    chosen = np.mean([weight[:, : num_rewrites + 1].mean(axis=0) for weight in found[BEST_REWRITING]], axis=0)
    favourite = int(chosen[1:].argmax())
    return {
        "rows": rows,
        "instructions": [instructions[place] for place in best_first],
        "favourite": instructions[favourite],
        "favourite_share": float(chosen[1 + favourite]),
        "anchor_share": float(chosen[0]),
        "fixed": ("the anchor as it is", *instructions)[int(found[ONE_INSTRUCTION][0][0].argmax())],
        "reliability": {
            encoder: _agreement(worths[reward], worths[encoder], num_rewrites)
            for encoder in (HELD_OUT, INDEPENDENT)
            if encoder in worths
        },
        "num_anchors": num_anchors,
        "num_users": num_users,
    }


def _agreement(first: Sequence[Worth], second: Sequence[Worth], num_rewrites: int) -> dict[str, float]:
    """Of two encoders on the rewritings of the same anchor."""
    rewrites = slice(1, num_rewrites + 1)
    pair = [
        UserTerms(
            np.concatenate([own.common[rewrites] for own in worths]),
            np.concatenate([own.personal[:, rewrites] for own in worths], axis=1),
        )
        for worths in (first, second)
    ]
    groups = np.repeat(np.arange(len(first)), num_rewrites)
    return agreement_of_halves(*pair, groups, np.arange(len(first[0].personal)))._asdict()
