"""ELM's tasks as one table: 24 about movies, the user profile, 6 about products.

Tennenholtz et al. 2024 (ELM), section 3.1 and appendices A and E; worded by this project. A task's
prompt has slots {0}, {1}: a model that reads embeddings finds a placeholder there, the teacher who
writes the targets a title or a text.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import Prompt, begin, end, quote_markers, render_block
from eagle_jax.data.task_chats import CHATS, shorten, tell_user

SEMANTIC, BEHAVIORAL = "semantic", "behavioral"
# The token that stands where an embedding of a kind comes in.
PLACEHOLDERS = {SEMANTIC: "<item>", BEHAVIORAL: "<user>"}
CHAT = "chat"  # `data.task_chats`: no markers, answers in plain words
BOOKS = ("compact", "detailed", CHAT)
ANSWER = "ANSWER"  # the block that every task has to write
RATED_PER_SIDE = 5  # what the teacher sees of a user: so many liked, so many disliked
_SHOWN_BLOCKS = ("PLOT", "DESCRIPTION", "LIKED", "DISLIKED")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One row of the table.

    slots: the kind of embedding in each slot of the prompt, in order.
    partner: how the second item is drawn.
    compact: the wording for the smallest models, empty where they have none; `detailed`: the
      wording for instruction-tuned models.
    """

    name: str
    group: Literal["movie", "profile", "amazon"]
    slots: tuple[str, ...]
    partner: Literal["none", "random", "nearest"]
    compact: str
    detailed: str

    @property
    def describes_user(self) -> bool:
        return self.slots == (BEHAVIORAL,)

    @property
    def num_texts(self) -> int:
        """How many titles or texts the teacher sees."""
        return 2 * RATED_PER_SIDE if self.describes_user else len(self.slots)

    @property
    def chat(self) -> str:
        """The request of the chat, empty where there is none."""
        return CHATS[self.name].request if self.name in CHATS else ""

    def wording(self, book: str) -> str:
        """The prompt with {0}, {1} in its slots (of a chat the request behind them); UserError where the book has
        none."""
        if book not in BOOKS:
            raise UserError(f"no book of tasks {book!r}: expected one of {', '.join(BOOKS)}")
        wording = {"compact": self.compact, "detailed": self.detailed, CHAT: self.chat}[book]
        if not wording:
            raise UserError(f"task {self.name!r} has no {book} wording: use another prompt book")
        return wording


def _about_movie(name: str, compact: str, detailed: str) -> Task:
    detailed += " Do not name the film."
    return Task(name=name, group="movie", slots=(SEMANTIC,), partner="none", compact=compact, detailed=detailed)


def _about_two(name: str, partner: Literal["random", "nearest"], compact: str, detailed: str) -> Task:
    detailed += " Call them film A and film B; do not name them."
    return Task(
        name=name, group="movie", slots=(SEMANTIC, SEMANTIC), partner=partner, compact=compact, detailed=detailed
    )


def _about_product(name: str, detailed: str) -> Task:
    return Task(
        name=f"amazon_{name}",
        group="amazon",
        slots=(SEMANTIC,),
        partner="none",
        compact="",
        detailed=f"{detailed} Do not name the product.",
    )


