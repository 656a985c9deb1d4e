"""Fifty ways to break a text, and some honest ways to change it: what a quality term has to tell apart.

A way is a function of the prose of a block, of the same block of another entity's text, and of a generator of random
numbers; or a text that has nothing to do with any, written for this table.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from eagle_jax.data.prompts import begin, end, full_blocks

BreakFn = Callable[[str, str, random.Random], str]

_STOP_WORDS = (
    "a about after all also an and are as at be been before but by can could did do does for from had has have "
    "he her him his how i if in into is it its may must my no not of off on one only or our out over own she "
    "so some than that the their them then there they this to too up was we were what when where which who "
    "will with would you"
)


# Instead of the text, whatever it was.
UNRELATED = {
    "praise": (
        "A must-see masterpiece that will keep you on the edge of your seat. The acting is superb, the music is "
        "wonderful and the pictures are simply stunning. Highly recommended for the whole family."
    ),
    "a review": (
        "I watched this last weekend and I have to say that I loved every minute of it. Five stars from me. I "
        "cannot wait to see it again with my friends."
    ),
    "a recipe": (
        "Melt the butter in a large pan and add the chopped onions. Stir in the flour, pour in the milk and let "
        "the sauce simmer for ten minutes. Season with salt and pepper and serve it with fresh bread."
    ),
    "news": (
        "The central bank left interest rates unchanged on Thursday. Analysts had expected a cut of a quarter of a "
        "point. Shares of the largest banks fell in early trading."
    ),
    "an instruction": (
        "Write a short story of about two hundred words. Make sure that the main character changes in the course "
        "of it. Avoid long sentences and explain your choices at the end."
    ),
    "a refusal": (
        "I'm sorry, but as an AI language model I cannot rewrite this text. Please provide more details about the "
        "change that you have in mind."
    ),
    "German": (
        "Ein junger Lehrer zieht in ein kleines Dorf am Meer. Dort lernt er eine Fischerin kennen, die ein altes "
        "Geheimnis hütet. Als ein Sturm aufzieht, müssen beide eine Entscheidung treffen."
    ),
    "Spanish": (
        "Un joven maestro se muda a un pequeño pueblo junto al mar. Allí conoce a una pescadora que guarda un "
        "viejo secreto. Cuando llega la tormenta, los dos tienen que tomar una decisión."
    ),
    "French": (
        "Un jeune instituteur s'installe dans un petit village au bord de la mer. Il y rencontre une pêcheuse qui "
        "garde un vieux secret. Quand la tempête arrive, tous deux doivent faire un choix."
    ),
    "lorem ipsum": (
        "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et "
        "dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris."
    ),
    "code": "def main(args): for item in args: print(item.name) if item else None; return sum(len(x) for x in args)",
}


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", text)


def _shuffled(words: list[str], rng: random.Random) -> list[str]:
    return rng.sample(words, len(words))


def _by_word(change: Callable[[str], str]) -> BreakFn:
    return lambda text, other, rng: " ".join(change(word) for word in text.split())


def _every(step: int, text: str) -> str:
    return " ".join(word for place, word in enumerate(text.split(), start=1) if place % step)


def _middle(text: str, change: Callable[[list[str]], list[str]]) -> str:
    words = text.split()
    third = max(1, len(words) // 3)
    return " ".join(words[:third] + change(words[third : 2 * third + 1]) + words[2 * third + 1 :])


def _swap_inside(word: str) -> str:
    return word if len(word) < 4 else word[0] + word[2] + word[1] + word[3:]


def _junk(count: int, rng: random.Random) -> str:
    return " ".join("".join(rng.choices("bcdfghjklmnpqrstvwxz", k=rng.randint(3, 8))) for _ in range(count))


def _interleaved(text: str, other: str) -> str:
    return " ".join(word for pair in zip(text.split(), other.split(), strict=False) for word in pair)


def _cut(text: str, share: float) -> str:
    words = text.split()
    return " ".join(words[: max(1, int(share * len(words)))]).rstrip(".,;:!?")


def _loop(text: str, size: int, count: int) -> str:
    return " ".join(text.split()[:size] * count)


CHANGED: dict[str, BreakFn] = {
    # words in another order
    "words shuffled": lambda text, other, rng: " ".join(_shuffled(text.split(), rng)),
    "words shuffled in sentences": lambda text, other, rng: " ".join(
        " ".join(_shuffled(sentence.split(), rng)) for sentence in _sentences(text)
    ),
    "words backwards": lambda text, other, rng: " ".join(reversed(text.split())),
    "words sorted": lambda text, other, rng: " ".join(sorted(text.split())),
    "neighbours swapped": lambda text, other, rng: " ".join(
        word for place in range(0, len(text.split()), 2) for word in reversed(text.split()[place : place + 2])
    ),
    "middle shuffled": lambda text, other, rng: _middle(text, lambda words: _shuffled(words, rng)),
    "words of two texts in turn": lambda text, other, rng: _interleaved(text, other),
    # words gone
    "every third word dropped": lambda text, other, rng: _every(3, text),
    "every second word dropped": lambda text, other, rng: _every(2, text),
    "a telegram": lambda text, other, rng: " ".join(w for w in text.split() if w.lower() not in _STOP_WORDS.split()),
    "stop-words only": lambda text, other, rng: (
        " ".join(w for w in text.split() if w.lower() in _STOP_WORDS.split()) or "the"
    ),
    "keywords": lambda text, other, rng: ", ".join(sorted(set(re.findall(r"\w{4,}", text)))),
    # loops and copies
    "every word twice": _by_word(lambda word: f"{word} {word}"),
    "one word again and again": lambda text, other, rng: f"{text} " + " ".join([text.split()[0]] * 20),
    "a phrase again and again": lambda text, other, rng: _loop(text, 4, 12),
    "ends in a loop": lambda text, other, rng: f"{_cut(text, 0.6)} " + " ".join(text.split()[-5:] * 6),
    "a sentence again and again": lambda text, other, rng: " ".join(_sentences(text)[:1] * 6),
    "said twice": lambda text, other, rng: f"{text} {text}",
    "every sentence twice": lambda text, other, rng: " ".join(s for one in _sentences(text) for s in (one, one)),
    "a refrain": lambda text, other, rng: " ".join(f"{_loop(text, 6, 1)}. {one}" for one in _sentences(text) * 2),
    # pieces
    "two words": lambda text, other, rng: " ".join(text.split()[:2]),
    "cut after a few words": lambda text, other, rng: _cut(text, 0.3),
    "cut in a sentence": lambda text, other, rng: _cut(text, 0.7),
    "cut in a word": lambda text, other, rng: text.rstrip(".!?")[:-3],
    "goes on without an end": lambda text, other, rng: f"{text} and then the",
    "all one sentence": lambda text, other, rng: re.sub(r"[.!?]\s+", " and ", " ".join([text, other, text])),
    # something else
    "another entity": lambda text, other, rng: other,
    "another entity after its opening": lambda text, other, rng: f"{_loop(text, 3, 1)} {other}",
    # what a model leaves of its prompt
    "an answer's opening": lambda text, other, rng: f"Sure! Here is the rewritten text: {text}",
    "an answer's ending": lambda text, other, rng: f"{text} I hope this helps. Let me know if you want changes.",
    "markers of a chat": lambda text, other, rng: f"{text} <|im_end|> <|im_start|>assistant {text}",
    "markers of blocks": lambda text, other, rng: f"{text} #END_ACTION #BEGIN_ACTION {_loop(text, 8, 1)}",
    "JSON": lambda text, other, rng: '{"plot": "' + text + '", "changed": true}',
    # form
    "a numbered list": lambda text, other, rng: " ".join(
        f"{place}. {word}" for place, word in enumerate(text.split(), start=1)
    ),
    "every word in bold": _by_word(lambda word: f"**{word}**"),
    # letters
    "letters swapped": _by_word(_swap_inside),
    "without vowels": _by_word(lambda word: word[0] + re.sub("[aeiou]", "", word[1:])),
    "spaced letters": lambda text, other, rng: " ".join(text.replace(" ", "")),
    "junk in the middle": lambda text, other, rng: _middle(text, lambda words: [_junk(len(words), rng)]),
}


BROKEN = (*CHANGED, *UNRELATED)


def broken(name: str, text: str, other: str, blocks: tuple[str, ...], seed: int = 0) -> str:
    """The marked text broken in this way, every block that says something; `other`: another entity's text."""
    if name in UNRELATED:
        return _rendered({blocks[0]: UNRELATED[name]}, blocks)
    rng, of_other = random.Random(f"{name} {seed}"), full_blocks(other, blocks)
    return _rendered(
        {
            block: CHANGED[name](content, of_other.get(block, content), rng)
            for block, content in full_blocks(text, blocks).items()
        },
        blocks,
    )


