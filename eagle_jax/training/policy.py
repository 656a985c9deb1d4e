"""The policy language model: from episode states to actions, and to the arrays it is trained on.

Axis letters: `B` actions, `P` prompt tokens, `N` action tokens, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from eagle_jax.base.prompts import EntityFormat, Prompt, PromptBook, policy_prompt
from eagle_jax.environment.llm_environment import EpisodeState
from eagle_jax.environment.rollout import PolicyFn
from eagle_jax.language_model.decoder_config import DecoderConfig
from eagle_jax.language_model.generation import Generation, SamplingSettings, TextGenerator
from eagle_jax.language_model.prompt_tokens import prompt_token_ids
from eagle_jax.language_model.tokenizer import Tokenizer
from eagle_jax.language_model.transformer import Params, bind, causal_mask, token_positions


class PolicyBatch(NamedTuple):
    """Left-padded prompts followed by right-padded actions.

    tokens, mask: [B, P + N], mask is True at real tokens.
    action_mask: [B, N] over the last N columns, True at the action's tokens, stop token included.
    """

    tokens: np.ndarray
    mask: np.ndarray
    action_mask: np.ndarray


def state_prompts(
    book: PromptBook, entity_format: EntityFormat, states: Sequence[EpisodeState]
) -> list[Prompt]:
    """What the policy is asked in each state."""
    return [
        policy_prompt(book, entity_format, state.description, state.profile) for state in states
    ]


def make_policy_fn(
    generator: TextGenerator,
    book: PromptBook,
    entity_format: EntityFormat,
    sampling: SamplingSettings,
) -> PolicyFn:
    """The policy that writes an action for each state."""

    def policy_fn(states: Sequence[EpisodeState], seed: int) -> list[Generation]:
        return generator.generate(state_prompts(book, entity_format, states), sampling, seed)

    return policy_fn


def encode_policy_batch(
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    generations: Sequence[Generation],
    num_action_tokens: int,
) -> PolicyBatch:
    """The batch for teacher forcing; P is up to an eighth more than needed, to compile seldom.

    Raises `ValueError` where a generation has no token ids (a remote model cannot be trained here)
    or more than N of them.
    """
    prompt_ids = [
        prompt_token_ids(tokenizer, prompt, generation.num_cut_tokens)
        for prompt, generation in zip(prompts, generations, strict=True)
    ]
    for row, generation in enumerate(generations):
        if generation.token_ids is None:
            raise ValueError("the policy's generations have no token ids: it must be a local model")
        length = len(generation.token_ids)
        if length > num_action_tokens:
            raise ValueError(f"action {row} has {length} tokens, room is for {num_action_tokens}")
    longest = max(map(len, prompt_ids))
    multiple = 1 << max(3, (longest - 1).bit_length() - 4)  # an eighth of the power of two below
    action_ids = [generation.token_ids for generation in generations]
    return pack_actions(tokenizer, prompt_ids, action_ids, multiple, num_action_tokens)


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
