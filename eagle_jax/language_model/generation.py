"""The seam through which everything above writes text: prompts in, generations out, batch first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.prompts import MalformedText, Prompt, begin, end, parse_blocks

Read = TypeVar("Read")


@settings
class SamplingSettings:
    """How texts are drawn."""

    temperature: float = setting("Logits are divided by it; 0 is greedy.", at_least=0)
    top_k: int = setting("Only so many of the likeliest tokens; 0: all.", at_least=0)
    top_p: float = setting("Only the likeliest tokens of this sum; 1: all.", above=0, at_most=1)
    max_new_tokens: int = setting("Where a text is cut.", at_least=1, unit="tokens")
    min_p: float = setting(
        "Only tokens at least this share as likely as the likeliest; 0: all.", default=0.0, at_least=0, at_most=1
    )
    repetition_penalty: float = setting(
        "Logits above 0 of tokens that prompt or text have already are divided by it, those below multiplied; 1: off.",
        default=1.0,
        above=0,
    )

    def check_of_policy(self) -> None:
        """Raises ValueError where training would take log-probs for another distribution than the one that acts.

        A penalty depends on the text so far and min_p leaves tokens out: log pi, its entropy and KL are of neither.
        """
        if self.min_p or self.repetition_penalty != 1:
            raise ValueError(
                "a policy that is trained draws by its own probabilities: min_p must be 0 and repetition_penalty 1, "
                f"got {self.min_p} and {self.repetition_penalty}"
            )

    def asked(self) -> dict[str, float | int]:
        """The settings by name, those that came later (they have a default) only where they are on."""
        fields = dataclasses.fields(self)
        return {f.name: value for f in fields if (value := getattr(self, f.name)) != f.default}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """text without the stop string; token_ids and log_probs (stop token included) where known.

    stop_reason is "stop" (a stop string or the model's end token), "length" or, of a server that
    held a text back, "content_filter". prompt_token_ids: what a model in memory read, its prompt as
    it was cut; numbers from the vocabulary's size on stand for vectors.
    """

    text: str
    token_ids: tuple[int, ...] | None
    log_probs: tuple[float, ...] | None
    stop_reason: str
    prompt_token_ids: tuple[int, ...] | None = None


class TextGenerator(Protocol):
    """Writes one generation per prompt. Row i depends on its prompt, the seed and i, nothing else.

    `name` identifies the model and its weights.
    """

    @property
    def name(self) -> str: ...

    def generate(self, prompts: Sequence[Prompt], sampling: SamplingSettings, seed: int) -> list[Generation]: ...


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string in it, and whether there was one."""
    starts = [start for start in (text.find(string) for string in stop) if start >= 0]
    return (text[: min(starts)], True) if starts else (text, False)


def chat_answer(text: str, opening: str) -> str:
    """What a chat model says: its turn without its thoughts, and without the marker that the prompt
    ended in, with which it may begin.

    Thoughts end at </think>; <think> may have stood in the prompt. Thoughts without an end, as
    where all tokens went into them, leave nothing.
    """
    thoughts, ends, answer = text.partition("</think>")
    if not ends:
        answer = "" if thoughts.lstrip().startswith("<think>") else text
    return answer.lstrip().removeprefix(opening)


class ScriptedGenerator:
    """Writes fn(prompt, rng), cut at the prompt's stop strings; rng follows from (seed, row)."""

    def __init__(self, fn: Callable[[Prompt, np.random.Generator], str], name: str = "scripted"):
        self.fn = fn
        self.name = name

    def generate(self, prompts: Sequence[Prompt], sampling: SamplingSettings, seed: int) -> list[Generation]:
        texts = [self.fn(prompt, np.random.default_rng([seed, row])) for row, prompt in enumerate(prompts)]
        return [
            Generation(text=cut_at_stop(text, prompt.stop)[0], token_ids=None, log_probs=None, stop_reason="stop")
            for prompt, text in zip(prompts, texts, strict=True)
        ]


def parse_generation(generation: Generation, names: Sequence[str]) -> dict[str, str]:
    """The blocks that a model wrote after the opening marker of the first of `names`.

    Raises `MalformedText`; reason `length` where no closing marker came in time.
    """
    if generation.stop_reason != "stop":
        detail = f"no {end(names[-1])} after: {generation.text[:80]}"
        raise MalformedText(generation.stop_reason, detail)
    return parse_blocks(f"{begin(names[0])} {generation.text} {end(names[-1])}", names)


def ask_until_read(
    generator: TextGenerator,
    prompts: Sequence[Prompt],
    read: Callable[[int, Generation], Read],
    tries: Sequence[tuple[SamplingSettings, int]],
) -> tuple[list[Read | None], list[list[str]]]:
    """What `read(row, generation)` makes of the answer to each prompt, and for each the reasons of its malformed tries.

    Where it raises `MalformedText`, the prompt is asked again with the next sampling and seed of `tries`; None where
    all were used up.
    """
    found: list[Read | None] = [None] * len(prompts)
    malformed: list[list[str]] = [[] for _ in prompts]
    for sampling, seed in tries:
        pending = [row for row, value in enumerate(found) if value is None]
        if not pending:
            break
        generations = generator.generate([prompts[row] for row in pending], sampling, seed)
        for row, generation in zip(pending, generations, strict=True):
            try:
                found[row] = read(row, generation)
            except MalformedText as error:
                malformed[row].append(error.reason)
    return found, malformed


def write_block(
    generator: TextGenerator,
    prompts: Sequence[Prompt],
    block: str,
    sampling: SamplingSettings,
    seed: int,
    max_tries: int,
) -> tuple[list[str | None], list[list[str]]]:
    """The text of `block` for each prompt, and for each the reasons of its malformed tries.

    What is malformed is asked for again with another seed; the text is None where all tries were.
    """
    tries = [(sampling, derive_seed(seed, attempt)) for attempt in range(max_tries)]
    return ask_until_read(generator, prompts, lambda _, made: parse_generation(made, [block])[block], tries)
