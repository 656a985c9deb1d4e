"""A dialogue in the terminal with a trained ELM: name points of the space, ask a task about them.

Lines are parsed and answered by pure functions; `converse` alone reads and writes.
Axis letters: N rows of a kind (items or users), d width of an embedding.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eagle_jax.base.errors import UserError, visible
from eagle_jax.data.tasks import BEHAVIORAL, SEMANTIC, TASKS, Task, elm_prompt
from eagle_jax.elm.evaluation.consistency import (
    EmbedFn,
    behavioral_consistency,
    cosine_consistency,
    directions,
    embed_outputs,
    read_outputs,
)
from eagle_jax.elm.model.embedding_lm import EmbeddingLM
from eagle_jax.elm.model.prompts import EmbeddedPrompt
from eagle_jax.embeddings.concept_activation import ConceptActivation, extrapolate
from eagle_jax.embeddings.interpolation import How, interpolate
from eagle_jax.language_model.generation import SamplingSettings

_USAGE = """\
summary: f12                          an item, by its id or its title
summary: f12 ~ f30 @ 0.25             a mixture: a quarter of the way from f12 to f30
summary: f12 > funny @ 2              a direction: two spreads along the CAV of a tag
similarities: f12 ; f30               a task about two points
user_profile: u7 > funny              a user; without "@" alpha is 0.5, a step is 1
"""
_NUM_NEAREST = 3
_NUM_FOUND = 10
_KIND_NAMES = {SEMANTIC: "item", BEHAVIORAL: "user"}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """The embeddings of one kind, with their names and directions.

    ids, titles: [N], a name is either; vectors [N, d]; activations: CAV by tag, their spread
    measured on these vectors.
    """

    ids: Sequence[str]
    titles: Sequence[str]
    vectors: np.ndarray
    activations: Mapping[str, ConceptActivation]


@dataclasses.dataclass(frozen=True, eq=False)
class Ranker:
    """What texts and items are compared in: texts -> [B, d], and the items' own [N, d]."""

    embed: EmbedFn
    items: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Explorer:
    """What a dialogue needs of a finished run.

    book: wordings of the tasks. spaces: by kind of embedding; items are those of SEMANTIC.
    of_items: P, in the space of SEMANTIC; of_profiles: by which a profile ranks items.
    predicted_ratings: of all items [N], 0 or more, by a user's vector [d].
    """

    elm: EmbeddingLM
    book: str
    sampling: SamplingSettings
    how: How
    spaces: Mapping[str, Space]
    of_items: Ranker
    of_profiles: Ranker
    predicted_ratings: Callable[[np.ndarray], np.ndarray]


class Point(NamedTuple):
    """A row of a space; on the way to another (to, amount = alpha), or along a tag (amount = step).

    Names are as they were typed.
    """

    name: str
    toward: str | None = None
    along: str | None = None
    amount: float = 0.0


class DialogueQuestion(NamedTuple):
    task: Task
    points: tuple[Point, ...]


class Reply(NamedTuple):
    """text: None if it could not be read, for the reason `malformed`.

    cosines: of the text with each item's vector, SC where there is one; bc: NDCG with the ratings
    predicted for a user's vector; nearest: (title, cosine) of the items nearest to the text.
    """

    text: str | None
    malformed: str | None
    cosines: tuple[float, ...]
    bc: float | None
    nearest: tuple[tuple[str, float], ...]


def parse_question(line: str) -> DialogueQuestion:
    """`task: point` or `task: point ; point`, points as in `_USAGE`.

    Raises UserError that says what is wrong, with similar names for an unknown task.
    """
    name, colon, rest = line.partition(":")
    task_name = re.sub(r"[ -]+", "_", name.strip().lower())
    if task_name not in TASKS:
        raise UserError(_unknown("task", task_name, TASKS) + "; 'help' lists them")
    task = TASKS[task_name]
    texts = [part.strip() for part in rest.split(" ; ")] if colon and rest.strip() else []
    if len(texts) != len(task.slots):
        kinds = " ; ".join(_KIND_NAMES[kind] for kind in task.slots)
        raise UserError(f"{task.name} is about {kinds}: expected '{task.name}: {kinds}'")
    return DialogueQuestion(task, tuple(_parse_point(text) for text in texts))


def _parse_point(text: str) -> Point:
    for mark, field, amount in ((" ~ ", "toward", 0.5), (" > ", "along", 1.0)):
        name, found, rest = text.partition(mark)
        if not found:
            continue
        other, at, number = rest.rpartition(" @ ")
        if at:
            amount = _number(number, text)
        return Point(name.strip(), amount=amount, **{field: (other if at else rest).strip()})
    return Point(text)


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where!r}: expected a number after '@', got {text.strip()!r}")
    return number


def find_row(space: Space, kind: str, name: str) -> int:
    """The row whose id or title this is, whatever the case; UserError with similar names."""
    wanted = name.casefold()
    for names in (space.ids, space.titles):
        for row, known in enumerate(names):
            if known.casefold() == wanted:
                return row
    raise UserError(_unknown(_KIND_NAMES[kind], name, [*space.ids, *space.titles]))


def find_names(space: Space, words: str) -> list[str]:
    """ids and titles of rows whose title has all the words, in order."""
    wanted = words.casefold().split()
    return [
        f"{own_id}  {title}"
        for own_id, title in zip(space.ids, space.titles, strict=True)
        if all(word in title.casefold() for word in wanted)
    ]


