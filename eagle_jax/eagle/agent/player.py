"""What EAGLE's two ways to train a policy share (`agent.reinforce`, and DPO in `dpo.training`).

Episodes and their metrics, validation, and how a training begins and is timed. Everything random
derives from (seed, iteration): a run that is interrupted and resumed ends with the same parameters.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.eagle.agent.state import EagleSettings
from eagle_jax.eagle.environment import EpisodeState, LLMEnvironment, Start
from eagle_jax.eagle.policy import encode_policy_batch, make_policy_fn
from eagle_jax.eagle.rollout import Transitions, rollout
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.generation import Generation
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.learning.policy_batch import PolicyBatch
from eagle_jax.learning.trainable import join

LENGTH_MULTIPLE = 32  # the sampler's prompts are padded to multiples of it


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentTask:
    """Where an agent acts and what it is rewarded for.

    reward_fn: utility [B] of states.
    features_fn: what REINFORCE predicts the value of states from, or the embeddings of their texts
        by which DPO's pairs are selected [B, F].
    draw_starts: (rng, n) -> n starts of training episodes.
    validation_starts: the same ones at every validation. judges: utilities [B] of states by others than who rewards,
        under the names of their means in validations: what rises there only for the reward is a fault of it.
    """

    environment: LLMEnvironment
    reward_fn: Callable[[Sequence[EpisodeState]], np.ndarray]
    features_fn: Callable[[Sequence[EpisodeState]], np.ndarray]
    draw_starts: Callable[[np.random.Generator, int], Sequence[Start]]
    validation_starts: Sequence[Start]
    judges: Mapping[str, Callable[[Sequence[EpisodeState]], np.ndarray]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Player:
    """The policy in its task, which stays the same over all iterations; `trainable` of its methods
    are the parameters that act.

    start: those of the reference policy. batch_size: actions that are sampled at a time.
    """

    reference: LanguageModel
    start: Params
    frozen: Params
    task: AgentTask
    settings: EagleSettings
    batch_size: int
    seed: int

    def begin(self, step: int, num_starts: int) -> tuple[np.random.Generator, list[EpisodeState], int]:
        """Of an iteration: its generator, the states that it starts from, and the seed of its episodes."""
        rng = np.random.default_rng(derive_seed(self.seed, step, 0))
        states = self.task.environment.reset(self.task.draw_starts(rng, num_starts))
        return rng, states, derive_seed(self.seed, step, 1)

    def play(self, trainable: Params, states: Sequence[EpisodeState], horizon: int, seed: int) -> list[Transitions]:
        """`horizon` steps from each state."""
        environment = self.task.environment
        # Scanned layers are for training: here they would be stacked anew for every batch.
        config = dataclasses.replace(self.reference.config, scan_layers=False)
        policy = dataclasses.replace(self.reference, config=config)
        generator = LocalGenerator(policy, self.batch_size, LENGTH_MULTIPLE).with_params(join(trainable, self.frozen))
        policy_fn = make_policy_fn(generator, environment.book, environment.entity_format, self.settings.policy)
        return rollout(policy_fn, environment, states, horizon, seed)

    def score(
        self, first: Sequence[EpisodeState], final: Sequence[EpisodeState]
    ) -> tuple[dict[str, float], np.ndarray]:
        """Metrics of episodes by their first and last states, and their rewards [E]."""
        rewards = np.asarray(self.task.reward_fn(final), np.float32)
        gains = rewards - np.asarray(self.task.reward_fn(first), np.float32)
        values = {
            "reward": rewards.mean(),
            "reward_std": rewards.std(),
            "gain": gains.mean(),
            "improved": (gains > 0).mean(),
        }
        return {name: float(value) for name, value in values.items()}, rewards

    def validate(self, trainable: Params) -> dict[str, float]:
        """The same episodes' starts and seed every time, so that only the policy differs."""
        states = self.task.environment.reset(self.task.validation_starts)
        played = self.play(trainable, states, self.settings.horizon, derive_seed(self.seed, 0, 1))
        values, _ = self.score(states, played[-1].next_states)
        judged = {name: float(np.mean(judge(played[-1].next_states))) for name, judge in self.task.judges.items()}
        return values | judged | call_metrics(played)

    def encode(self, generations: Sequence[Generation]) -> PolicyBatch:
        """Actions behind the prompts of the states in which they were written."""
        limit = self.settings.policy.max_new_tokens
        return encode_policy_batch(self.reference.tokenizer, generations, limit)


def call_metrics(played: Sequence[Transitions]) -> dict[str, float]:
    """What all actions cost: the environment's calls, and shares of what was malformed."""
    faults = [step.malformed for of_step in played for step in of_step.steps]
    kinds = Counter(reason.partition(":")[0] for reason in faults if reason is not None)
    num_actions = len(faults)
    return {
        "malformed_actions": kinds["action"] / num_actions,
        "malformed_rewrites": kinds["environment"] / num_actions,
        "environment_calls": float(sum(step.num_calls for of_step in played for step in of_step.steps)),
    }


def by_episode(steps: Iterable[Sequence[Any]]) -> list:
    """Lists over episodes, one for each step -> one list, episode by episode."""
    return [entry for episode in zip(*steps, strict=True) for entry in episode]
