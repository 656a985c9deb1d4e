"""CIPHER on MiniLens: a user edits drafts towards a known taste, the edits become a told preference.

Gao et al. 2024 (arXiv 2404.15269). In a round (PRELUDE, protocol 1) the agent drafts a text for a
context, the user edits it, and the cost is the edit distance of the two. CIPHER (algorithm 1) retrieves
the preferences of the k nearest contexts, aggregates them, drafts by the aggregate; where the user
edited it infers a preference from the draft and the edit, else it keeps the aggregate; and stores it
under the context. Contexts are compared by the cosine of their embeddings.

What stands for the paper's GPT-4, each a deviation:
- The user changes at most so many slots of the draft's film, those by which the film gains most, to
  the value of it that the taste likes best, where the gain is above a limit.
- A context is a told film, and a draft that film with the values that the preference names as liked.
- A preference is a text in the words of MiniLens' profiles. `read_edit` infers it by the grammar: the
  user likes the values that came and not those that went; the generator of MiniLens stands beside it
  (`edit_rounds`). `aggregate` counts votes where the paper
  asks for "the most represented preferences".

Axis letters: `L` latent width, `T` tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.data.minilens.world import as_film, draw_films, draw_world

Value = tuple[str, int]  # a slot and its value
Affinity = Mapping[Value, float]


def draw_context(dialect: str, rng: np.random.Generator) -> grammar.Telling:
    """A random film as it is told in a dialect."""
    return grammar.draw_telling(as_film(draw_films(1, rng)[0]), dialect, rng)


def film_of(telling: grammar.Telling) -> dict[str, int]:
    """The values of a telling's words."""
    return dict(grammar.word_values()[word] for word in telling.words)


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Levenshtein's distance of two token sequences [T], the paper's cost of an edit."""
    # What both begin and end with costs nothing, and is most of it.
    while first and second and first[0] == second[0]:
        first, second = first[1:], second[1:]
    while first and second and first[-1] == second[-1]:
        first, second = first[:-1], second[:-1]
    row = list(range(len(second) + 1))
    for i, token in enumerate(first, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (token != other))
    return row[-1]


def edit_cost(draft: grammar.Telling, edited: grammar.Telling) -> int:
    """Tokens that the user inserted, deleted or replaced."""
    return edit_distance(*(corpus.split_words(grammar.tell_film(telling)) for telling in (draft, edited)))


def with_values(telling: grammar.Telling, values: Mapping[str, int]) -> grammar.Telling:
    """The telling with other values of some slots, by their names where the dialect has them."""
    film = film_of(telling)
    words = {slot: grammar.LEXICON[slot][value][0] for slot, value in values.items() if film[slot] != value}
    return grammar.retell(telling, words, telling.dialect)


def user_edit(draft: grammar.Telling, affinity: Affinity, *, max_edits: int, least_gain: float) -> grammar.Telling:
    """The draft as a user of this taste leaves it.

    Of the slots whose best value is worth more than `least_gain` above the draft's (in affinity, of
    which films have a standard deviation of 1), the `max_edits` with most gain get that value.
    """
    film = film_of(draft)
    gains: dict[Value, float] = {}
    for slot, value in film.items():
        best = max(range(grammar.num_values(slot)), key=lambda other, slot=slot: affinity[slot, other])
        gain = affinity[slot, best] - affinity[slot, value]
        if gain > least_gain:
            gains[slot, best] = gain
    chosen = sorted(gains, key=gains.get, reverse=True)[:max_edits]
    return with_values(draft, dict(chosen))


def tell_preference(liked: Sequence[Value], disliked: Sequence[Value]) -> str:
    """Values as a profile tells them; `corpus.read_profile` reads them back."""
    names = [
        " and ".join(grammar.LEXICON[slot][value][0] for slot, value in sorted(side)) for side in (liked, disliked)
    ]
    parts = [f"{verb} {told}" for verb, told in zip(("loves", "dislikes"), names, strict=True) if told]
    # What is disliked stands behind a comma, also where nothing is liked.
    return f"{', '.join(parts) if liked else ', ' + ''.join(parts)}." if parts else ""


def read_edit(draft: grammar.Telling, edited: grammar.Telling) -> str:
    """The preference that an edit shows: values that came are liked, those that went are not."""
    before, after = film_of(draft), film_of(edited)
    changed = [slot for slot in before if before[slot] != after[slot]]
    return tell_preference([(slot, after[slot]) for slot in changed], [(slot, before[slot]) for slot in changed])


def aggregate(preferences: Sequence[str]) -> str:
    """What most of the preferences say: of each value the votes for less those against; one stays as it is.

    The values with votes left for them are liked, of a slot the one with the most (the first one that
    was named, of equals); those with votes left against them are not.
    """
    if len(preferences) == 1:
        return preferences[0]
    votes: Counter[Value] = Counter()
    for preference in preferences:
        liked, disliked = corpus.read_profile(preference)
        for value in sorted(liked):
            votes[value] += 1
        for value in sorted(disliked):
            votes[value] -= 1
    best: dict[str, Value] = {}
    for value, count in votes.items():
        if count > 0 and (value[0] not in best or count > votes[best[value[0]]]):
            best[value[0]] = value
    return tell_preference(list(best.values()), [value for value, count in votes.items() if count < 0])


def standing(preference: str, edited: grammar.Telling) -> str:
    """What a user who left the draft in part as it was confirms of the preference that it was drafted by."""
    liked, disliked = corpus.read_profile(preference)
    kept = set(film_of(edited).items())
    return tell_preference(sorted(liked & kept), sorted(disliked - kept))


def draft_for(context: grammar.Telling, preference: str) -> grammar.Telling:
    """The context's film with the values that the preference likes, of a slot the one named first."""
    wanted: dict[str, int] = {}
    for sentence in preference.split("."):
        for slot, value in grammar.mentions(sentence.partition(",")[0]):
            wanted.setdefault(slot, value)
    return with_values(context, wanted)


def nearest(contexts: np.ndarray, context: np.ndarray, count: int) -> np.ndarray:
    """Rows of the `count` contexts whose cosine with one is greatest, the nearest first."""
    unit = contexts / np.linalg.norm(contexts, axis=1, keepdims=True)
    return np.argsort(-(unit @ context), kind="stable")[:count]


def told_correlation(preference: str, affinity: Affinity) -> float:
    """Pearson's correlation of what a preference says of all values with what the user thinks of them.

    It says 1 of a liked value, -1 of a disliked one, 0 of all others; 0 where it says nothing at all.
    """
    liked, disliked = corpus.read_profile(preference)
    says = np.array([(value in liked) - float(value in disliked) for value in affinity])
    return float(np.corrcoef(says, list(affinity.values()))[0, 1]) if says.std() else 0.0


def film_affinity(telling: grammar.Telling, taste: np.ndarray) -> float:
    """What a user of this taste [L] thinks of a told film."""
    film = film_of(telling)
    return float(draw_world().film_vectors(np.array([[film[slot] for slot in grammar.SLOTS]]))[0] @ taste)
