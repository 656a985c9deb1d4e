"""The policy language model: from episode states to actions, and to the arrays it is trained on.

Axis letters: `B` actions, `P` prompt tokens, `N` action tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from eagle_jax.data.prompts import EntityFormat, Prompt, PromptBook, policy_prompt
from eagle_jax.eagle.environment import EpisodeState
from eagle_jax.eagle.rollout import PolicyFn
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer
from eagle_jax.language_model.generation import Generation, SamplingSettings, TextGenerator
from eagle_jax.learning.policy_batch import PolicyBatch, pack_actions


def state_prompts(book: PromptBook, entity_format: EntityFormat, states: Sequence[EpisodeState]) -> list[Prompt]:
    """What the policy is asked in each state."""
    return [policy_prompt(book, entity_format, state.description, state.profile) for state in states]


def make_policy_fn(
    generator: TextGenerator, book: PromptBook, entity_format: EntityFormat, sampling: SamplingSettings
) -> PolicyFn:
    """The policy that writes an action for each state."""

    def policy_fn(states: Sequence[EpisodeState], seed: int) -> list[Generation]:
        return generator.generate(state_prompts(book, entity_format, states), sampling, seed)

    return policy_fn


def encode_policy_batch(tokenizer: Tokenizer, generations: Sequence[Generation], num_action_tokens: int) -> PolicyBatch:
    """Actions behind the prompts to which they were written, for teacher forcing; P is up to an
    eighth more than needed, to compile seldom.

    Raises `ValueError` where a generation has no token ids (a remote model cannot be trained here)
    or more than N of them.
    """
    for row, generation in enumerate(generations):
        if generation.token_ids is None or generation.prompt_token_ids is None:
            raise ValueError("the policy's generations have no token ids: it must be a local model")
        length = len(generation.token_ids)
        if length > num_action_tokens:
            raise ValueError(f"action {row} has {length} tokens, room is for {num_action_tokens}")
    prompt_ids = [generation.prompt_token_ids for generation in generations]
    longest = max(map(len, prompt_ids))
    multiple = 1 << max(3, (longest - 1).bit_length() - 4)  # an eighth of the power of two below
    action_ids = [generation.token_ids for generation in generations]
    return pack_actions(tokenizer, prompt_ids, action_ids, multiple, num_action_tokens)