_MOVIE_TASKS = (
    _about_movie(
        "summary",
        "summarise the film {0}.",
        "Summarise the film {0} for somebody who has not seen it: what happens in it and what it is like.",
    ),
    _about_movie(
        "positive_review",
        "write a positive review of the film {0}.",
        "Write a thorough review of the film {0} by a critic who is delighted with it.",
    ),
    _about_movie(
        "negative_review",
        "write a negative review of the film {0}.",
        "Write a thorough review of the film {0} by a critic who is disappointed with it.",
    ),
    _about_movie(
        "neutral_review",
        "write a neutral review of the film {0}.",
        "Write a thorough, even-handed review of the film {0}, its strengths and its weaknesses.",
    ),
    _about_movie(
        "five_positive_characteristics",
        "list five characteristics that speak for the film {0}.",
        "Give five reasons, numbered 1 to 5, why the film {0} is loved: one characteristic each.",
    ),
    _about_movie(
        "five_negative_characteristics",
        "list five characteristics that speak against the film {0}.",
        "Give five complaints, numbered 1 to 5, about the film {0}: one characteristic each.",
    ),
    _about_movie(
        "long_description",
        "describe at length the film {0}.",
        "Tell the story of the film {0} at length and in order, from the beginning to the end.",
    ),
    _about_movie(
        "funnier",
        "retell as a funnier one the film {0}.",
        "Retell the story of the film {0} as a comedy: keep what is not sad about it and make the rest funny.",
    ),
    _about_movie(
        "sadder",
        "retell as a sadder one the film {0}.",
        "Retell the story of the film {0} as a drama that moves to tears, and keep the rest.",
    ),
    _about_movie(
        "scarier",
        "retell as a scarier one the film {0}.",
        "Retell the story of the film {0} so that it frightens the audience, and keep the rest.",
    ),
    _about_movie(
        "improve",
        "retell as a better one the film {0}.",
        "Change the film {0} so that more people would value it. Say what you changed and why the film is better now.",
    ),
    _about_movie(
        "movie_to_viewer",
        "name the kind of viewers of the film {0}.",
        "Who would enjoy the film {0}? Describe these viewers: what they like and what they are like.",
    ),
    _about_movie(
        "pitch",
        "tell a producer to make the film {0}.",
        "Suppose that nobody has made the film {0} yet. Win a producer for it: what it is, what "
        "makes it stand out, and how it differs from films of its kind.",
    ),
    _about_movie(
        "criticize",
        "criticize the film {0}.",
        "Criticise the film {0}: what about it people do not like, and what films of its kind do better.",
    ),
    _about_movie(
        "convince1",
        "give all reasons to watch the film {0}.",
        "Persuade a friend, going into every detail, that the film {0} is worth watching.",
    ),
    _about_movie(
        "convince2", "give reasons to watch the film {0}.", "Persuade a friend that the film {0} is worth watching."
    ),
    _about_movie(
        "convince3",
        "give in short the reasons to watch the film {0}.",
        "Persuade a friend in two or three sentences that the film {0} is worth watching.",
    ),
    _about_movie(
        "dissuade1",
        "give all reasons not to watch the film {0}.",
        "Talk a friend out of watching the film {0}, going into every detail.",
    ),
    _about_movie("dissuade2", "give reasons not to watch the film {0}.", "Talk a friend out of watching the film {0}."),
    _about_two(
        "similarities",
        "random",
        "name what is the same and what is different in film a {0} and film b {1}.",
        "Compare film A, {0}, with film B, {1}: first three things that they share, then three in which they differ.",
    ),
    _about_two(
        "interpolation",
        "random",
        "write a film between film a {0} and film b {1}.",
        "Imagine a film halfway between film A, {0}, and film B, {1}, and tell its story at length.",
    ),
    # The paper calls it "nn" and says both that its pairs are random and that they are neighbors
    # (appendix E and the caption of table 2); here they are what the name says.
    _about_two(
        "why_like_nn",
        "nearest",
        "say why a user of film a {0} loves film b {1}.",
        "Somebody loves film A, {0}. Explain to them why they would love film B, {1}, too.",
    ),
    _about_two(
        "diff_than_nn",
        "nearest",
        "name what is different in film a {0} and film b {1}.",
        "Name the three most important ways in which film A, {0}, differs from film B, {1}.",
    ),
    _about_two(
        "common_with_nn",
        "nearest",
        "name what is the same in film a {0} and film b {1}.",
        "Name the three most important things that film A, {0}, and film B, {1}, share.",
    ),
)
_USER_PROFILE = Task(
    name="user_profile",
    group="profile",
    slots=(BEHAVIORAL,),
    partner="none",
    compact="write the profile of the user {0}.",
    detailed="Describe the taste of the user {0} as a viewer of films in ten points: what the user "
    "looks for and what the user avoids. Name no film.",
)
_AMAZON_TASKS = (
    _about_product("description", "Describe the product {0} for a catalogue: what it is and what it offers."),
    _about_product("positive_review", "Write the review of a buyer who gave the product {0} five stars."),
    _about_product("negative_review", "Write the review of a buyer who gave the product {0} one, two or three stars."),
    _about_product("neutral_review", "Write the review of a buyer who gave the product {0} four stars."),
    _about_product("endorsement", "Recommend the product {0} to buyers, as somebody who stands up for it."),
    Task(
        name="amazon_user_profile",
        group="amazon",
        slots=(BEHAVIORAL,),
        partner="none",
        compact="",
        detailed="Describe the user {0} as a buyer in ten points: what the user values and what "
        "the user complains about. Name no product.",
    ),
)
TASKS = {task.name: task for task in (*_MOVIE_TASKS, _USER_PROFILE, *_AMAZON_TASKS)}


