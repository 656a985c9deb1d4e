"""What MiniLens-LM is pretrained on: one prompt and completion for every role it plays.

Films and users are drawn afresh for each example from the world, never from the catalogue. The
teacher of each task knows the world: a profile names what the user's taste really is, so that the
model learns to infer it from titles as a large model infers it from films it knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from eagle_jax.data import prompts
from eagle_jax.data.minilens import grammar
from eagle_jax.data.minilens.world import World, as_film, draw_film, draw_world, films_by_rating
from eagle_jax.data.prompts import COMPACT, MOVIE, Prompt

PROFILE_SLOTS = {
    "overall": ("tone", "theme"),
    "genre": ("genre",),
    "director": ("style",),
    "aesthetic": ("setting", "music"),
    "other": ("hero", "conflict", "ending"),
}
_PROFILE_WORDS = (("enjoys", "avoids"), ("loves", "dislikes"))
PROFILE_SIDE = 10  # titles on each side of a profile prompt


@dataclasses.dataclass(frozen=True)
class Example:
    """A prompt and what should follow it, closing marker included."""

    prompt: Prompt
    completion: str


def tell_profile(world: World, taste: np.ndarray, rng: np.random.Generator) -> str:
    """Two values a user likes best and the one liked least, for each part of the profile."""
    affinity = world.value_affinity(taste)
    likes, avoids = _PROFILE_WORDS[int(rng.integers(len(_PROFILE_WORDS)))]
    parts = []
    for part, slots in PROFILE_SLOTS.items():
        values = sorted((key for key in affinity if key[0] in slots), key=affinity.get)
        names = [grammar.LEXICON[slot][value][0] for slot, value in values]
        best, second, worst = names[-1], names[-2], names[0]
        parts.append(f"{part}: {likes} {best} and {second}, {avoids} {worst}.")
    return " ".join(parts)


def read_profile(profile: str) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
    """Values that a profile says a user likes, and those it says the user does not."""
    liked: set[tuple[str, int]] = set()
    disliked: set[tuple[str, int]] = set()
    for sentence in profile.split("."):
        likes, _, avoids = sentence.partition(",")
        liked.update(grammar.mentions(likes))
        disliked.update(grammar.mentions(avoids))
    return liked, disliked


def match_profile(profile: str, film: Mapping[str, int]) -> int:
    """How many of a film's values the profile says the user likes, less those disliked."""
    liked, disliked = read_profile(profile)
    values = set(film.items())
    return len(values & liked) - len(values & disliked)


def _film_text(rng: np.random.Generator) -> tuple[dict[str, int], grammar.Telling]:
    film = draw_film(rng)
    return film, grammar.draw_telling(film, grammar.DIALECTS[int(rng.integers(2))], rng)


def rewrite(world: World, dialect: str, rng: np.random.Generator) -> Example:
    """Apply a change: the environment. One action in eight asks for two changes."""
    _, telling = _film_text(rng)
    slots = rng.permutation(len(grammar.SLOTS))[: 1 + (rng.random() < 0.125)]
    new_words = {}
    for slot in (grammar.SLOTS[s] for s in slots):
        new_words[slot] = grammar.any_word(slot, int(rng.integers(grammar.num_values(slot))), rng)
    action = " ".join(grammar.tell_action(word, rng) for word in new_words.values())
    prompt = prompts.environment_prompt(COMPACT, MOVIE, grammar.tell_film(telling), action)
    return _entity_example(prompt, grammar.tell_film(grammar.retell(telling, new_words, dialect)))


def describe(world: World, dialect: str, rng: np.random.Generator) -> Example:
    """Tell a film known by its title."""
    film = draw_film(rng)
    prompt = prompts.describe_prompt(COMPACT, MOVIE, grammar.title_of(film))
    return _entity_example(prompt, grammar.tell_film(grammar.draw_telling(film, dialect, rng)))


def _entity_example(prompt: Prompt, text: str) -> Example:
    return Example(prompt, text.removeprefix(prompt.opening).strip())


def profile(world: World, dialect: str, rng: np.random.Generator) -> Example:
    """Write a user profile from the titles rated highest and lowest."""
    taste = world.draw_tastes(1, rng)[0]
    titles = [grammar.title_of(as_film(film)) for film in films_by_rating(world, taste, rng)]
    prompt = prompts.profile_prompt(COMPACT, titles[:PROFILE_SIDE], titles[-PROFILE_SIDE:])
    text = tell_profile(world, taste, rng)
    return Example(prompt, prompt.closed(text))


