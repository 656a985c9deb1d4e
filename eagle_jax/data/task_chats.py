"""ELM's tasks as a chat that the smallest instruction-tuned models can follow: a request, and examples of its answer.

A task without a row here has no wording of this kind. Where an answer is begun for the teacher (`start`), an ELM writes
these words itself. The examples are about three films, one product and two users that do not exist.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence

from eagle_jax.data.preferences.dialogues import dialogue_turns, plain_prompt
from eagle_jax.data.prompts import Prompt

_STOP = "\n"
_SYSTEM = "You write about {group}."
_MANNER = " You answer in one or two sentences and never give {name}."  # an ELM learns it from the targets
_GROUPS = {  # of tasks: who is written about, what is not named, what a told one is called
    "movie": ("films", "the title", "Film"),
    "amazon": ("products", "the product's name", "Product"),
    "viewer": ("people who watch films", "a title", "Viewer"),
    "buyer": ("people who buy products", "a product's name", "Buyer"),
}
_MOST_WORDS, _MOST_OF_TITLE = 90, 16  # of a text or a title that is shown: what follows is left out


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskChat:
    """group: whose names for things; request: behind what is shown; examples: (what is shown, answer)."""

    group: str
    request: str
    start: str = ""
    examples: tuple[tuple[str, str], ...]

    def prompt(self, shown: str, *, told: bool) -> Prompt:
        """The dialogue about `shown`; told: by a text and not by an embedding, with examples and the answer's start."""
        about, name, _ = _GROUPS[self.group]
        system = (_SYSTEM + _MANNER if told else _SYSTEM).format(group=about, name=name)
        turns = [{"role": "system", "content": system}]
        for text, answer in self.examples if told else ():
            turns += [self._asked(text), {"role": "assistant", "content": answer}]
        turns.append(self._asked(shown))
        return Prompt(plain_prompt(turns), (_STOP,), "", answer_start=f" {self.start}" if told and self.start else "")

    def _asked(self, shown: str) -> dict[str, str]:
        return {"role": "user", "content": f"{_GROUPS[self.group][2]}: {' '.join(shown.split())}\n{self.request}"}


def behind_example(prompt: Prompt, example: Prompt, answer: str) -> Prompt:
    """The dialogue with one more example before its question: what another dialogue asks, and the answer to that."""
    *before, asked = dialogue_turns(prompt.text)
    shown = dialogue_turns(example.text)[-1]
    turns = [*before, shown, {"role": "assistant", "content": " ".join(answer.split())}, asked]
    return dataclasses.replace(prompt, text=plain_prompt(turns))


def tell_user(liked: Sequence[str], disliked: Sequence[str]) -> str:
    """A user by the titles of both sides."""
    sides = (map(functools.partial(shorten, most=_MOST_OF_TITLE), side) for side in (liked, disliked))
    return "likes {}. Dislikes {}.".format(*map("; ".join, sides))


def shorten(text: str, most: int = _MOST_WORDS) -> str:
    """The first words of a text: a small model gets lost in a long one, and each word costs."""
    return " ".join(text.split()[:most])


_LISBON = (
    "Genres: Drama, Romance. Plot: A shy piano teacher in Lisbon falls in love with a sailor who leaves in three days. "
    "She has to choose between her sick mother and a life at sea."
)
_SPACESHIP = (
    "Genres: Action, Sci-Fi. Plot: A pilot wakes up on a wrecked spaceship with no memory. Something in the cargo hold "
    "is killing the crew, one by one."
)
_BAKERY = (
    "Genres: Comedy, Crime. Plot: Two retired bank robbers in Chicago take over a bakery to dig a tunnel into the "
    "vault next door. Then the bread becomes famous."
)
_KETTLE = (
    "Electric kettle of steel, 1.7 litres, boils in four minutes and turns itself off. The handle stays cool; the lid "
    "is stiff at first."
)
# Words that an answer about another film or product has only from an example.
TELLTALES = frozenset(
    {"lisbon", "piano", "sailor", "spaceship", "cargo", "robber", "robbers", "bakery", "bread", "tunnel", "vault"}
    | {"kettle", "litres"}
)


def _about_film(request: str, *answers: str, start: str = "") -> TaskChat:
    films = _LISBON, _SPACESHIP, _BAKERY
    return TaskChat(group="movie", request=request, start=start, examples=tuple(zip(films, answers, strict=True)))


def _about_product(request: str, answer: str, start: str = "") -> TaskChat:
    return TaskChat(group="amazon", request=request, start=start, examples=((_KETTLE, answer),))


