"""The task on which REAL's strategies are compared: write a film for a user whose taste is known.

A response is what a model writes after the prompt: a film's three blocks without the first opening
and the last closing marker. Its true utility follows from the world, so that errors of labels and
what training gains can be measured exactly. Users are drawn afresh, never from the catalogue.

Axis letters: `N` requests, `L` latent width.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from eagle_jax.data import prompts
from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.data.minilens.corpus import Example
from eagle_jax.data.minilens.world import as_film, draw_films, draw_world
from eagle_jax.data.prompts import (
    COMPACT,
    MOVIE,
    MalformedText,
    Prompt,
    begin,
    end,
    parse_blocks,
    parse_completion,
    render_blocks,
)

_REQUESTS, _SUPERVISED = 1, 2  # what a seed is used for: the two never draw the same
_QUOTED_MARKER = re.compile(r"\b(?:BEGIN|END)_[A-Z_]+")


@dataclasses.dataclass(frozen=True, eq=False)
class ProfileRequest:
    """What is asked, of whom the profile tells, and the taste [L] that decides."""

    prompt: Prompt
    profile: str
    taste: np.ndarray


def _draw_request(rng: np.random.Generator) -> ProfileRequest:
    taste = draw_world().draw_tastes(1, rng)[0]
    profile = corpus.tell_profile(draw_world(), taste, rng)
    return ProfileRequest(prompts.write_prompt(COMPACT, MOVIE, profile), profile, taste)


def draw_requests(count: int, seed: int) -> list[ProfileRequest]:
    """Requests of fresh users; another seed gives other users."""
    rng = np.random.default_rng([_REQUESTS, seed])
    return [_draw_request(rng) for _ in range(count)]


def supervised_examples(count: int, seed: int, *, num_films: int, strength: float, dialect: str) -> list[Example]:
    """Requests of fresh users, each with the film that they watch of num_films random ones.

    What the supervised training before REAL's DPO learns from. Films are told in one way only:
    responses differ in what they tell, else their similarity would be that of templates.
    """
    rng = np.random.default_rng([_SUPERVISED, seed])
    examples = []
    for _ in range(count):
        request = _draw_request(rng)
        films = draw_films(num_films, rng)
        watched = as_film(films[draw_watched(films, request.taste, strength, rng)])
        text = _tell_plainly(watched, dialect)
        examples.append(Example(request.prompt, text.removeprefix(request.prompt.opening).strip()))
    return examples


def _tell_plainly(film: Mapping[str, int], dialect: str) -> str:
    """By the first templates and in the words of the profiles, as far as the dialect has them."""
    names = (grammar.LEXICON[slot][film[slot]][0] for slot in grammar.SLOTS)
    words = tuple(grammar.in_dialect(name, dialect) for name in names)
    return grammar.tell_film(grammar.Telling(dialect, (0,) * len(grammar.BLOCK_SLOTS), words))


def draw_watched(films: np.ndarray, taste: np.ndarray, strength: float, rng: np.random.Generator) -> int:
    """The row of films [N, S] that a user watches: P(row) ~ exp(strength * affinity)."""
    affinity = draw_world().film_vectors(films) @ taste
    return int(np.argmax(strength * affinity + rng.gumbel(size=len(films))))


def true_utility(request: ProfileRequest, response: str) -> float:
    """Affinity of the film for the user: standard deviation one over random users and films.

    A response that is no film has `malformed_utility`.
    """
    try:
        film = _read_film(request.prompt, response)
    except MalformedText:
        return malformed_utility(request)
    values = np.array([[film[slot] for slot in grammar.SLOTS]])
    return float(draw_world().film_vectors(values)[0] @ request.taste)


def malformed_utility(request: ProfileRequest) -> float:
    """One less than the affinity of the film that the user would like least."""
    affinity = draw_world().value_affinity(request.taste)
    worst = [min(affinity[key] for key in affinity if key[0] == slot) for slot in grammar.SLOTS]
    return sum(worst) - 1.0


def malformed_responses(requests: Sequence[ProfileRequest], responses: Sequence[str]) -> Counter[str]:
    """How many responses are no films, by reason."""
    reasons: Counter[str] = Counter()
    for request, response in zip(requests, responses, strict=True):
        try:
            _read_film(request.prompt, response)
        except MalformedText as error:
            reasons[error.reason] += 1
    return reasons


def _read_film(prompt: Prompt, response: str) -> dict[str, int]:
    return grammar.parse_film(render_blocks(parse_completion(prompt, response, MOVIE.blocks)))


def answer_compare(prompt: Prompt, rng: np.random.Generator) -> str:
    """The grammar's teacher as a rater: "a" or "b" to a `compare_prompt` about a `ProfileRequest`.

    Prefers the film with more values that the profile likes less those that it dislikes; a film to
    what is none; else draws one. Raises `MalformedText` for another prompt.
    """
    _, first, others = prompt.text.removesuffix(prompt.opening).partition(begin("REQUEST"))
    blocks = parse_blocks(first + others, ["REQUEST", "TEXT_A", "TEXT_B"], may_be_empty=True)
    shown = {name: _QUOTED_MARKER.sub(r"#\g<0>", block) for name, block in blocks.items()}
    _, _, profile = shown["REQUEST"].partition(begin("USER_PROFILE"))
    profile, _, _ = profile.partition(end("USER_PROFILE"))
    match_a, match_b = (_match(profile, shown[name]) for name in ("TEXT_A", "TEXT_B"))
    if match_a == match_b:
        return "ab"[int(rng.integers(2))]
    return "a" if match_a > match_b else "b"


def _match(profile: str, response: str) -> float:
    text = f"{begin(MOVIE.blocks[0])} {response} {end(MOVIE.blocks[-1])}"
    try:
        return corpus.match_profile(profile, grammar.parse_film(text))
    except MalformedText:
        return -np.inf
