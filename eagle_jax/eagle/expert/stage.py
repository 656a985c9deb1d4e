"""Stage 7a: where an agent begins, if not with its reference policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.candidate_stage import CandidateSet
from eagle_jax.eagle.expert.choices import Choice, Tried, choices_of_candidates, chosen_pairs, try_actions
from eagle_jax.eagle.expert.settings import ExpertSettings
from eagle_jax.eagle.rollout import PolicyFn
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.reports.markdown import fact
from eagle_jax.stages.policy_models import PolicyModel
from eagle_jax.stages.supervised import fit_pairs


def run_expert_stage(
    stage: StageFolder,
    world: EagleWorld,
    policy: PolicyModel,
    reference: LanguageModel,
    policy_fn: PolicyFn,
    candidate_sets: Sequence[CandidateSet],
    horizon: int,
    settings: ExpertSettings,
    seed: int,
) -> LanguageModel:
    """The reference policy after it has learned the chosen actions; `policy_fn` acts as that policy, which learned from
    `candidate_sets`.

    Writes choices.jsonl, model/ and facts.json. Raises `UserError` where nothing could be chosen.
    """
    if not stage.is_complete():
        choices, counts = _play(stage, world, policy_fn, horizon, settings, seed)
        if settings.candidates:
            choices += choices_of_candidates(world, candidate_sets)
        pairs, gains = chosen_pairs(world, choices, settings, derive_seed(seed, 2))
        if not pairs:
            raise UserError(
                f"expert: in none of {len(choices)} states did two actions lead to different new texts "
                f"({counts}); choose other models, or more actions_per_state"
            )
        stage.write_jsonl("choices.jsonl", (choice._asdict() for choice in choices))
        fit_pairs(stage, policy, reference, pairs, settings.fit, derive_seed(seed, 3))
        options = [len(choice.actions) for choice in choices]
        told = {"states": len(choices), "options": float(np.mean(options)), "gain": float(gains.mean())}
        stage.write_json("facts.json", counts | told | {"num_pairs": len(pairs)})
        stage.finish()
    return policy.load(stage.path / "model")


def _play(
    stage: StageFolder, world: EagleWorld, policy_fn: PolicyFn, horizon: int, settings: ExpertSettings, seed: int
) -> tuple[list[Choice], Counter[str]]:
    """The choices of all states of all episodes, a step of all episodes at a time, and sums of their counts."""
    starts = world.draw_starts("train", np.random.default_rng(derive_seed(seed, 0)), settings.num_episodes)
    states = world.environment.reset(starts)
    choices: list[Choice] = []
    counts: Counter[str] = Counter()
    for number in progress(range(horizon), horizon, stage.name, "step"):
        of_step = derive_seed(seed, 1, number)
        tried = Tried.from_json(
            stage.chunk(
                number,
                lambda states=states, seed=of_step: try_actions(world, policy_fn, states, settings, seed).to_json(),
            )
        )
        choices += tried.choices
        counts.update(tried.counts)
        states = [state.after(step) for state, step in zip(states, tried.steps, strict=True)]
    return choices, counts


def expert_facts(stages: Iterable[StageFolder]) -> list[dict[str, Any]]:
    """Of the finished stages of all kinds and seeds: sums, and means over these stages."""
    found = [stage.read_json("facts.json") for stage in stages]
    if not found:
        return []
    meanings = {
        "states": "in which actions were tried, those of the candidates among them where these are choices too",
        "actions": "drawn there from the reference policy, malformed ones included",
        "different": "of them, which the environment was asked for",
        "environment_calls": "which count as the agents'",
        "num_pairs": "of a profile in such a state and the action chosen for it: what the policy imitates",
    }
    facts = [fact(name, sum(of[name] for of in found), meaning) for name, meaning in meanings.items()]
    means = {
        "options": "actions of a state that lead to different new texts, mean",
        "gain": "of a chosen action, mean: reward of the text after it minus reward of the text before",
    }
    return facts + [fact(name, float(np.mean([of[name] for of in found])), meaning) for name, meaning in means.items()]
