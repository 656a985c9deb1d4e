"""What a chat is told so that it rewrites an entity: who it is, how it is asked, examples, how its answer begins.

The prompt is a dialogue in `plain_prompt`'s layout, which a model with a chat template reads as turns. Models too small
to follow the description of a task follow examples of it, and go on where their answer has begun.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from eagle_jax.data.preferences.dialogues import plain_prompt
from eagle_jax.data.prompts import MOVIE, PRODUCT, EntityFormat, Prompt

_ABOUT = "film films movie movies plot story scene scenes protagonist viewer viewers audience version"
_COMMENTS = frozenset(re.findall(r"\w+", _ABOUT))


@dataclasses.dataclass(frozen=True)
class RewriteExample:
    """A text, a change, and what a good answer to both is.

    telltales: words in lower case that only a copy of the example has, where neither text nor action say them.
    """

    text: str
    action: str
    answer: str
    telltales: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatWords:
    """The turns of one way of asking; `{noun}`, `{block}`, `{text}` and `{action}` are filled in.

    examples: by the entity format's noun; another kind of entity is asked for without. stop: what ends an answer beside
    the model's own end of turn. starts: patterns of actions and what the answer to them begins with; the first that
    fits counts, and without one the model begins. comments: words with which an answer speaks about the text.
    """

    system: str
    request: str
    examples: Mapping[str, tuple[RewriteExample, ...]]
    stop: tuple[str, ...] = ("\n",)
    starts: tuple[tuple[str, str], ...] = ()
    comments: frozenset[str] = _COMMENTS

    @property
    def telltales(self) -> frozenset[str]:
        """Of all examples."""
        return frozenset(word for of_noun in self.examples.values() for one in of_noun for word in one.telltales)


def chat_prompt(words: ChatWords, entity_format: EntityFormat, text: str, action: str) -> Prompt:
    """The dialogue that asks for `text` under `action`."""
    block = entity_format.blocks[0].lower()
    shown = {"noun": entity_format.noun, "block": block, "Block": block.capitalize()}
    turns = [{"role": "system", "content": words.system.format(**shown)}]
    for example in words.examples.get(entity_format.noun, ()):
        turns.append(_user_turn(words, shown, example.text, example.action))
        turns.append({"role": "assistant", "content": example.answer})
    turns.append(_user_turn(words, shown, text, action))
    start = answer_start(words, action)
    return Prompt(plain_prompt(turns), words.stop, "", answer_start=f" {start}" if start else "")


def _user_turn(words: ChatWords, shown: Mapping[str, str], text: str, action: str) -> dict[str, str]:
    text, action = " ".join(text.split()), " ".join(action.split())
    return {"role": "user", "content": words.request.format(**shown, text=text, action=action)}


def answer_start(words: ChatWords, action: str) -> str:
    """With what the answer to an action begins: the change as a statement."""
    for pattern, start in words.starts:
        if found := re.fullmatch(pattern, action.strip().rstrip(".!"), re.IGNORECASE):
            told = found.expand(start)
            return told[:1].upper() + told[1:]
    return ""


_BOXER = (
    "A young boxer from Philadelphia gets a chance to fight the champion. He trains with an old coach and falls in "
    "love with a shy girl."
)
_BAKERY = "Two friends open a small bakery in Ohio. Both fall for the same customer and stop talking to each other."
_TEACHER = "A strict teacher takes her class on a trip to the mountains. A storm cuts them off from the valley."
_FISHERMAN = "An old fisherman and his grandson repair a boat. They want to sail to the island where he was born."
_SHIRT = "A blue cotton shirt with short sleeves for hot days. It has one pocket."

WHOLE = ChatWords(
    system="You rewrite {block}s of {noun}s. You answer with the new {block} only, in two or three sentences.",
    request="{Block}: {text}\nChange: {action}",
    examples={
        MOVIE.noun: (
            RewriteExample(
                _BOXER,
                "Set it in ancient Rome.",
                "A young gladiator from the streets of ancient Rome gets a chance to fight the emperor's champion. He "
                "trains with an old slave and falls in love with a shy girl.",
                ("rome", "gladiator", "emperor"),
            ),
            RewriteExample(
                _BAKERY,
                "Make it a zombie film.",
                "Two friends open a small bakery in Ohio. Both fall for the same customer, until the dead of the town "
                "rise and the three have to hold the shop against a crowd of zombies.",
                ("zombie", "zombies", "bakery", "ohio"),
            ),
        ),
        PRODUCT.noun: (
            RewriteExample(
                _SHIRT,
                "Make it for winter.",
                "A blue flannel shirt with long sleeves for cold winter days. It has one pocket.",
                ("flannel",),
            ),
        ),
    },
)
SENTENCE = ChatWords(
    system="You add one sentence to the {block} of a {noun}, so that it changes as asked. "
    "You answer with that sentence only.",
    request="{Block}: {text}\nChange: {action}",
    examples={
        MOVIE.noun: (
            RewriteExample(
                _BOXER,
                "Set it in ancient Rome.",
                "In ancient Rome, the boxer is a gladiator who fights in the arena before the emperor.",
                ("rome", "gladiator", "emperor", "boxer", "arena"),
            ),
            RewriteExample(
                _FISHERMAN,
                "Give it a sad ending.",
                "There is a sad ending: the boat sinks in a storm, and the grandson is left alone on the shore.",
                ("boat", "grandson", "shore"),
            ),
            RewriteExample(
                _BAKERY,
                "Make it a zombie film.",
                "In this zombie film, the dead of the town rise, and the two friends have to hold the bakery together.",
                ("zombie", "zombies", "bakery"),
            ),
            RewriteExample(
                _TEACHER,
                "Add a wizard.",
                "Then a wizard finds the teacher and her class in the storm and leads them into a hidden valley.",
                ("wizard", "teacher", "valley"),
            ),
        ),
        PRODUCT.noun: (
            RewriteExample(
                _SHIRT,
                "Make it for winter.",
                "For winter, it is of thick flannel with long sleeves and a collar.",
                ("flannel", "sleeves"),
            ),
        ),
    },
    starts=(
        (r"set it (.+)", r"\1,"),
        (r"make it an? (.+)", r"in this \1,"),
        (r"make it (for .+)", r"\1, it"),
        (r"make it (.+)", r"in this \1 version,"),
        (r"make (the \w+|it) (an? .+)", r"\1 is now \2"),
        (r"let (.+?) (\w+)( at the end)?", r"in the end, \1 will \2"),
        (r"add (.+)", r"then \1"),
        (r"leave out (.+)", r"without \1, they"),  # with "the", two in three answers speak of the plot
        (r"give it (.+)", r"there is \1:"),
    ),
)
