"""The grammar of MiniLens: ten attribute slots, two dialects, and a parser for its own texts.

A film is an assignment of one value to each slot. It is told in three blocks (plot, reasons to
like, reasons to dislike) by templates; every value has three surface words, of which dialect A
uses the first two and dialect B the last two. Words belong to one value only, so a text can be
read back whatever template it came from, and any edit of it can be judged slot by slot.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping

import numpy as np

from eagle_jax.data.catalogue import EditOutcome
from eagle_jax.data.prompts import MOVIE, MalformedText, parse_blocks, render_blocks

# slot -> value -> surface words; the first word of a value is its name.
LEXICON: dict[str, tuple[tuple[str, str, str], ...]] = {
    "genre": (
        ("western", "frontier", "cowboy"),
        ("noir", "gangster", "crime"),
        ("romance", "romantic", "sentimental"),
        ("comedy", "farce", "satire"),
        ("horror", "slasher", "ghost"),
        ("heist", "caper", "robbery"),
        ("musical", "operetta", "cabaret"),
        ("mystery", "whodunit", "puzzle"),
    ),
    "tone": (
        ("grim", "bleak", "harsh"),
        ("playful", "cheeky", "jolly"),
        ("tender", "gentle", "warm"),
        ("eerie", "uncanny", "spooky"),
        ("ironic", "wry", "sardonic"),
        ("hopeful", "uplifting", "bright"),
        ("tense", "nervous", "breathless"),
        ("dreamy", "hazy", "surreal"),
    ),
    "setting": (
        ("desert", "dunes", "wasteland"),
        ("harbor", "docks", "port"),
        ("castle", "fortress", "palace"),
        ("jungle", "rainforest", "wilds"),
        ("village", "hamlet", "countryside"),
        ("city", "metropolis", "downtown"),
        ("island", "atoll", "lagoon"),
        ("train", "railway", "express"),
    ),
    "hero": (
        ("detective", "inspector", "sleuth"),
        ("teacher", "professor", "tutor"),
        ("thief", "burglar", "pickpocket"),
        ("orphan", "foundling", "runaway"),
        ("soldier", "sergeant", "veteran"),
        ("chef", "cook", "baker"),
        ("scientist", "inventor", "chemist"),
        ("singer", "dancer", "violinist"),
    ),
    "conflict": (
        ("revenge", "vengeance", "payback"),
        ("rescue", "liberation", "salvation"),
        ("betrayal", "treason", "deceit"),
        ("survival", "endurance", "starvation"),
        ("trial", "lawsuit", "verdict"),
        ("rivalry", "duel", "contest"),
        ("conspiracy", "plotters", "coverup"),
        ("quest", "voyage", "expedition"),
    ),
    "theme": (
        ("loyalty", "devotion", "allegiance"),
        ("freedom", "liberty", "independence"),
        ("grief", "mourning", "loss"),
        ("ambition", "greed", "success"),
        ("family", "kinship", "parents"),
        ("identity", "selfhood", "belonging"),
        ("justice", "fairness", "law"),
        ("memory", "nostalgia", "forgetting"),
    ),
    "ending": (
        ("happily", "joyfully", "merrily"),
        ("tragically", "sadly", "fatally"),
        ("openly", "ambiguously", "unresolved"),
        ("surprisingly", "shockingly", "unexpectedly"),
        ("bittersweetly", "wistfully", "poignantly"),
        ("quietly", "calmly", "softly"),
    ),
    "style": (
        ("handheld", "shaky", "gritty"),
        ("painted", "colorful", "lush"),
        ("monochrome", "grainy", "silvery"),
        ("neon", "glowing", "electric"),
        ("animated", "drawn", "cartoon"),
        ("minimal", "sparse", "bare"),
        ("documentary", "realistic", "factual"),
        ("theatrical", "staged", "baroque"),
    ),
    "music": (
        ("jazz", "swing", "saxophone"),
        ("strings", "orchestral", "symphonic"),
        ("synth", "techno", "electronic"),
        ("folk", "acoustic", "banjo"),
        ("choir", "choral", "gospel"),
        ("drums", "percussion", "rhythmic"),
    ),
    "excluded": (
        ("children", "kids", "youngsters"),
        ("purists", "traditionalists", "conservatives"),
        ("cynics", "skeptics", "pessimists"),
        ("teenagers", "students", "adolescents"),
        ("critics", "reviewers", "snobs"),
        ("tourists", "strangers", "outsiders"),
    ),
}
SLOTS = tuple(LEXICON)
BLOCK_SLOTS = {
    "PLOT": ("genre", "tone", "setting", "hero", "conflict", "theme", "ending"),
    "REASONS_TO_LIKE": ("style", "music"),
    "REASONS_TO_DISLIKE": ("excluded",),
}
# The five categories of change (MOVIE.action_categories) and the slots that each one edits.
CATEGORY_SLOTS = dict(
    zip(
        MOVIE.action_categories,
        (("conflict", "ending"), ("hero",), ("style", "setting"), ("theme", "tone"), ("genre", "music", "excluded")),
        strict=True,
    )
)
DIALECTS = ("a", "b")

_TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "a": {
        "PLOT": (
            "this {tone} {genre} film plays in the {setting}. the {hero} must face {conflict}. "
            "it is about {theme} and ends {ending}.",
            "in the {setting} the {hero} meets {conflict}. this {genre} film is {tone}, speaks of "
            "{theme} and ends {ending}.",
            "the {hero} knows {conflict} too well. from the {setting} comes this {tone} {genre} "
            "story of {theme}. all ends {ending}.",
        ),
        "REASONS_TO_LIKE": (
            "the {style} images and the {music} score.",
            "its {music} score goes with {style} pictures.",
        ),
        "REASONS_TO_DISLIKE": ("it is not for {excluded}.", "it may lose {excluded}."),
    },
    "b": {
        "PLOT": (
            "{conflict} finds the {hero} somewhere near the {setting}; so begins this {genre} "
            "tale. its mood is {tone}, its heart is {theme}, and it closes {ending}.",
            "it closes {ending}, this {tone} tale of {theme}: the {hero} against {conflict}, at "
            "the {setting}, told as {genre}.",
            "a {genre} tale, {tone} throughout. at the {setting} lives the {hero}, whom {conflict} "
            "teaches {theme}; it closes {ending}.",
        ),
        "REASONS_TO_LIKE": (
            "viewers praise {style} visuals, {music} sounds.",
            "how {music} sounds meet {style} visuals.",
        ),
        "REASONS_TO_DISLIKE": ("{excluded} walked out.", "{excluded} were bored by it."),
    },
}
ACTIONS: dict[str, tuple[str, ...]] = {
    "genre": ("turn it into {} cinema.", "make the genre {}."),
    "tone": ("make the tone {}.", "give it some {} mood."),
    "setting": ("move it to the {}.", "let it play at the {}."),
    "hero": ("make the hero the {}.", "follow the {} instead."),
    "conflict": ("let the hero face {}.", "bring in {}."),
    "theme": ("explore {}.", "make it speak of {}."),
    "ending": ("let it end {}.", "close the film {}."),
    "style": ("shoot it in {} style.", "make the images {}."),
    "music": ("use {} music.", "give it some {} score."),
    "excluded": ("do not care about {}.", "let {} be bored."),
}
_WORD = re.compile(r"[a-z]+")


@functools.cache
def word_values() -> dict[str, tuple[str, int]]:
    """Surface word -> (slot, value)."""
    return {
        word: (slot, value) for slot, values in LEXICON.items() for value, words in enumerate(values) for word in words
    }


def num_values(slot: str) -> int:
    return len(LEXICON[slot])


def mentions(text: str) -> list[tuple[str, int]]:
    """The (slot, value) pairs that a text names, in the order of the text."""
    return [word_values()[word] for word in _WORD.findall(text) if word in word_values()]


@dataclasses.dataclass(frozen=True)
class Telling:
    """How a film is told: dialect, one template per block, one surface word per slot."""

    dialect: str
    templates: tuple[int, int, int]
    words: tuple[str, ...]  # in the order of SLOTS


def draw_word(slot: str, value: int, dialect: str, rng: np.random.Generator) -> str:
    words = LEXICON[slot][value]
    return words[int(rng.integers(2)) + (dialect == "b")]


def draw_telling(film: Mapping[str, int], dialect: str, rng: np.random.Generator) -> Telling:
    """A random way to tell a film in a dialect."""
    templates = tuple(int(rng.integers(len(_TEMPLATES[dialect][block]))) for block in BLOCK_SLOTS)
    words = tuple(draw_word(slot, film[slot], dialect, rng) for slot in SLOTS)
    return Telling(dialect, templates, words)


def tell_film(telling: Telling) -> str:
    """The marked text of a telling."""
    words = dict(zip(SLOTS, telling.words, strict=True))
    texts = zip(BLOCK_SLOTS, telling.templates, strict=True)
    return render_blocks({block: _TEMPLATES[telling.dialect][block][i].format(**words) for block, i in texts})


def parse_film(text: str) -> dict[str, int]:
    """Slots of a told film; raises `MalformedText` for a slot missing, doubled or misplaced."""
    film: dict[str, int] = {}
    for block, content in parse_blocks(text, MOVIE.blocks).items():
        for slot, value in mentions(content):
            if slot not in BLOCK_SLOTS[block]:
                raise MalformedText("misplaced_slot", f"{slot} in {block}")
            if slot in film:
                raise MalformedText("doubled_slot", slot)
            film[slot] = value
    if missing := [slot for slot in SLOTS if slot not in film]:
        raise MalformedText("missing_slot", ", ".join(missing))
    return {slot: film[slot] for slot in SLOTS}


def in_dialect(word: str, dialect: str) -> str:
    """The word itself where the dialect has it; else the dialect's own word for the value."""
    slot, value = word_values()[word]
    words = LEXICON[slot][value]
    native, foreign = (words[0], words[2]) if dialect == "a" else (words[2], words[0])
    return native if word == foreign else word


