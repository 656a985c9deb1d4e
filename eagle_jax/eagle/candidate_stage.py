"""Stage 4: candidate actions, proposed by a language model, and what each makes of its entity.

Half generic, half for the profile of a training user drawn at random, over the five categories of
the entity format (Tennenholtz et al. 2024, section 4.2); then some of a list, where there is one.
All that is drawn for an entity depends on the seed and its index alone, whatever other entities there are.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.prompts import MalformedText, generic_action_prompt, personalised_action_prompt
from eagle_jax.eagle.environment import Step
from eagle_jax.eagle.roles.listed_actions import ActionList, ListedActionSettings
from eagle_jax.eagle.settings import CandidateStageSettings
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.language_model.generation import TextGenerator, write_block


class CandidateSet(NamedTuple):
    """The K candidates of one entity: texts, and next embeddings and utilities as arrays.

    user_index [K]: whose profile a personalised action was written for; for a generic one the
    training user that it was given to afterwards.
    """

    entity_index: int
    actions: list[str | None]
    next_descriptions: list[str]
    user_index: np.ndarray
    next_embeddings: np.ndarray  # [K, d]
    next_utilities: np.ndarray  # [K], as `EagleWorld.rewards` has them
    is_valid: np.ndarray  # [K]

    def applied(self) -> list[tuple[str, str]]:
        """The actions that could be applied, each with the text that it led to."""
        led = zip(self.actions, self.next_descriptions, self.is_valid, strict=True)
        return [(action, text) for action, text, is_valid in led if is_valid]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A proposed action; None where all tries were malformed, for the reasons in `malformed`."""

    action: str | None
    category: str
    user: int | None  # whose profile the generator saw, a place among the training users; None: generic
    malformed: Sequence[str]


def run_candidate_stage(
    stage: StageFolder,
    world: EagleWorld,
    generator: TextGenerator,
    settings: CandidateStageSettings,
    seed: int,
    listed_actions: ListedActionSettings | None = None,
) -> list[CandidateSet]:
    """Candidates of `num_entities` training anchors, a chunk of entities at a time.

    Writes candidates.jsonl, next.npz and facts.json.
    """
    if not stage.is_complete():
        listed = ActionList.read(listed_actions, world.entity_format)
        rng = np.random.default_rng(seed)
        anchors = rng.permutation(world.split.entities["train"])[: settings.num_entities].tolist()
        size = settings.entities_per_chunk
        chunks = [anchors[first : first + size] for first in range(0, len(anchors), size)]
        rows = []
        for index, chunk in enumerate(progress(chunks, len(chunks), "candidates", "chunk")):
            rows += stage.chunk(
                index, lambda chunk=chunk: [_row(world, generator, entity, settings, seed, listed) for entity in chunk]
            )
        _write(stage, rows, world, seed)
        stage.finish()
    arrays = stage.read_arrays("next.npz")
    sets = []
    for index, row in enumerate(stage.read_jsonl("candidates.jsonl")):
        actions = [candidate["action"] for candidate in row["candidates"]]
        of_set = {name: values[index] for name, values in arrays.items()}
        texts = [step["description"] for step in row["next"]]
        sets.append(CandidateSet(row["entity_index"], actions, texts, **of_set))
    return sets


def _row(
    world: EagleWorld,
    generator: TextGenerator,
    entity_index: int,
    settings: CandidateStageSettings,
    seed: int,
    listed: ActionList,
) -> dict[str, Any]:
    candidates = propose_candidates(world, generator, entity_index, settings, derive_seed(seed, entity_index, 0))
    candidates += [
        Candidate(action=action, category=kind, user=None, malformed=())
        for kind, action in listed.draw(derive_seed(seed, entity_index, 2))
    ]
    before = Counter(world.environment.malformed_tries)
    steps = apply_candidates(world, entity_index, candidates, derive_seed(derive_seed(seed, 1), entity_index, 1))
    return {
        "entity_index": entity_index,
        "candidates": [dataclasses.asdict(candidate) for candidate in candidates],
        "next": [{"description": step.description, "malformed": step.malformed} for step in steps],
        "counts": count_candidates(candidates, steps) | _retried(steps, world.environment.malformed_tries - before),
    }


