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
from eagle_jax.language_model.log_probs import LastStates, score_tokens
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


def read_policy_batch(config: DecoderConfig, params: Params, batch: PolicyBatch) -> tuple[LastStates, jax.Array]:
    """Last states [B, N] before each token of the actions, which see all before them, stop token
    included; and these tokens.

    The last layer is computed at these positions only, as the logits will be: a prompt is many
    times longer than its action.
    """
    decoder = bind(config, params)
    first = batch.tokens.shape[1] - batch.action_mask.shape[1] - 1
    positions, allowed = token_positions(batch.mask), causal_mask(batch.mask)
    states = decoder(decoder.embed(batch.tokens), positions, allowed, first=first)
    return LastStates(states.last[:, :-1], decoder.head), batch.tokens[:, first + 1 :]


@functools.partial(jax.jit, static_argnames="config")
def action_log_probs(
    config: DecoderConfig, params: Params, batch: PolicyBatch, temperature: jax.Array | float
) -> jax.Array:
    """log pi(action | prompt) [B], pi = softmax(logits / temperature): sums over its tokens."""
    scores = score_tokens(*read_policy_batch(config, params, batch), temperature)
    return sum_over_action(scores.log_probs, batch.action_mask)