def retell(telling: Telling, new_words: Mapping[str, str], dialect: str) -> Telling:
    """The telling after an edit: the same template, and the same words where the dialect has them.

    `new_words` gives the word of each slot that changes.
    """
    words = tuple(
        in_dialect(new_words.get(slot, word), dialect) for slot, word in zip(SLOTS, telling.words, strict=True)
    )
    return Telling(dialect, telling.templates, words)


def any_word(slot: str, value: int, rng: np.random.Generator) -> str:
    """One of the three words of a value, whatever the dialect."""
    return LEXICON[slot][value][int(rng.integers(3))]


def tell_action(word: str, rng: np.random.Generator) -> str:
    """An instruction to give the slot of `word` the value of `word`."""
    slot, _ = word_values()[word]
    return ACTIONS[slot][int(rng.integers(len(ACTIONS[slot])))].format(word)


def title_of(film: Mapping[str, int]) -> str:
    """The first word of every value: short, and it says all that the film is."""
    return " ".join(LEXICON[slot][film[slot]][0] for slot in SLOTS)


class GrammarOracle:
    """What only a synthetic world can know about an edit (see `base.types.EditOracle`)."""

    def single_edits(self, description: str) -> list[str]:
        """All one-slot edits, in the text's own words; nothing for a text it cannot read."""
        try:
            film = parse_film(description)
        except MalformedText:
            return []
        edits = []
        for word, (slot, value) in word_values().items():
            if value != film[slot] and word == LEXICON[slot][value][1]:  # known to both dialects
                edits.append(
                    _WORD.sub(
                        lambda match, slot=slot, word=word: (
                            word if word_values().get(match.group(), ("",))[0] == slot else match.group()
                        ),
                        description,
                    )
                )
        return edits

    def judge_edit(self, before: str, action: str, after: str) -> EditOutcome:
        """Compare the slots before and after with those the action names (last mention wins)."""
        try:
            new = parse_film(after)
        except MalformedText:
            return EditOutcome(well_formed=False, followed=False, kept=0.0)
        old, wanted = parse_film(before), dict(mentions(action))
        others = [slot for slot in SLOTS if slot not in wanted]
        kept = [new[slot] == old[slot] for slot in others]
        followed = bool(wanted) and all(new[slot] == value for slot, value in wanted.items())
        return EditOutcome(well_formed=True, followed=followed, kept=float(np.mean(kept or [1.0])))