def propose_candidates(
    world: EagleWorld, generator: TextGenerator, entity_index: int, settings: CandidateStageSettings, seed: int
) -> list[Candidate]:
    """num_generic, then num_personalised candidates of an entity."""
    asked, entity_format = settings.candidates, world.entity_format
    description = world.catalogue.entities[entity_index].description
    train_users = world.split.users["train"]
    drawn = np.random.default_rng(seed).integers(len(train_users), size=asked.num_personalised)
    users = [None] * asked.num_generic + drawn.tolist()
    kinds = entity_format.action_categories
    categories = [kinds[place % len(kinds)] for place in range(len(users))]
    prompts = [
        generic_action_prompt(world.book, entity_format, description, category)
        if user is None
        else personalised_action_prompt(
            world.book, entity_format, description, category, world.profiles[int(train_users[user])]
        )
        for user, category in zip(users, categories, strict=True)
    ]
    actions, malformed = write_block(generator, prompts, "ACTION", settings.sampling, seed, asked.max_tries)
    return [
        Candidate(action=action, category=category, user=user, malformed=reasons)
        for action, category, user, reasons in zip(actions, categories, users, malformed, strict=True)
    ]


def apply_candidates(world: EagleWorld, entity_index: int, candidates: Sequence[Candidate], seed: int) -> list[Step]:
    """What the entity becomes by each candidate: one environment call for each that has an action."""
    description = world.catalogue.entities[entity_index].description
    actions = [MalformedText(c.malformed[-1], "every try") if c.action is None else c.action for c in candidates]
    return world.environment.step([description] * len(candidates), actions, seed)


def count_candidates(candidates: Sequence[Candidate], steps: Sequence[Step]) -> Counter[str]:
    """For the report: proposals, duplicates, and what was malformed, by reason."""
    actions = [candidate.action for candidate in candidates if candidate.action is not None]
    counts = Counter({"candidates": len(candidates), "duplicates": len(actions) - len(set(actions))})
    counts.update(f"action:{reason}" for candidate in candidates for reason in candidate.malformed)
    counts.update(step.malformed for step in steps if step.action is not None and step.malformed)
    return counts


def _retried(steps: Sequence[Step], reasons: Counter[str]) -> Counter[str]:
    """Tries of the environment that could not be read, where any was asked for again."""
    was_repeated = any(step.num_calls > 1 for step in steps)
    return Counter({f"environment_try:{reason}": count for reason, count in reasons.items() if was_repeated})


def _write(stage: StageFolder, rows: list[dict[str, Any]], world: EagleWorld, seed: int) -> None:
    """Users of all candidates, next embeddings and utilities, and counts for the report."""
    users, scorer = world.split.users["train"], world.scorer
    rng = np.random.default_rng(derive_seed(seed, 2))
    columns: dict[str, list] = {"user_index": [], "next_embeddings": [], "next_utilities": [], "is_valid": []}
    counts: Counter[str] = Counter()
    for row in rows:
        drawn = rng.integers(len(users), size=len(row["candidates"])).tolist()
        own = [candidate["user"] for candidate in row["candidates"]]
        user_index = users[[place if user is None else user for user, place in zip(own, drawn, strict=True)]]
        texts = [step["description"] for step in row["next"]]
        embeddings = scorer.embed(texts)
        columns["user_index"].append(user_index)
        columns["next_embeddings"].append(embeddings)
        anchors = [world.catalogue.entities[row["entity_index"]].description] * len(texts)
        utilities = scorer.terms(embeddings, user_index).utility
        columns["next_utilities"].append(world.with_quality(utilities, texts, anchors))
        columns["is_valid"].append([step["malformed"] is None for step in row["next"]])
        counts.update(row["counts"])
    stage.write_jsonl("candidates.jsonl", (_named(row, world) for row in rows))
    stage.write_arrays("next.npz", {name: np.array(values) for name, values in columns.items()})
    stage.write_json("facts.json", counts)


def _named(row: dict[str, Any], world: EagleWorld) -> dict[str, Any]:
    """The row with id and title of its entity, and the ids of the users that candidates are for."""
    catalogue, users = world.catalogue, world.split.users["train"]
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