def _proposal(category: str, liked: set, film: Mapping[str, int], rng: np.random.Generator) -> str:
    """A change of the category; 7 times in 10 one that the profile calls for, if there is one."""
    slots = grammar.CATEGORY_SLOTS[category]
    fitting = sorted((s, v) for s, v in liked if s in slots and film[s] != v)
    if fitting and rng.random() < 0.7:
        slot, value = fitting[int(rng.integers(len(fitting)))]
    else:
        slot = slots[int(rng.integers(len(slots)))]
        value = int(rng.integers(grammar.num_values(slot) - 1))
        value += value >= film[slot]
    return grammar.tell_action(grammar.any_word(slot, value, rng), rng)


def generic_action(world: World, dialect: str, rng: np.random.Generator) -> Example:
    """Propose a change of one category."""
    film, telling = _film_text(rng)
    category = MOVIE.action_categories[int(rng.integers(5))]
    prompt = prompts.generic_action_prompt(COMPACT, MOVIE, grammar.tell_film(telling), category)
    return Example(prompt, prompt.closed(_proposal(category, set(), film, rng)))


def personalised_action(world: World, dialect: str, rng: np.random.Generator) -> Example:
    """Propose a change of one category to a user's taste."""
    film, telling = _film_text(rng)
    category = MOVIE.action_categories[int(rng.integers(5))]
    text = tell_profile(world, world.draw_tastes(1, rng)[0], rng)
    prompt = prompts.personalised_action_prompt(COMPACT, MOVIE, grammar.tell_film(telling), category, text)
    liked, _ = read_profile(text)
    return Example(prompt, prompt.closed(_proposal(category, liked, film, rng)))


def rater(world: World, dialect: str, rng: np.random.Generator) -> Example:
    """Answer the eleven questions: as the user by the profile, as oneself by the mean taste."""
    text = tell_profile(world, world.draw_tastes(1, rng)[0], rng)
    (film_a, telling_a), (film_b, telling_b) = _film_text(rng), _film_text(rng)
    if rng.random() < 0.5:  # often the two texts are close, as before and after an edit
        slots = rng.permutation(len(grammar.SLOTS))[: int(rng.integers(1, 6))]
        film_b = film_a | {grammar.SLOTS[s]: film_b[grammar.SLOTS[s]] for s in slots}
        telling_b = grammar.draw_telling(film_b, dialect, rng)
    texts = map(grammar.tell_film, (telling_a, telling_b))
    prompt = prompts.rater_prompt(COMPACT, *texts, text)
    answers = " ".join(f"{i} {answer}" for i, answer in rate(world, text, film_a, film_b).items())
    return Example(prompt, prompt.closed(answers))


def rate(world: World, profile_text: str, film_a: Mapping[str, int], film_b: Mapping[str, int]) -> dict[int, str]:
    """The teacher's answers to the rater form (spec: eleven questions)."""
    match, popular = [], []
    for film in (film_a, film_b):
        match.append(match_profile(profile_text, film))
        vector = world.film_vectors(np.array([[film[slot] for slot in grammar.SLOTS]]))[0]
        popular.append(float(vector @ world.mean_taste))
    score_a, score_b = (str(3 + max(-2, min(2, m))) for m in match)
    different = sum(film_a[slot] != film_b[slot] for slot in grammar.SLOTS)
    prefers = "a" if match[0] >= match[1] else "b"
    overall = "a" if match[0] + popular[0] >= match[1] + popular[1] else "b"
    wide = "a" if popular[0] >= popular[1] else "b"
    return {
        1: prefers, 2: prefers, 3: score_a, 4: score_b, 5: str(1 + min(4, (different + 1) // 2)),
        6: score_a, 7: score_b, 8: overall, 9: "3", 10: "3", 11: wide,
    }  # fmt: skip


CORPUS_TASKS: dict[str, Callable[[World, str, np.random.Generator], Example]] = {
    task.__name__: task for task in (rewrite, describe, profile, generic_action, personalised_action, rater)
}


def draw_examples(task: str, dialect: str, count: int, seed: int) -> list[Example]:
    """Fresh examples of one task in one dialect; the same seed gives the same ones."""
    rng = np.random.default_rng([sorted(CORPUS_TASKS).index(task), seed])
    world = draw_world()
    return [CORPUS_TASKS[task](world, dialect, rng) for _ in range(count)]


def vocabulary() -> list[str]:
    """Every word, sign and marker of every task, in a fixed order."""
    examples = [e for task in CORPUS_TASKS for e in draw_examples(task, "a", 400, 0)]
    examples += [e for task in CORPUS_TASKS for e in draw_examples(task, "b", 400, 1)]
    words = {word for values in grammar.LEXICON.values() for value in values for word in value}
    for example in examples:
        words.update(split_words(f"{example.prompt.text} {example.completion}"))
    return sorted(words)


def split_words(text: str) -> list[str]:
    """Words, signs and markers: what one token each stands for."""
    pieces = []
    for piece in text.split():
        if piece.startswith("#"):
            pieces.append(piece)
        else:
            core = piece.rstrip(".,;:")
            pieces += [core, *piece[len(core) :]] if core else list(piece)
    return pieces