def find_task(name: str) -> Task:
    """The task of this name; UserError that lists the names."""
    if name not in TASKS:
        raise UserError(f"no task {name!r}: expected one of {', '.join(TASKS)}")
    return TASKS[name]


def elm_prompt(book: str, task: Task) -> Prompt:
    """The task as a model reads it that is given embeddings: a placeholder in each slot."""
    return told_prompt(book, task, [PLACEHOLDERS[kind] for kind in task.slots], is_text=False)


def teacher_prompt(book: str, task: Task, texts: Sequence[str]) -> Prompt:
    """The task as the teacher reads it, or a model that is given names: `texts` in the slots.

    A user is told by the titles (or reviews) of `RATED_PER_SIDE` liked and as many disliked items,
    in this order. Raises ValueError for another number of texts.
    """
    if len(texts) != task.num_texts:
        raise ValueError(f"task {task.name}: expected {task.num_texts} texts, got {len(texts)}")
    if book == CHAT and not task.describes_user:
        texts = [shorten(text) for text in texts]
    if task.describes_user:
        liked, disliked = texts[:RATED_PER_SIDE], texts[RATED_PER_SIDE:]
        sides = ("LIKED", liked), ("DISLIKED", disliked)
        in_blocks = " ".join(render_block(b, quote_markers("; ".join(side))) for b, side in sides)
        texts = [tell_user(liked, disliked) if book == CHAT else in_blocks]
    return told_prompt(book, task, texts)


def told_prompt(
    book: str, task: Task, slots: Sequence[str], *, is_text: bool = True, shown: Sequence[str] = _SHOWN_BLOCKS
) -> Prompt:
    """The task with `slots` filled in, by texts or by placeholders; shown: blocks in them that may be cut.

    In a chat a text is asked about behind examples. Raises UserError where the book has no wording.
    """
    wording = task.wording(book)
    if book == CHAT:
        return CHATS[task.name].prompt(*slots, told=is_text)
    return Prompt(f"{wording.format(*slots)} {begin(ANSWER)}", (end(ANSWER),), begin(ANSWER), tuple(shown))


def read_teacher_prompt(book: str, prompt: Prompt) -> tuple[Task, tuple[str, ...]]:
    """The task of a prompt and what stands in its slots; ValueError for what is no such prompt."""
    text = prompt.text.removesuffix(f" {prompt.opening}")
    for task in TASKS.values():
        if getattr(task, book):
            pattern = re.sub(r"\\\{\d\\\}", "(.+?)", re.escape(task.wording(book)))
            if found := re.fullmatch(pattern, text, re.DOTALL):
                return task, found.groups()
    raise ValueError(f"not a prompt of the {book} book: {text[:120]!r}")
