"""Gradient steps of DPO on pairs of EAGLE's actions, as a pure function; settings and state of it.

    minimise  mean(-log sigmoid(beta (log pi(chosen) / pi_ref(chosen)
                                      - log pi(rejected) / pi_ref(rejected))))

(Rafailov et al. 2023, equation 7); the log-probs of a sample are summed over its actions.

Axis letters: `B` pairs, `L` actions of a sample, `A` actions.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eagle_jax.base.settings import setting, settings
from eagle_jax.eagle.agent.state import EagleSettings
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.sharding import constrain_tree
from eagle_jax.learning.optimizers import apply_gradients, make_optimizer
from eagle_jax.learning.policy_batch import PolicyBatch, action_log_probs
from eagle_jax.learning.trainable import join
from eagle_jax.real.selection.pair_selection import Strategy
from eagle_jax.real.training.losses import PairValues, dpo_loss, reward_margins, reward_metrics


@settings
class PreferenceAgentSettings:
    """DPO on pairs of EAGLE's own samples.

    Horizon, sampling and budget are the REINFORCE agent's.
    """

    unit: Literal["action", "final_text"] = setting(
        "What is chosen between: K actions at every state of an episode, each applied by the "
        "environment, of which one, drawn at random, leads on; or K whole episodes of each start."
    )
    strategy: Strategy = setting("Of `pair_selection.select_within`.")
    metric: Literal["cosine", "euclidean"] = setting("Of the embeddings of what samples lead to.")
    num_samples: int = setting("K.", at_least=2)
    starts_per_round: int = setting("Episodes' starts of a round.", at_least=1)
    beta: float = setting("Of the implicit reward.", above=0)
    num_epochs: int = setting("Passes over a round's pairs.", at_least=1)
    batch_size: int = setting("Pairs of a gradient step.", at_least=1)
    learning_rate: float = setting("Adam's.", above=0)
    max_gradient_norm: float = setting("Longer gradients are scaled down to it.", above=0)
    validate_every: int = setting("The last one always does.", at_least=1, unit="rounds")
    checkpoint_every: int = setting("The last one always does.", at_least=1, unit="rounds")

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
def update_on_pairs(
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
