"""Gradient steps of DPO on pairs of EAGLE's actions, as a pure function; settings and state of it.

    minimise  mean(-log sigmoid(beta (log pi(chosen) / pi_ref(chosen)
                                      - log pi(rejected) / pi_ref(rejected))))

(Rafailov et al. 2023, equation 7); the log-probs of a sample are summed over its actions.

Axis letters: `B` pairs, `L` actions of a sample, `A` actions.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eagle_jax.eagle.agent.state import EagleSettings
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.sharding import constrain_tree
from eagle_jax.learning.optimizers import apply_gradients, make_optimizer
from eagle_jax.learning.policy_batch import PolicyBatch, action_log_probs
from eagle_jax.learning.trainable import join
from eagle_jax.real.training.losses import PairValues, dpo_loss, reward_margins, reward_metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceAgentSettings:
    """DPO on pairs of EAGLE's own samples; horizon, sampling and budget are the REINFORCE agent's.

    unit: what is chosen between. `action`: at every state of an episode K actions, each applied by
        the environment; one of them, drawn at random, leads on. `final_text`: K whole episodes of
        each start.
    strategy, metric: of `pair_selection.select_within`.
    num_samples: K. starts_per_round: episodes' starts of a round.
    num_epochs: passes over a round's pairs, batch_size: pairs of a gradient step.
    validate_every, checkpoint_every: rounds; the last one always does both.
    """

    unit: Literal["action", "final_text"]
    strategy: Literal[
        "easy", "hard", "centroid", "random",
        "implicit_reward_gap_small", "implicit_reward_gap_large",
    ]  # fmt: skip
    metric: Literal["cosine", "euclidean"]
    num_samples: int
    starts_per_round: int
    beta: float
    num_epochs: int
    batch_size: int
    learning_rate: float
    max_gradient_norm: float
    validate_every: int
    checkpoint_every: int

    def __post_init__(self):
        for name in ("starts_per_round", "num_epochs", "batch_size", "validate_every",
                     "checkpoint_every"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_samples < 2:
            raise ValueError(f"num_samples must be at least 2, got {self.num_samples}")
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, got {self.beta}")

    def num_rounds(self, agent: EagleSettings) -> int:
        """Rounds that take as many actions as the REINFORCE agent: equal environment calls.

        Raises ValueError where its episodes do not make up whole rounds.
        """
        budget = agent.num_iterations * agent.episodes_per_iteration
        per_round = self.starts_per_round * self.num_samples
        if budget % per_round:
            raise ValueError(
                f"starts_per_round x num_samples = {self.starts_per_round} x {self.num_samples} = "
                f"{per_round} does not divide the agent's num_iterations x episodes_per_iteration ="
                f" {agent.num_iterations} x {agent.episodes_per_iteration} = {budget}: equal "
                "environment calls need whole rounds"
            )
        return budget // per_round


class PreferenceAgentState(NamedTuple):
    """All that training needs to go on, apart from what is frozen."""

    trainable: Params  # of the policy
    optimizer_state: optax.OptState


class PairBatch(NamedTuple):
    """actions: of [B, 2, L] rows, chosen before rejected; reference_log_probs [B, 2] of samples;
    weights [B], 0 at padding."""

    actions: PolicyBatch
    reference_log_probs: np.ndarray
    weights: np.ndarray


def pair_optimizer(settings: PreferenceAgentSettings) -> optax.GradientTransformation:
    """Adam on the gradient clipped by its global norm, as for REINFORCE."""
    return make_optimizer(settings.learning_rate, max_gradient_norm=settings.max_gradient_norm)


@functools.partial(jax.jit, static_argnames=("config", "settings"), donate_argnames="state")
def update(
    config: DecoderConfig,
    settings: PreferenceAgentSettings,
    frozen: Params,
    state: PreferenceAgentState,
    batch: PairBatch,
    temperature: float,
) -> tuple[PreferenceAgentState, dict[str, jax.Array]]:
    """One gradient step of DPO and metrics [], those of before it; the state is donated."""
    reference = PairValues(*batch.reference_log_probs.T)
    weights = batch.weights / jnp.sum(batch.weights)

    def loss_fn(trainable):
        of_actions = action_log_probs(config, join(trainable, frozen), batch.actions, temperature)
        policy = PairValues(*jnp.sum(of_actions.reshape(len(weights), 2, -1), axis=2).T)
        margins = reward_margins(policy, reference, settings.beta)
        loss = jnp.sum(weights * dpo_loss(margins, 0.0))
        return loss, {"loss": loss} | reward_metrics(policy, reference, settings.beta, weights)

    gradients, metrics = jax.grad(loss_fn, has_aux=True)(state.trainable)
    gradients = constrain_tree(gradients)
    metrics["policy/gradient_norm"] = optax.tree.norm(gradients)
    return apply_gradients(pair_optimizer(settings), gradients, state), metrics
