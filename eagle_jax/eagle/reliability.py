"""How far a run's utility can be trusted: encoders of two halves of its films, asked about the same texts.

Axis letters: `T` texts, `U` users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.splits import Split
from eagle_jax.eagle.user_space import known_items
from eagle_jax.embeddings.domain_encoder import FeaturesFn, compute_features
from eagle_jax.embeddings.reliability import (
    HalfEncoder,
    HalfSettings,
    agreement_of_halves,
    fit_half,
    halves,
    of_both_halves,
)
from eagle_jax.reports.markdown import fact

FILMS, CANDIDATES = "films", "candidates"  # texts that halves are asked about
_ABOUT = {FILMS: "held-out films", CANDIDATES: "candidate texts of an anchor"}
_FILE = "half_{}.npz"


def fit_halves(
    stage: StageFolder, split: Split, features: np.ndarray, settings: HalfSettings, seed: int
) -> dict[str, Any]:
    """Encoders of halves of the known films, kept in half_0.npz and half_1.npz; what they say of the
    held-out ones. features: of all texts [N, F]."""
    held_out = np.concatenate([split.entities["validation"], split.entities["test"]])
    pair = []
    for index, ratings in enumerate(halves(split.train, known_items(split), derive_seed(seed, 2))):
        pair.append(fit_half(ratings, features, settings, derive_seed(seed, 3, index)))
        stage.write_arrays(_FILE.format(index), pair[-1].to_arrays())
    return _told(pair, features[held_out], np.zeros(len(held_out), int), split)


def run_reliability_stage(
    stage: StageFolder, encoders: StageFolder, candidates: StageFolder, features_fn: FeaturesFn, split: Split
) -> None:
    """What the encoders of halves say of the candidates; writes facts.json."""
    if not stage.is_complete():
        rows = candidates.read_jsonl("candidates.jsonl")
        stage.write_json("facts.json", candidates_reliability(encoders, rows, features_fn, split))
        stage.finish()


def candidates_reliability(
    encoders: StageFolder, rows: Sequence[dict[str, Any]], features_fn: FeaturesFn, split: Split
) -> dict[str, Any] | None:
    """The same of what candidate actions make of an anchor (lines of candidates.jsonl); None where
    there is nothing to choose between."""
    texts = [[step["description"] for step in row["next"] if step["malformed"] is None] for row in rows]
    groups = np.repeat(np.arange(len(rows)), [len(own) for own in texts])
    if max(map(len, texts), default=0) < 2:
        return None
    pair = [HalfEncoder.from_arrays(encoders.read_arrays(_FILE.format(index))) for index in (0, 1)]
    features = compute_features(features_fn, [text for own in texts for text in own])
    return _told(pair, features, groups, split)


def _told(pair: Sequence[HalfEncoder], features: np.ndarray, groups: np.ndarray, split: Split) -> dict[str, Any]:
    users = np.concatenate(list(split.users.values()))
    found = agreement_of_halves(*(half.terms(features) for half in pair), groups, users)
    return {**found._asdict(), "num_texts": len(features), "num_users": len(users)}


def reliability_facts(told: Mapping[str, Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """Lines for the report; told: `FILMS` and `CANDIDATES` -> what was found, None: nothing."""
    lines = []
    for texts, found in told.items():
        if found is None:
            continue
        for part, what in (("common", "what everybody likes"), ("personal", "what this user likes")):
            lines.append(
                fact(
                    f"{what}, over {_ABOUT[texts]}: reliability",
                    found[part],
                    "correlation of two encoders that share no film and no rating; "
                    f"of both halves together {of_both_halves(found[part]):.2f}",
                )
            )
        lines.append(
            fact(
                f"the common share, over {_ABOUT[texts]}",
                found["common_share"],
                f"of the user term's variance, {found['num_texts']} texts, {found['num_users']} users",
            )
        )
    return lines


def trust_sentences(told: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """The same in words."""
    return [
        f"Over {_ABOUT[texts]} the two correlate at {found['common']:.2f} on what everybody likes and at "
        f"{found['personal']:.2f} on what a user likes; {found['common_share']:.0%} of the user term's variance is "
        "the same for all."
        for texts, found in told.items()
        if found is not None
    ]
