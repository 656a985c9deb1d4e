"""Stages 5 to 7: the design over candidates, reference policies, and agents."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress, read_metrics
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.prompts import policy_prompt
from eagle_jax.design.reference_distribution import choose
from eagle_jax.eagle.agent.player import AgentTask
from eagle_jax.eagle.agent.reinforce import train_eagle
from eagle_jax.eagle.candidate_stage import CandidateSet
from eagle_jax.eagle.dpo.training import train_preference_agent
from eagle_jax.eagle.dpo.update import PreferenceAgentSettings
from eagle_jax.eagle.settings import AgentStageSettings, DesignStageSettings
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.embeddings.scorer import TRAIN
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer
from eagle_jax.reports.markdown import fact
from eagle_jax.stages.policy_models import PolicyModel
from eagle_jax.stages.supervised import training_records

_FACTORS = {
    "approximation_factor": "of q; 1 is the optimum",
    "kept_approximation_factor": "of equal weights on the kept candidates",
}


def usable_sets(candidate_sets: Sequence[CandidateSet], num_kept: int) -> list[CandidateSet]:
    """The entities with at least `num_kept` candidates that could be applied.

    Raises `UserError` when there is none: then the generator or the environment cannot write.
    """
    usable = [row for row in candidate_sets if row.is_valid.sum() >= num_kept]
    if not usable:
        raise UserError(
            f"no entity of {len(candidate_sets)} has {num_kept} candidates that are well-formed "
            "and applied by the environment: see candidates/facts.json for the reasons, choose "
            "other models or ask for more candidates"
        )
    return usable


def run_design_stage(
    stage: StageFolder,
    world: EagleWorld,
    candidate_sets: Sequence[CandidateSet],
    settings: DesignStageSettings,
    seed: int,
) -> dict[str, list[list[int]]]:
    """Kept candidates of each entity, by kind; writes chosen.json with the factors."""
    if not stage.is_complete():
        chosen: dict[str, list[dict]] = {kind: [] for kind in settings.kinds}
        for row in progress(candidate_sets, len(candidate_sets), "design", "entity"):
            for index, kind in enumerate(settings.kinds):
                result = choose(
                    kind,
                    row.next_embeddings,
                    world.scorer.catalogue_embeddings[row.entity_index],
                    row.next_utilities,
                    row.is_valid,
                    num_kept=settings.num_kept,
                    settings=settings.distribution,
                    key=jax.random.key(derive_seed(seed, row.entity_index, index)),
                )
                told = {"entity_index": row.entity_index, **world.catalogue.item_names(row.entity_index)}
                told |= result._asdict() | {"indices": result.indices.tolist()}
                del told["design_weights"]
                # JSON has no infinity: None where q misses a direction of change altogether.
                told |= {name: told[name] if math.isfinite(told[name]) else None for name in _FACTORS}
                chosen[kind].append(told)
        stage.write_json("chosen.json", chosen)
        stage.finish()
    chosen = stage.read_json("chosen.json")
    return {kind: [row["indices"] for row in rows] for kind, rows in chosen.items()}


def reference_pairs(
    world: EagleWorld, candidate_sets: Sequence[CandidateSet], kept: Sequence[Sequence[int]]
) -> list[tuple[str, str]]:
    """Policy prompt and action of every kept candidate: what the reference policy learns."""
    pairs = []
    for row, indices in zip(candidate_sets, kept, strict=True):
        description = world.catalogue.entities[row.entity_index].description
        for k in indices:
            profile = world.profiles[int(row.user_index[k])]
            prompt = policy_prompt(world.book, world.entity_format, description, profile)
            pairs.append((prompt.text, prompt.closed(row.actions[k])))
    return pairs


def check_actions_fit(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], max_new_tokens: int) -> None:
    """A warning that counts the actions of reference pairs that the policy will never write to their end.

    Raises `UserError` where these are more than half: what the reference policy learns is malformed then.
    """
    at_once = len(tokenizer.encode(""))  # a beginning token that is not written
    lengths = np.array([len(tokenizer.encode(completion)) - at_once for _, completion in pairs])
    too_long = int((lengths > max_new_tokens).sum())
    told = (
        f"agent.training.policy.max_new_tokens is {max_new_tokens}, but {too_long} of {len(pairs)} actions to be "
        f"learned have more tokens with what ends them, up to {lengths.max(initial=0)}"
    )
    if 2 * too_long > len(pairs):
        raise UserError(f"{told}: the policy could not write them; raise it")
    if too_long:
        logging.warning("%s", told)


def run_agent_stage(
    stage: StageFolder,
    world: EagleWorld,
    reference: LanguageModel,
    policy: PolicyModel,
    settings: AgentStageSettings,
    preference: PreferenceAgentSettings | None,
    seed: int,
) -> LanguageModel:
    """REINFORCE from a reference policy, or DPO where `preference` has its settings; the best agent
    by validation in model/, the last in last/.

    Writes metrics/ and facts.json too.
    """
    if not stage.is_complete():
        stage.begin()
        rng = np.random.default_rng(derive_seed(seed, 2))
        task = AgentTask(
            environment=world.environment,
            reward_fn=world.rewards,
            features_fn=world.value_features if preference is None else world.embed,
            draw_starts=lambda rng, count: world.draw_starts("train", rng, count),
            validation_starts=world.draw_starts("validation", rng, settings.num_validation_starts),
            judges={name: functools.partial(world.utilities, name) for name in world.scorers if name != TRAIN},
        )
        start = policy.for_training(reference), policy.training.mode, task
        run = {"records": training_records(stage), "seed": seed}
        if preference is None:
            result = train_eagle(*start, settings.training, **run)
        else:
            result = train_preference_agent(*start, preference, settings.training, **run)
        for folder, params in (("model", result.best_params), ("last", result.params)):
            policy.save(dataclasses.replace(reference, name=stage.name, params=params), stage.path / folder)
        calls = sum(row.get(f"{when}environment_calls", 0.0) for when in ("", "validation/") for row in result.history)
        stage.write_json("facts.json", {"best_step": result.best_step, "environment_calls": int(calls)})
        stage.finish()
    return policy.load(stage.path / "model")


def validation_gain(folder: Path) -> float | None:
    """Of the checkpoint that an agent's stage kept, the first of the best validation reward; None: of none."""
    rows = [row for row in read_metrics(folder / "metrics" / "metrics.jsonl") if "validation/reward" in row]
    return max(rows, key=lambda row: row["validation/reward"])["validation/gain"] if rows else None


def design_facts(candidates: StageFolder, design: StageFolder) -> list[dict[str, Any]]:
    """What both finished stages say of themselves."""
    rows = [
        fact(f"candidates: {name}", count, "count over all entities")
        for name, count in candidates.read_json("facts.json").items()
    ]
    by_kind = design.read_json("chosen.json")
    left_out = len(candidates.read_jsonl("candidates.jsonl")) - len(next(iter(by_kind.values())))
    rows.append(fact("entities left out", left_out, "too few of their candidates were well-formed"))
    for kind, chosen in by_kind.items():
        for name, meaning in _FACTORS.items():
            factors = [np.inf if row[name] is None else row[name] for row in chosen]
            rows.append(
                fact(
                    f"{kind}: {name}",
                    float(np.median(factors)),
                    f"median over entities, {meaning}; inf: a direction of change is missed",
                )
            )
        if any(row["num_draws"] for row in chosen):
            share = np.mean([row["accepted"] for row in chosen])
            rows.append(fact(f"{kind}: accepted", float(share), "share of entities"))
    return rows