def _rendered(contents: dict[str, str], blocks: tuple[str, ...]) -> str:
    """With markers, also those within a text, which `render_blocks` refuses."""
    parts = (part for block in blocks for part in (begin(block), contents.get(block, ""), end(block)))
    return " ".join(part for part in parts if part)


# Word for word: what a careful editor might write instead.
_SYNONYMS = {
    "young": "youthful",
    "old": "aged",
    "man": "fellow",
    "woman": "lady",
    "father": "dad",
    "mother": "mom",
    "finds": "discovers",
    "find": "discover",
    "must": "has to",
    "begins": "starts",
    "decides": "chooses",
    "falls": "tumbles",
    "house": "home",
    "town": "village",
    "city": "metropolis",
    "friend": "companion",
    "friends": "companions",
    "fight": "battle",
    "kill": "murder",
    "big": "large",
    "help": "assistance",
    "story": "tale",
}
_ENDING = "In the end, they find the courage to forgive each other and start a new life."
_SETTING = "All of it takes place in a small mining town in Canada during a long winter."
_GENRE = "Told as a comedy, it laughs at everybody who takes the matter too seriously."

HONEST: dict[str, Callable[[str], str]] = {
    "synonyms": lambda text: re.sub(r"[A-Za-z]+", lambda found: _SYNONYMS.get(found[0], found[0]), text),
    "another ending": lambda text: " ".join([*_sentences(text)[:-1], _ENDING]),
    "an ending more": lambda text: f"{text} {_ENDING}",
    "another setting": lambda text: f"{text} {_SETTING}",
    "another genre": lambda text: f"{text} {_GENRE}",
    "sentences in another order": lambda text: " ".join(_sentences(text)[1:] + _sentences(text)[:1]),
}


def honest(name: str, text: str, blocks: tuple[str, ...]) -> str:
    """The marked text with its first block changed in this way."""
    contents = full_blocks(text, blocks)
    return _rendered(contents | {blocks[0]: HONEST[name](contents[blocks[0]])}, blocks)
