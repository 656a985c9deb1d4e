"""Stages 5 to 7: the design over candidates, reference policies, and agents."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import PromptBook, policy_prompt
from eagle_jax.design.reference_distribution import choose
from eagle_jax.eagle.agent.reinforce import EagleTask, train_eagle
from eagle_jax.eagle.candidate_stage import CandidateSet
from eagle_jax.eagle.dpo.training import PreferenceTask, train_preference_agent
from eagle_jax.eagle.dpo.update import PreferenceAgentSettings
from eagle_jax.eagle.episodes import Episodes
from eagle_jax.eagle.settings import AgentStageSettings, DesignStageSettings
from eagle_jax.embeddings.scorer import Scorer
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.sharding import MeshSettings
from eagle_jax.learning.loop import AgentResult
from eagle_jax.reports.markdown import fact
from eagle_jax.stages.models import load_model, model_path
from eagle_jax.stages.policy_models import PolicyTrainingSettings, for_training, load_policy, save_policy
from eagle_jax.stages.supervised import training_records


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
    catalogue: Catalogue,
    candidate_sets: Sequence[CandidateSet],
    scorer: Scorer,
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
                    scorer.catalogue_embeddings[row.entity_index],
                    row.next_utilities,
                    row.is_valid,
                    num_kept=settings.num_kept,
                    settings=settings.distribution,
                    key=jax.random.key(derive_seed(seed, row.entity_index, index)),
                )
                chosen[kind].append(
                    {
                        "entity_index": row.entity_index,
                        **catalogue.item_names(row.entity_index),
                        "indices": result.indices.tolist(),
                        "approximation_factor": _finite(result.approximation_factor),
                        "kept_approximation_factor": _finite(result.kept_approximation_factor),
                        "rank": result.rank,
                        "kept_energy": result.kept_energy,
                        "num_draws": result.num_draws,
                        "accepted": result.accepted,
                    }
                )
        stage.write_json("chosen.json", chosen)
        stage.finish()
    chosen = stage.read_json("chosen.json")
    return {kind: [row["indices"] for row in rows] for kind, rows in chosen.items()}


def _finite(factor: float) -> float | None:
    """JSON has no infinity: None where q misses a direction of change altogether."""
    return factor if math.isfinite(factor) else None


def reference_pairs(
    catalogue: Catalogue,
    book: PromptBook,
    profiles: Mapping[int, str],
    candidate_sets: Sequence[CandidateSet],
    kept: Sequence[Sequence[int]],
) -> list[tuple[str, str]]:
    """Policy prompt and action of every kept candidate: what the reference policy learns."""
    fmt = catalogue.entity_format
    pairs = []
    for row, indices in zip(candidate_sets, kept, strict=True):
        description = catalogue.entities[row.entity_index].description
        for k in indices:
            profile = profiles[int(row.user_index[k])]
            prompt = policy_prompt(book, fmt, description, profile)
            pairs.append((prompt.text, prompt.closed(row.actions[k])))
    return pairs


def run_agent_stage(
    stage: StageFolder,
    reference: LanguageModel,
    pretrained: str,
    mesh: MeshSettings,
    episodes: Episodes,
    settings: AgentStageSettings,
    preference: PreferenceAgentSettings | None,
    policy_training: PolicyTrainingSettings,
    seed: int,
) -> LanguageModel:
    """REINFORCE from a reference policy, or DPO where `preference` has its settings; the best agent
    by validation in model/, the last in last/.

    Writes metrics/ and facts.json too.
    """
    if not stage.is_complete():
        stage.begin()
        result = _train_agent(stage, reference, episodes, settings, preference, policy_training, seed)
        for folder, params in (("model", result.best_params), ("last", result.params)):
            agent = dataclasses.replace(reference, name=stage.name, params=params)
            save_policy(agent, stage.path / folder, model_path(pretrained))
        calls = sum(row.get("environment_calls", 0.0) for row in result.history)
        calls += sum(row.get("validation/environment_calls", 0.0) for row in result.history)
        facts = {"best_step": result.best_step, "environment_calls": int(calls)}
        stage.write_json("facts.json", facts)
        stage.finish()
    base = load_model(pretrained, policy_training.dtype, mesh)
    return load_policy(stage.path / "model", base, policy_training)


def _train_agent(
    stage: StageFolder,
    reference: LanguageModel,
    episodes: Episodes,
    settings: AgentStageSettings,
    preference: PreferenceAgentSettings | None,
    policy_training: PolicyTrainingSettings,
    seed: int,
) -> AgentResult:
    rng = np.random.default_rng(derive_seed(seed, 2))
    task = {
        "environment": episodes.environment,
        "reward_fn": episodes.rewards,
        "draw_starts": lambda rng, count: episodes.draw_starts("train", rng, count),
        "validation_starts": episodes.draw_starts("validation", rng, settings.num_validation_starts),
    }
    run = {"records": training_records(stage), "seed": seed}
    policy = for_training(reference, policy_training)
    mode = policy_training.mode
    if preference is None:
        agent_task = EagleTask(**task, value_features_fn=episodes.value_features)
        return train_eagle(policy, mode, agent_task, settings.training, **run)
    agent_task = PreferenceTask(**task, embed_fn=episodes.embed)
    return train_preference_agent(policy, mode, agent_task, preference, settings.training, **run)


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
        for name, meaning in (
            ("approximation_factor", "of q; 1 is the optimum"),
            ("kept_approximation_factor", "of equal weights on the kept candidates"),
        ):
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
