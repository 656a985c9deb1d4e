"""The policy language model: from episode states to actions, and to the arrays it is trained on.

Axis letters: `B` actions, `P` prompt tokens, `N` action tokens, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params, bind, causal_mask, token_positions


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


def action_logits(config: DecoderConfig, params: Params, batch: PolicyBatch) -> jax.Array:
    """Logits [B, N, V] of the action's tokens given all before them.

    The last layer and the logits are computed at these positions only: a prompt is many times
    longer than its action.
    """
    decoder = bind(config, params)
    first = batch.tokens.shape[1] - batch.action_mask.shape[1] - 1
    positions, allowed = token_positions(batch.mask), causal_mask(batch.mask)
    states = decoder(decoder.embed(batch.tokens), positions, allowed, first=first)
    return decoder.logits(states.last[:, :-1])
