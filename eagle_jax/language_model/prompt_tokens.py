"""Crosses the border between text and arrays: prompts to token ids, cut where their task says."""

from __future__ import annotations

from collections.abc import Sequence

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import Prompt, cut_spans
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer


class PromptTooLongError(UserError):
    """Prompt and new tokens do not fit the positions that the model was made for."""


def cut_tokens(tokenizer: Tokenizer, prompt: Prompt, ids: Sequence[int], count: int) -> list[int]:
    """The prompt's ids without `count` of them, which go one by one from the end of the longest
    block.

    Only whole tokens inside of the blocks that the prompt's task lets be cut. Raises
    PromptTooLongError that says how many there are, if these are too few.
    """
    if count == 0:
        return list(ids)
    offsets = tokenizer.prompt_offsets(prompt.text)
    blocks = [
        [position for position, (first, end) in enumerate(offsets) if start <= first < end <= stop]
        for start, stop in cut_spans(prompt)
    ]
    available = sum(map(len, blocks))
    if available < count:
        names = ", ".join(prompt.may_be_cut)
        raise PromptTooLongError(
            f"{count} tokens too many, of which {available} may be cut"
            + (f" (blocks {names})" if names else ": its task names no block that may be cut")
        )
    cut = {max(blocks, key=len).pop() for _ in range(count)}
    return [token_id for position, token_id in enumerate(ids) if position not in cut]


def splice_placeholders(ids: Sequence[int], placeholder_id: int, spliced: Sequence[int], row: int) -> list[int]:
    """Token ids with each placeholder replaced by the next one of `spliced`.

    Raises UserError that names the prompt's row and the counts where they differ.
    """
    count = sum(token_id == placeholder_id for token_id in ids)
    if count != len(spliced):
        raise UserError(f"prompt {row} has {count} placeholders and {len(spliced)} embeddings to put there")
    following = iter(spliced)
    return [next(following) if token_id == placeholder_id else token_id for token_id in ids]