CHATS = {
    "summary": _about_film(
        "Say in your own words what happens in the film.",
        "A lonely piano teacher meets a sailor and has three days to decide whether she stays with her sick mother or "
        "leaves with him.",
        "On a wrecked spaceship, a pilot who has lost his memory must find out what is killing the crew before it "
        "finds him.",
        "Two old robbers bake bread as a cover for a tunnel into a bank, until their bakery earns more than the vault.",
    ),
    "positive_review": _about_film(
        "Write a review by a critic who loves the film.",
        "I loved this quiet romance: the piano teacher and her sailor feel real, and I held my breath when the ship "
        "left Lisbon.",
        "I loved the dark, silent spaceship and the pilot without a memory: I did not guess what the cargo was.",
        "I loved the two old robbers: the jokes about bread and tunnels never stop, and in the end one wants to eat in "
        "their bakery.",
        start="I loved",
    ),
    "negative_review": _about_film(
        "Write a review by a critic who is disappointed with the film.",
        "I was disappointed by this slow romance: the teacher and the sailor only talk, and the sick mother is there "
        "to make us cry.",
        "I was disappointed by the spaceship: the crew dies exactly as one expects, and the pilot's lost memory is "
        "explained in one lazy scene.",
        "I was disappointed by this comedy: the tunnel joke is told ten times, and the robbers are too nice to be "
        "thieves.",
        start="I was disappointed by",
    ),
    "movie_to_viewer": _about_film(
        "Say what kind of viewers will enjoy the film.",
        "Viewers who like slow, sad love stories by the sea, with music, family and a hard choice at the end.",
        "Viewers who like tense science fiction, dark spaceships, unknown killers and heroes who do not know who they "
        "are.",
        "Viewers who like warm crime comedies about old friends, clumsy plans and good food.",
        start="Viewers who like",
    ),
    "pitch": _about_film(
        "Tell a producer in short why this film should be made.",
        "Imagine a love story with a clock in it: three days in Lisbon, a sailor, a piano teacher and a mother who "
        "cannot be left.",
        "Imagine a murder mystery on a wrecked spaceship, where the pilot who looks for the killer cannot remember who "
        "he is.",
        "Imagine a bank robbery that fails because the robbers' bakery is too good: two old friends, a tunnel and the "
        "smell of bread.",
        start="Imagine",
    ),
    "user_profile": TaskChat(
        group="viewer",
        request="Say what this viewer likes and dislikes in films.",
        start="This viewer likes",
        examples=(
            (
                tell_user(
                    ["Alien (1979)", "Blade Runner (1982)", "The Matrix (1999)", "Terminator, The (1984)"],
                    ["Notting Hill (1999)", "Pretty Woman (1990)", "Sabrina (1995)"],
                ),
                "This viewer likes dark science fiction with machines, danger and ideas, and dislikes light romantic "
                "comedies.",
            ),
            (
                tell_user(
                    ["Amelie (2001)", "Annie Hall (1977)", "Casablanca (1942)", "Notting Hill (1999)"],
                    ["Rambo (1982)", "Armageddon (1998)", "Saw (2004)"],
                ),
                "This viewer likes clever love stories with warmth and wit, old ones too, and dislikes loud action and "
                "cruel horror.",
            ),
        ),
    ),
    "amazon_description": _about_product(
        "Describe the product in other words.",
        "A steel kettle for a litre and a half of tea that boils fast, switches off alone and does not burn the hand.",
    ),
    "amazon_positive_review": _about_product(
        "Write a review by a buyer who loves the product.",
        "I love this kettle: it boils in no time, the handle stays cool, and it turns itself off when I forget it.",
        start="I love",
    ),
    "amazon_negative_review": _about_product(
        "Write a review by a buyer who is disappointed with the product.",
        "I was disappointed by this kettle: the lid is so stiff that I need both hands, and four minutes are long.",
        start="I was disappointed by",
    ),
    "amazon_endorsement": _about_product(
        "Recommend the product to other buyers.",
        "Buy it if you drink a lot of tea: it is quick, safe with children in the kitchen, and will last for years.",
        start="Buy it if",
    ),
    "amazon_user_profile": TaskChat(
        group="buyer",
        request="Say what this buyer values and what this buyer complains about.",
        start="This buyer values",
        examples=(
            (
                tell_user(
                    ["Cast iron pan", "Steel kettle", "Oak cutting board", "Whetstone"],
                    ["Plastic spatula set", "Paper plates", "Nonstick pan"],
                ),
                "This buyer values solid kitchen tools that last for years, and complains about plastic and things "
                "that one throws away.",
            ),
        ),
    ),
}


def example_answers() -> Iterable[str]:
    """Of all tasks."""
    return (answer for chat in CHATS.values() for _, answer in chat.examples)