def locate(explorer: Explorer, kind: str, point: Point) -> np.ndarray:
    """The vector [d] of a point; UserError for unknown names and for what is no point."""
    space = explorer.spaces[kind]
    vector = space.vectors[find_row(space, kind, point.name)]
    if point.toward is not None:
        other = space.vectors[find_row(space, kind, point.toward)]
        return interpolate(vector, other, point.amount, explorer.how)
    if point.along is not None:
        tag = {name.casefold(): name for name in space.activations}.get(point.along.casefold())
        if tag is None:
            raise UserError(_unknown("direction", point.along, space.activations))
        return extrapolate(vector, space.activations[tag], point.amount)
    return vector


def answer(explorer: Explorer, question: DialogueQuestion, seed: int) -> Reply:
    """What the ELM writes, and how consistent that is with what it was asked about."""
    slots = zip(question.task.slots, question.points, strict=True)
    return answer_about(explorer, question.task, [(kind, locate(explorer, kind, point)) for kind, point in slots], seed)


def answer_about(explorer: Explorer, task: Task, vectors: Sequence[tuple[str, np.ndarray]], seed: int) -> Reply:
    """As `answer`, about vectors [d], each with its kind, in the slots of the task."""
    prompt = EmbeddedPrompt(elm_prompt(explorer.book, task), tuple(vectors))
    outputs = read_outputs(explorer.book, explorer.elm.generate([prompt], explorer.sampling, seed))
    (text,), (reason,) = outputs
    if reason is not None:
        return Reply(None, reason, (), None, ())
    ranker = explorer.of_profiles if task.describes_user else explorer.of_items
    made = embed_outputs(ranker.embed, [text], ranker.items.shape[1])
    if np.isnan(made).all():
        return Reply(None, "empty", (), None, ())
    targets = [vector for kind, vector in vectors if kind == SEMANTIC]
    cosines = tuple(float(cosine_consistency(made, target[None])[0]) for target in targets)
    bc = None
    if task.describes_user:
        ratings = explorer.predicted_ratings(vectors[0][1])[None]
        bc = float(behavioral_consistency(made, ranker.items, ratings).ndcg[0])
    similarity = directions(ranker.items, "item")[0] @ directions(made, "answer")[0][0]
    best = np.argsort(-similarity, kind="stable")[:_NUM_NEAREST]
    titles = explorer.spaces[SEMANTIC].titles
    return Reply(text, None, cosines, bc, tuple((titles[i], float(similarity[i])) for i in best))


def tell_answer(given: Reply) -> list[str]:
    """Lines for the terminal."""
    if given.text is None:
        return [f"(no answer that can be read: {given.malformed})"]
    lines = [given.text]
    if len(given.cosines) == 1:
        lines.append(f"semantic consistency: {given.cosines[0]:.3f}")
    elif given.cosines:
        cosines = ", ".join(f"{cosine:.3f}" for cosine in given.cosines)
        lines.append(f"cosine with each item: {cosines}")
    if given.bc is not None:
        lines.append(f"behavioral consistency (NDCG with predicted ratings): {given.bc:.3f}")
    lines.append("nearest items to the answer:")
    lines += [f"  {cosine:.3f}  {title}" for title, cosine in given.nearest]
    return lines


def tell_help(explorer: Explorer) -> list[str]:
    """How to ask, and what can be asked here."""
    lines = _USAGE.splitlines()
    known = [task.name for task in TASKS.values() if getattr(task, explorer.book)]
    lines += [f"tasks: {', '.join(known)}"]
    for kind, space in explorer.spaces.items():
        name = _KIND_NAMES[kind]
        lines.append(f"{len(space.ids)} {name}s, for instance {space.ids[0]}: {space.titles[0]}")
        lines.append(f"directions for {name}s: {', '.join(space.activations) or 'none'}")
    return [*lines, "find <words>: items with these words in their titles", "quit: the end"]


def reply(explorer: Explorer, line: str, seed: int) -> list[str]:
    """What is said to one line; a fault of the line is told, not raised."""
    command, _, words = line.strip().partition(" ")
    if command in ("help", "?"):
        return tell_help(explorer)
    try:
        if command == "find":
            found = find_names(explorer.spaces[SEMANTIC], words)
            more = [f"... {len(found)} in all"] if len(found) > _NUM_FOUND else []
            return [*found[:_NUM_FOUND], *more] or [f"no title has all of: {words}"]
        return tell_answer(answer(explorer, parse_question(line), seed))
    except UserError as error:
        return [str(error)]


def converse(explorer: Explorer, lines: Iterable[str], write: Callable[[str], None], seed: int) -> None:
    """Replies to each line until `quit` or the end; answer number n is drawn with seed + n."""
    write("Ask about items and users; 'help' says how, 'quit' ends.")
    for number, line in enumerate(lines):
        if line.strip() in ("quit", "exit"):
            return
        if line.strip():
            for text in reply(explorer, line, seed + number):
                write(visible(text))  # what models wrote must not steer the terminal


def typed_lines(prompt: str) -> Iterable[str]:
    """Lines from the terminal, until its input ends."""
    while True:
        try:
            yield input(prompt)
        except EOFError:
            return


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = {spelled.casefold(): spelled for spelled in known}
    close = [names[key] for key in difflib.get_close_matches(name.casefold(), names, cutoff=0.4)]
    hint = f"did you mean {', '.join(close)}?" if close else "nothing here is called like it"
    return f"no {what} {name!r}: {hint}"
