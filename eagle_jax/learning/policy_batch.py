"""Prompts and actions (or responses) as the arrays on which a policy is trained, and their scores.

Axis letters: `B` actions, `P` prompt tokens, `N` action tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params, bind, causal_mask, token_positions
from eagle_jax.language_model.log_probs import LastStates, TokenScores, score_tokens
from eagle_jax.learning.losses import sum_over_action


class PolicyBatch(NamedTuple):
    """Left-padded prompts followed by right-padded actions.

    tokens, mask: [B, P + N], mask is True at real tokens.
    action_mask: [B, N] over the last N columns, True at the action's tokens, stop token included.
    """

    tokens: np.ndarray
    mask: np.ndarray
    action_mask: np.ndarray


def pack_actions(
    tokenizer: Tokenizer,
    prompt_ids: Sequence[Sequence[int]],
    action_ids: Sequence[Sequence[int]],
    prompt_multiple: int,
    action_multiple: int,
) -> PolicyBatch:
    """Token ids as a batch whose P and N are multiples of what is given."""
    prompt_tokens, prompt_mask = tokenizer.left_pad(prompt_ids, prompt_multiple)
    action_tokens, action_mask = tokenizer.right_pad(action_ids, action_multiple)
    return PolicyBatch(
        np.concatenate([prompt_tokens, action_tokens], axis=1),
        np.concatenate([prompt_mask, action_mask], axis=1),
        action_mask,
    )


def score_actions(
    config: DecoderConfig,
    params: Params,
    batch: PolicyBatch,
    temperature: jax.Array | float,
    reference: Params | None = None,
) -> TokenScores:
    """Scores [B, N] of the actions' tokens given all before them, stop token included; the
    divergence is from the policy with the parameters `reference`.

    The last layer and the logits are computed at these positions only: a prompt is many times
    longer than its action.
    """

    def read(params: Params) -> LastStates:
        decoder = bind(config, params)
        first = batch.tokens.shape[1] - batch.action_mask.shape[1] - 1
        positions, allowed = token_positions(batch.mask), causal_mask(batch.mask)
        states = decoder(decoder.embed(batch.tokens), positions, allowed, first=first)
        return LastStates(states.last[:, :-1], decoder.logits)

    tokens = batch.tokens[:, -batch.action_mask.shape[1] :]
    other = None if reference is None else read(jax.lax.stop_gradient(reference))
    return score_tokens(read(params), tokens, temperature, other)


@functools.partial(jax.jit, static_argnames="config")
def action_log_probs(
    config: DecoderConfig, params: Params, batch: PolicyBatch, temperature: jax.Array | float
) -> jax.Array:
    """log pi(action | prompt) [B], pi = softmax(logits / temperature): sums over its tokens."""
    scores = score_actions(config, params, batch, temperature)
    return sum_over_action(scores.log_probs, batch.action_mask)
