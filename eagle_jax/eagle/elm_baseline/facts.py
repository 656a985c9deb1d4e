"""What EAGLE's report says about ELM as the baseline: its sweep, and what its stages found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from eagle_jax.base.work_directory import StageFolder
from eagle_jax.reports.markdown import fact, facts_of

SEARCH, DECODERS = "elm_search", "elm_"  # the stage, and what the names of the decoders' begin with
_DECODER_MEANINGS = {
    "num_points": "validation entities, which no decoder was trained on",
    "loss_given_own_point": "nats per token of their texts, given their points",
    "loss_given_another_point": "the same, given the points of others: what a point says is more "
    "than nothing where this is higher",
    "decoded_cosine": "of E_D(text decoded at a point) with the point",
    "own_text_cosine": "of E_D(the entity's own text) with it: no decoder is asked",
    "decoded_distance": "of E_D(text decoded at a point) from the point",
    "own_text_distance": "of E_D(the entity's own text) from it",
    "nearest_distance": "median distance of these points to their nearest: what is far",
}
_SEARCH_MEANINGS = {
    "metric": "chosen on validation pairs, with the radius, by U under the training encoder",
    "radius": "in median distances of a training entity to its nearest one",
    "unit": "this median distance",
    "num_pairs": "validation pairs",
    "num_centers": "different entities that were centers of balls there",
    "seconds_per_jacobian": "of a decoder, for the pull-back metric of one center, in a batch",
    "forward_passes_per_jacobian": "what that is in forward passes of the same batch",
}


def sweep(stages: Mapping[str, StageFolder]) -> list[dict[str, Any]]:
    """The rows of sweep.json with `chosen`; none where no ELM was asked for."""
    if SEARCH not in stages:
        return []
    facts = stages[SEARCH].read_json("facts.json")
    rows = stages[SEARCH].read_json("sweep.json")
    wanted = facts["metric"], facts["radius"]
    return [row | {"chosen": (row["metric"], row["radius"]) == wanted} for row in rows]


def elm_facts(stages: Mapping[str, StageFolder]) -> list[dict[str, Any]]:
    """Facts of the decoders, means over seeds, and of the search."""
    names = [name for name in stages if name.startswith(DECODERS) and name != SEARCH]
    decoders = [stages[name].read_json("facts.json") for name in names]
    search = stages[SEARCH].read_json("facts.json")
    means = {name: float(np.mean([facts[name] for facts in decoders])) for name in _DECODER_MEANINGS}
    malformed = sum(sum(facts["malformed"].values()) for facts in decoders)
    calls = "of a decoder for one text of the table's row"
    per_text = 1
    if search["metric"] == "pull_back":
        calls += ", and one for each center, whose metric follows its text"
        per_text += search["num_centers_of_a_pair"]
    return [
        fact("decoders", len(decoders), "one for each seed; what follows are means over them"),
        *facts_of(means, _DECODER_MEANINGS),
        fact("malformed", malformed, "texts of validation entities, over all decoders"),
        *facts_of(search, _SEARCH_MEANINGS),
        fact("decoder calls", per_text, calls),
    ]
