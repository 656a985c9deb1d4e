"""The teacher of ELM's tasks in MiniLens: the grammar answers, and reads answers back.

It reads the films out of its prompt, titles or told, and writes in dialect a with words of the
films' own language only, so that a model of that language can embed the answers. Every answer about
a film names values of its slots; how many of them a text has right is the measure of an answer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np

from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.data.minilens.world import draw_world
from eagle_jax.data.prompts import MOVIE, MalformedText, Prompt, parse_blocks
from eagle_jax.data.tasks import Task, read_teacher_prompt

Film = Mapping[str, int]
_DIALECT = "a"
# What a task says of a film; those that are not here tell it as the grammar tells films.
_ANSWERS = {
    "positive_review": "viewers praise this {tone} {genre} film. how the {hero} meets {conflict} "
    "in the {setting} is told so well. it speaks of {theme} and ends {ending}. its {music} score "
    "goes with {style} pictures. it may lose {excluded}.",
    "negative_review": "viewers walked out of this {tone} {genre} film. in the {setting} the "
    "{hero} must face {conflict} throughout. it speaks of {theme} and ends {ending}. some were "
    "bored by the {style} images and the {music} score. it is not for {excluded}.",
    "neutral_review": "some viewers praise how the {hero} meets {conflict} in the {setting}, the "
    "{style} images and the {music} score. some were bored by its {tone} mood and this {genre} "
    "story of {theme}. it ends {ending} and is not for {excluded}.",
    "five_positive_characteristics": "1 the {tone} mood of this {genre} film. 2 the {hero} in the "
    "{setting}. 3 how it speaks of {conflict} and {theme}. 4 how all ends {ending}. 5 the {style} "
    "images and the {music} score.",
    "five_negative_characteristics": "1 the {genre} story is too {tone}. 2 the {hero} in the "
    "{setting} must face {conflict}. 3 it speaks of {theme} and ends {ending}. 4 the {style} "
    "images and the {music} score. 5 it is not for {excluded}.",
    "long_description": "the plot begins in the {setting}. the hero is the {hero}, whom {conflict} "
    "finds. so begins this {genre} tale. its mood is {tone}, its heart is {theme}, and it ends "
    "{ending}. it is told with {style} images and some {music} score. it is not for {excluded}.",
    "movie_to_viewer": "overall: loves some {tone} mood and {theme}. genre: loves {genre}. "
    "director: loves {style} images. aesthetic: loves the {setting} and {music} music. other: "
    "loves the {hero}, {conflict}, and how it ends {ending}.",
    "pitch": "make the genre {genre}. make the tone {tone}. let it play at the {setting}. follow "
    "the {hero}. let the hero face {conflict}. explore {theme}. let it end {ending}. make the "
    "images {style}. use {music} music. do not care about {excluded}.",
    "criticize": "some were bored by the {setting}, some by the {hero} and {conflict}. the {genre} "
    "story is too {tone} and speaks too well of {theme}. it ends {ending}. its {style} visuals and "
    "{music} sounds lose {excluded}.",
    "convince1": "in the {setting} the {hero} meets {conflict}: this {tone} {genre} film is told "
    "so well. its heart is {theme} and all ends {ending}. viewers praise the {style} images and "
    "the {music} score. it is not for {excluded}.",
    "convince2": "viewers praise this {tone} {genre} film: the {hero} must face {conflict}. it is "
    "about {theme}, with {style} images and some {music} score.",
    "convince3": "this {tone} {genre} film plays in the {setting}. the {hero} must face {conflict}.",
    "dissuade1": "this {genre} film is too {tone}. in the {setting} the {hero} must face "
    "{conflict} and {theme}. all ends {ending}. viewers were bored by the {style} images and the "
    "{music} score. it is not for {excluded}.",
    "dissuade2": "it is too {tone}. its {genre} story of the {hero} and {conflict} ends {ending}. "
    "it may lose {excluded}.",
}
_CHANGES = {  # names of values
    "funnier": ("comedy", "playful", "happily"),
    "sadder": ("grim", "grief", "tragically"),
    "scarier": ("horror", "eerie", "surprisingly"),
}
_IMPROVED = ("tone", "ending", "music")  # slots that get the value which most people like best
_SAYS_IMPROVED = "make the tone {tone}. let it end {ending}. use {music} music."
_NAMED = {
    "genre": "the {} genre",
    "tone": "the {} tone",
    "setting": "the {}",
    "hero": "the {}",
    "conflict": "{}",
    "theme": "{}",
    "ending": "how it ends {}",
    "style": "{} images",
    "music": "{} music",
    "excluded": "not for {}",
}
BOTH_FILMS, FILM_A, FILM_B = "film a and film b", "film a", "film b"
# How many values each answer about a pair names at most: of both, of each that the other lacks.
_COMPARED = {
    "similarities": {BOTH_FILMS: 3, FILM_A: 3, FILM_B: 3},
    "common_with_nn": {BOTH_FILMS: 3},
    "diff_than_nn": {FILM_A: 3, FILM_B: 3},
    "why_like_nn": {BOTH_FILMS: 3, FILM_B: 2},
}
_NOTHING_IN_COMMON = "film a is not as film b."
_SIDES = re.compile(rf"({BOTH_FILMS}|{FILM_A}|{FILM_B}):")
# The variance of what "liked" (affinity 1) and "disliked" (-1) say of a user's affinity.
_RATING_VARIANCE = 0.5


def answer_task(prompt: Prompt, rng: np.random.Generator) -> str:
    """The answer to a `teacher_prompt` of the compact book: what a `ScriptedGenerator` writes.

    Raises ValueError for another prompt, `MalformedText` for a text that is no film.
    """
    task, shown = read_teacher_prompt("compact", prompt)
    if task.describes_user:
        return corpus.tell_profile(draw_world(), taste_of(shown[0]), rng)
    films = [read_film(text) for text in shown]
    if task.name in _COMPARED:
        return _compare(_COMPARED[task.name], films, rng)
    film = target_film(task, films)
    words = {slot: grammar.draw_word(slot, film[slot], _DIALECT, rng) for slot in grammar.SLOTS}
    if task.name in _ANSWERS:
        return _ANSWERS[task.name].format(**words)
    text = " ".join(parse_blocks(_tell(film, rng), MOVIE.blocks).values())
    return f"{_SAYS_IMPROVED.format(**words)} {text}" if task.name == "improve" else text


def _tell(film: Film, rng: np.random.Generator) -> str:
    return grammar.tell_film(grammar.draw_telling(film, _DIALECT, rng))


def read_film(text: str) -> dict[str, int]:
    """The film of a title or of a told text; `MalformedText` unless each slot is named once."""
    mentions = grammar.mentions(text)
    film = dict(mentions)
    if len(mentions) != len(film) or len(film) != len(grammar.SLOTS):
        raise MalformedText("not_a_film", f"expected each slot once in {text[:80]!r}")
    return {slot: film[slot] for slot in grammar.SLOTS}


def target_film(task: Task, films: Sequence[Film]) -> dict[str, int]:
    """The film that the answer tells: the one shown, changed, or slots of two films in turn."""
    if task.name == "interpolation":
        return {slot: films[s % 2][slot] for s, slot in enumerate(grammar.SLOTS)}
    changed = [grammar.word_values()[name] for name in _CHANGES.get(task.name, ())]
    if task.name == "improve":
        changed = [_most_liked(slot) for slot in _IMPROVED]
    return {**films[0], **dict(changed)}


@functools.cache
def _most_liked(slot: str) -> tuple[str, int]:
    affinity = draw_world().value_affinity(draw_world().mean_taste)
    return max((key for key in affinity if key[0] == slot), key=affinity.get)


def taste_of(rated: str) -> np.ndarray:
    """The mean [L] of a user's taste given liked and disliked titles, by the world's own prior.

    taste ~ N(mean, I) and affinity of a liked (disliked) film = 1 (-1) + noise: ridge regression.
    """
    sides = parse_blocks(rated, ["LIKED", "DISLIKED"])
    films, signs = [], []
    for sign, titles in zip((1.0, -1.0), sides.values(), strict=True):
        for title in titles.split(";"):
            film = read_film(title)
            films.append([film[slot] for slot in grammar.SLOTS])
            signs.append(sign)
    vectors = draw_world().film_vectors(np.array(films))
    prior = draw_world().mean_taste
    precision = np.eye(len(prior)) + vectors.T @ vectors / _RATING_VARIANCE
    errors = np.array(signs) - vectors @ prior
    return prior + np.linalg.solve(precision, vectors.T @ errors / _RATING_VARIANCE)


def _compare(counts: Mapping[str, int], films: Sequence[Film], rng: np.random.Generator) -> str:
    first, second = films
    shared = [slot for slot in grammar.SLOTS if first[slot] == second[slot]]
    other = [slot for slot in grammar.SLOTS if first[slot] != second[slot]]
    chosen = {True: _choose(shared, counts.get(BOTH_FILMS, 0), rng), False: _choose(other, counts.get(FILM_B, 0), rng)}
    sentences = []
    for side in counts:
        film = second if side == FILM_B else first
        named = [
            _NAMED[slot].format(grammar.draw_word(slot, film[slot], _DIALECT, rng))
            for slot in chosen[side == BOTH_FILMS]
        ]
        if named:
            sentences.append(f"{side}: {', '.join(named)}.")
    return " ".join(sentences) or _NOTHING_IN_COMMON


def _choose(slots: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    kept = sorted(rng.permutation(len(slots))[:count])
    return [slots[i] for i in kept]


def task_slots(task: Task, text: str) -> dict[str, int]:
    """Slots of the film that a text describes, or of what it says two films share.

    A slot with two values is left out: the text contradicts itself.
    """
    return _claims(task, text).get(BOTH_FILMS, {})


def _claims(task: Task, text: str) -> dict[str, dict[str, int]]:
    """Side -> slots that the text names of it; what is no comparison is all about `BOTH_FILMS`."""
    pieces = _SIDES.split(text) if task.name in _COMPARED else ["", BOTH_FILMS, text]
    claims: dict[str, dict[str, int]] = {}
    for side, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        values: dict[str, set[int]] = {}
        for slot, value in grammar.mentions(piece):
            values.setdefault(slot, set()).add(value)
        claims[side] = {slot: min(found) for slot, found in values.items() if len(found) == 1}
    return claims


def named_slots(task: Task) -> list[str]:
    """Slots that the answer to a task about a film names."""
    template = _ANSWERS.get(task.name)
    return [slot for slot in grammar.SLOTS if not template or f"{{{slot}}}" in template]


def share_recovered(prompt: Prompt, text: str) -> float:
    """How much of what the answer to `prompt` should name a text names rightly, in [0, 1].

    Of a film: the share of its slots (of an interpolation either film's value is right). Of a pair:
    right claims over all claims, or over as many as there should be where the text makes fewer. Of
    a user: the share of the teacher's likes and dislikes.
    """
    task, shown = read_teacher_prompt("compact", prompt)
    if task.describes_user:
        truth = corpus.tell_profile(draw_world(), taste_of(shown[0]), np.random.default_rng(0))
        sides = zip(corpus.read_profile(truth), corpus.read_profile(text), strict=True)
        return float(np.mean([len(true & ours) / len(true) for true, ours in sides]))
    films = [read_film(one) for one in shown]
    if task.name in _COMPARED:
        return _share_of_claims(_COMPARED[task.name], films, _claims(task, text))
    found = task_slots(task, text)
    slots = named_slots(task)
    targets = films if task.name == "interpolation" else [target_film(task, films)]
    right = [any(found.get(slot) == film[slot] for film in targets) for slot in slots]
    return float(np.mean(right))


def _share_of_claims(
    counts: Mapping[str, int], films: Sequence[Film], claims: Mapping[str, Mapping[str, int]]
) -> float:
    first, second = films
    num_shared = sum(first[slot] == second[slot] for slot in first)
    right, expected, made = 0, 0, 0
    for side, count in counts.items():
        available = num_shared if side == BOTH_FILMS else len(first) - num_shared
        expected += min(count, available)
        named = claims.get(side, {})
        made += len(named)
        film = second if side == FILM_B else first
        right += sum(
            film[slot] == value and (first[slot] == second[slot]) == (side == BOTH_FILMS)
            for slot, value in named.items()
        )
    return right / max(made, expected) if max(made, expected) else 1.0
