"""Prompts with K responses, of which some are preferred to others."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

MAX_RESPONSES = 64  # of one prompt


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceExample:
    """A prompt, its K responses, and what is known of their order.

    Raises ValueError ("<what is wrong>: <particulars>") for fewer than 2 or more than 64 responses,
    an empty prompt or response, responses that are all identical, scores that are not K numbers, or
    a label that does not name two responses.
    """

    prompt: str  # all that stands before the response, the reply's opening ("Assistant:") included
    responses: tuple[str, ...]  # [K]
    scores: tuple[float, ...] | None  # [K], higher is better
    label: tuple[int, int] | None  # (chosen, rejected): places in `responses`

    def __post_init__(self):
        num_responses = len(self.responses)
        if not self.prompt.strip():
            raise ValueError("empty prompt")
        if num_responses < 2:
            raise ValueError(f"fewer than two responses: {num_responses}")
        if num_responses > MAX_RESPONSES:
            raise ValueError(f"more than {MAX_RESPONSES} responses: {num_responses}")
        if empty := [k for k, response in enumerate(self.responses, 1) if not response.strip()]:
            raise ValueError(f"empty response: number {empty[0]} of {num_responses}")
        if len(set(self.responses)) == 1:
            raise ValueError("identical responses")
        if self.scores is not None and len(self.scores) != num_responses:
            raise ValueError(f"not one score per response: {len(self.scores)} of {num_responses}")
        if self.scores is not None and not all(map(math.isfinite, self.scores)):
            raise ValueError(f"score that is not a finite number: {self.scores}")
        if self.label is not None and (
            self.label[0] == self.label[1] or not set(self.label) <= set(range(num_responses))
        ):
            raise ValueError(f"label out of range: {self.label} of {num_responses} responses")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferencePair:
    """What is trained on: of two responses to a prompt the preferred one and the other."""

    prompt: str
    chosen: str
    rejected: str


def known_label(example: PreferenceExample, first: int, second: int) -> tuple[int, int] | None:
    """(chosen, rejected) of two of the example's responses, as the data has it.

    The label decides if it speaks of these two, else the scores do: the higher one is chosen. None
    where neither does: a tie, or a pair that the data does not know.
    """
    if example.label is not None and set(example.label) == {first, second}:
        return example.label
    if example.scores is None or example.scores[first] == example.scores[second]:
        return None
    if example.scores[first] > example.scores[second]:
        return first, second
    return second, first


def labelled_pair(example: PreferenceExample, label: tuple[int, int]) -> PreferencePair:
    """The pair that a label, (chosen, rejected), says of an example, whoever gave the label."""
    chosen, rejected = label
    return PreferencePair(prompt=example.prompt, chosen=example.responses[chosen], rejected=example.responses[rejected])


def all_responses(examples: Sequence[PreferenceExample]) -> tuple[list[str], list[str]]:
    """The prompt of every response and its text, one after the other."""
    prompts = [example.prompt for example in examples for _ in example.responses]
    return prompts, [response for example in examples for response in example.responses]


def by_prompt(examples: Sequence[PreferenceExample], values: np.ndarray, num_responses: int) -> np.ndarray:
    """Values of all responses [R, ...] as [N, K, ...], 0 where a prompt has fewer than K."""
    places = [(n, k) for n, example in enumerate(examples) for k in range(len(example.responses))]
    table = np.zeros((len(examples), num_responses, *values.shape[1:]), values.dtype)
    table[tuple(np.array(places).T)] = values
    return table
