"""Stage 7b: the planner's model, from the candidates and then from rounds of its own episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.candidate_stage import CandidateSet
from eagle_jax.eagle.environment import Step
from eagle_jax.eagle.planner.dynamics import Dynamics, Examples, Transition, examples, exploring, promises
from eagle_jax.eagle.planner.settings import PlannerSettings
from eagle_jax.eagle.roles.action_choice import choosing_policy
from eagle_jax.eagle.rollout import rollout
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.embeddings.domain_encoder import head_arrays, read_head_fit
from eagle_jax.embeddings.regression_head import HeadFit, fit_head
from eagle_jax.reports.markdown import fact


def run_planner_stage(
    stage: StageFolder,
    world: EagleWorld,
    candidate_sets: Sequence[CandidateSet],
    horizon: int,
    batch_size: int,
    settings: PlannerSettings,
    seed: int,
) -> Dynamics:
    """The model after all rounds; its actions are the candidates that could be applied. `batch_size` episodes are
    played at a time.

    Writes dynamics.npz, actions.json, transitions.jsonl and facts.json. Raises `UserError` where no candidate could be
    applied.
    """
    encoder, changes = world.scorer.encoder, world.environment.field_changes
    if not stage.is_complete():
        transitions = _of_candidates(world, candidate_sets)
        actions = tuple(dict.fromkeys(one.action for one in transitions))
        known, of_actions = examples(encoder, transitions, changes), encoder.features(actions)
        rounds = []
        for number in progress(range(settings.num_rounds), settings.num_rounds, stage.name, "round"):
            head = _fit(known, settings, derive_seed(seed, 0, number)).head
            model, of_round = Dynamics(encoder, actions, of_actions, changes, head), derive_seed(seed, 1, number)
            played = stage.chunk(
                number, lambda model=model, seed=of_round: _play(world, model, horizon, batch_size, settings, seed)
            )
            new = [Transition(*row) for row in played.pop("transitions")]
            seen = examples(encoder, new, changes)
            rounds.append(played | {"foreseen": _share_explained(model.moves(seen.inputs), seen.moves)})
            transitions += new
            known = Examples(*map(np.concatenate, zip(known, seen, strict=True)))
        fit = _fit(known, settings, derive_seed(seed, 0, settings.num_rounds))
        stage.write_arrays("dynamics.npz", head_arrays(fit))
        stage.write_json("actions.json", actions)
        stage.write_jsonl("transitions.jsonl", (one._asdict() for one in transitions))
        stage.write_json("facts.json", _facts(actions, transitions, rounds, fit))
        stage.finish()
    actions = tuple(stage.read_json("actions.json"))
    head = read_head_fit(stage.read_arrays("dynamics.npz")).head
    return Dynamics(encoder, actions, encoder.features(actions), changes, head)


def _of_candidates(world: EagleWorld, candidate_sets: Sequence[CandidateSet]) -> list[Transition]:
    found = [
        Transition(world.catalogue.entities[row.entity_index].description, action, text)
        for row in candidate_sets
        for action, text in row.applied()
    ]
    if not found:
        raise UserError("planner: none of the candidates could be applied: see candidates/facts.json")
    return found


def _fit(known: Examples, settings: PlannerSettings, seed: int) -> HeadFit:
    return fit_head(known.inputs, known.moves, np.ones(len(known.moves)), settings.dynamics, jax.random.key(seed))


def _play(
    world: EagleWorld, model: Dynamics, horizon: int, batch_size: int, settings: PlannerSettings, seed: int
) -> dict[str, Any]:
    """One round: what its episodes led to, and what they gained."""
    environment, rng = world.environment, np.random.default_rng(derive_seed(seed, 0))
    states = environment.reset(world.draw_starts("train", rng, settings.episodes_per_round))
    promised = exploring(
        promises(model, world.scorer.user_embeddings), settings.exploration_temperature, settings.random_share
    )
    policy_fn = choosing_policy(model.actions, promised, model.field_changes)
    steps: list[Step] = []
    found: list[Transition] = []
    gains = []
    for first in range(0, len(states), batch_size):
        batch = states[first : first + batch_size]
        played = rollout(policy_fn, environment, batch, horizon, derive_seed(seed, 1, first))
        for of_step in played:
            steps += of_step.steps
            found += [
                Transition(state.description, step.action, step.description)
                for state, step in zip(of_step.states, of_step.steps, strict=True)
                if step.malformed is None
            ]
        gains.append(world.rewards(played[-1].next_states) - world.rewards(batch))
    return {
        "transitions": found,
        "environment_calls": sum(step.num_calls for step in steps),
        "malformed": dict(Counter(step.malformed for step in steps if step.malformed is not None)),
        "gain": float(np.mean(np.concatenate(gains))),
    }


def _share_explained(predicted: np.ndarray, moves: np.ndarray) -> float:
    """1 - sum ||m - move||^2 / sum ||move - mean move||^2."""
    left = np.sum((predicted - moves) ** 2, dtype=np.float64)
    return float(1 - left / np.sum((moves - moves.mean(axis=0)) ** 2, dtype=np.float64))


def _facts(
    actions: Sequence[str], transitions: Sequence[Transition], rounds: Sequence[dict[str, Any]], fit: HeadFit
) -> dict[str, Any]:
    return {
        "num_actions": len(actions),
        "num_transitions": len(transitions),
        "environment_calls": sum(of["environment_calls"] for of in rounds),
        "explained": 1 - float(np.nanmin(fit.validation_errors)),
        "rounds": rounds,
    }


def planner_facts(stages: Iterable[StageFolder]) -> list[dict[str, Any]]:
    """Of the finished stages of all seeds: sums and means over them, and the rounds of the first one."""
    found = [stage.read_json("facts.json") for stage in stages]
    if not found:
        return []
    meanings = {
        "num_actions": "which it chooses among: the candidates that could be applied",
        "num_transitions": "that the model is fitted to, candidates and rounds, mean",
        "environment_calls": "of the rounds, which count as its training, mean",
        "explained": "share of the variance of texts' moves, beside what actions say of fields, that it explains "
        "on transitions left out, mean",
    }
    facts = [fact(name, float(np.mean([of[name] for of in found])), meaning) for name, meaning in meanings.items()]
    for number, of_round in enumerate(zip(*(of["rounds"] for of in found), strict=True), start=1):
        gain, foreseen = (float(np.mean([of[name] for of in of_round])) for name in ("gain", "foreseen"))
        calls = sum(of["environment_calls"] for of in of_round) / len(of_round)
        told = f"gain in reward of its episodes, {calls:,.0f} calls; {foreseen:.2f} of its moves' variance was foreseen"
        facts.append(fact(f"round {number}", gain, told))
    return facts
