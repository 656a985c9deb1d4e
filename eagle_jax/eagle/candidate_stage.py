"""Stage 4: candidate actions and what each of them makes of its entity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.splits import Split
from eagle_jax.eagle.candidates import ProposalContext, apply_candidates, count_candidates, propose_candidates
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.eagle.settings import CandidateStageSettings
from eagle_jax.embeddings.scorer import Scorer


class CandidateSet(NamedTuple):
    """The K candidates of one entity: texts, and next embeddings and utilities as arrays.

    user_index [K]: whose profile a personalised action was written for; for a generic one the
    training user that it was given to afterwards.
    """

    entity_index: int
    actions: list[str | None]
    user_index: np.ndarray
    next_embeddings: np.ndarray  # [K, d]
    next_utilities: np.ndarray  # [K]
    is_valid: np.ndarray  # [K]


def run_candidate_stage(
    stage: StageFolder,
    catalogue: Catalogue,
    split: Split,
    profiles: Mapping[int, str],
    context: ProposalContext,
    environment: LLMEnvironment,
    scorer: Scorer,
    settings: CandidateStageSettings,
    seed: int,
) -> list[CandidateSet]:
    """Candidates of `num_entities` training anchors, a chunk of entities at a time.

    `context.profiles` are those of the training users in the order of split.users["train"].
    Writes candidates.jsonl, next.npz and facts.json.
    """
    users = split.users["train"]
    if not stage.is_complete():
        rng = np.random.default_rng(seed)
        anchors = rng.permutation(split.entities["train"])[: settings.num_entities].tolist()
        size = settings.entities_per_chunk
        chunks = [anchors[first : first + size] for first in range(0, len(anchors), size)]
        rows = []
        for index, chunk in enumerate(progress(chunks, len(chunks), "candidates", "chunk")):
            rows += stage.chunk(
                index, lambda chunk=chunk: _propose_and_apply(catalogue, context, environment, settings, chunk, seed)
            )
        _write(stage, catalogue, rows, users, scorer, seed)
        stage.finish()
    arrays = stage.read_arrays("next.npz")
    sets = []
    for index, row in enumerate(stage.read_jsonl("candidates.jsonl")):
        actions = [candidate["action"] for candidate in row["candidates"]]
        of_set = {name: values[index] for name, values in arrays.items()}
        sets.append(CandidateSet(row["entity_index"], actions, **of_set))
    return sets


def _propose_and_apply(
    catalogue: Catalogue,
    context: ProposalContext,
    environment: LLMEnvironment,
    settings: CandidateStageSettings,
    anchors: list[int],
    seed: int,
) -> list[dict[str, Any]]:
    entities = [(i, catalogue.entities[i].description) for i in anchors]
    candidates = propose_candidates(context, entities, settings.candidates, seed)
    steps = apply_candidates(environment, entities, candidates, derive_seed(seed, 1))
    return [
        {
            "entity_index": entity,
            "candidates": [
                {
                    "action": candidate.action,
                    "category": candidate.category,
                    "user": candidate.user_index,
                    "malformed": candidate.malformed,
                }
                for candidate in of_entity
            ],
            "next": [{"description": step.description, "malformed": step.malformed} for step in outcomes],
            "counts": count_candidates([of_entity], [outcomes]),
        }
        for entity, of_entity, outcomes in zip(anchors, candidates, steps, strict=True)
    ]


def _write(
    stage: StageFolder, catalogue: Catalogue, rows: list[dict[str, Any]], users: np.ndarray, scorer: Scorer, seed: int
) -> None:
    """Users of all candidates, next embeddings and utilities, and counts for the report."""
    rng = np.random.default_rng(derive_seed(seed, 2))
    columns: dict[str, list] = {"user_index": [], "next_embeddings": [], "next_utilities": [], "is_valid": []}
    counts: dict[str, int] = {}
    for row in rows:
        drawn = rng.integers(len(users), size=len(row["candidates"]))
        places = [
            int(drawn[k]) if candidate["user"] is None else candidate["user"]
            for k, candidate in enumerate(row["candidates"])
        ]
        user_index = users[np.array(places)]
        embeddings = scorer.embed([step["description"] for step in row["next"]])
        columns["user_index"].append(user_index)
        columns["next_embeddings"].append(embeddings)
        columns["next_utilities"].append(scorer.terms(embeddings, user_index).utility)
        columns["is_valid"].append([step["malformed"] is None for step in row["next"]])
        for reason, count in row["counts"].items():
            counts[reason] = counts.get(reason, 0) + count
    stage.write_jsonl("candidates.jsonl", (_named(catalogue, row, users) for row in rows))
    stage.write_arrays("next.npz", {name: np.array(values) for name, values in columns.items()})
    stage.write_json("facts.json", counts)


def _named(catalogue: Catalogue, row: dict[str, Any], users: np.ndarray) -> dict[str, Any]:
    """The row with id and title of its entity, and the ids of the users that candidates are for."""
    candidates = [
        candidate
        | {"user_id": None if (place := candidate["user"]) is None else catalogue.user_names(users[place])["user_id"]}
        for candidate in row["candidates"]
    ]
    return {
        "entity_index": row["entity_index"],
        **catalogue.item_names(row["entity_index"]),
        **row,
        "candidates": candidates,
    }
