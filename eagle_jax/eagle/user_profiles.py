"""Text profiles of users, written by a language model from titles rated high and low."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.prompts import MalformedText, PromptBook, profile_prompt
from eagle_jax.language_model.generation import SamplingSettings, TextGenerator, parse_generation


def write_profiles(
    generator: TextGenerator,
    book: PromptBook,
    titles_liked: Sequence[Sequence[str]],
    titles_disliked: Sequence[Sequence[str]],
    sampling: SamplingSettings,
    seed: int,
    max_tries: int,
) -> tuple[list[str], Counter[str]]:
    """One profile for each user, and how many outputs were malformed, by reason.

    A malformed profile is asked for again with another seed. Raises `UserError` that names the
    users who have none after `max_tries`.
    """
    prompts = [
        profile_prompt(book, liked, disliked) for liked, disliked in zip(titles_liked, titles_disliked, strict=True)
    ]
    profiles: dict[int, str] = {}
    malformed: Counter[str] = Counter()
    pending: dict[int, str] = dict.fromkeys(range(len(prompts)), "not asked")
    for attempt in range(max_tries):
        if not pending:
            break
        generations = generator.generate([prompts[user] for user in pending], sampling, derive_seed(seed, attempt))
        failed = {}
        for user, generation in zip(pending, generations, strict=True):
            try:
                profiles[user] = parse_generation(generation, ["USER_PROFILE"])["USER_PROFILE"]
            except MalformedText as error:
                malformed[error.reason] += 1
                failed[user] = error.reason
        pending = failed
    if pending:
        users = ", ".join(f"{user} ({reason})" for user, reason in list(pending.items())[:10])
        raise UserError(
            f"no profile after {max_tries} tries for {len(pending)} of {len(prompts)} users, by "
            f"row: {users}; give the model more new tokens, more tries, or another prompt book"
        )
    return [profiles[user] for user in range(len(prompts))], malformed
