"""What ELM is compared with on the same rows: the nearest item's text, and a text-only LM.

Tennenholtz et al. 2024 (ELM), section 4 and appendix F, whose prompts are worded by this project.
A row is one of `data.task_examples`: {"task", "items", "user"}.

Axis letters: B rows, N catalogue, d width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import Prompt, begin, end, quote_markers, render_block
from eagle_jax.data.task_examples import Row
from eagle_jax.data.tasks import ANSWER, Task, find_task, teacher_prompt
from eagle_jax.elm.evaluation.consistency import directions

# The smallest models know no other words than those of the tasks.
_WITH_EXAMPLE = {
    "compact": "{example} {prompt}",
    "detailed": "First an example of the task and its answer: {example} Now do the same, in the same style: {prompt}",
}


def nearest_item_texts(
    target_embeddings: np.ndarray,
    catalogue_embeddings: np.ndarray,
    texts: Sequence[str],
    excluded: Sequence[Collection[int]],
) -> list[str]:
    """For each target the text of the catalogue's item of highest cosine: what exists already.

    Args:
      target_embeddings: [B, d]. catalogue_embeddings: [N, d], in the same space; texts: [N].
      excluded: for each target the rows of the catalogue that it is itself (or mixes), if any.

    Raises:
      UserError: other widths; an embedding that is zero or not finite; no item left for a target.
    """
    if not len(catalogue_embeddings) == len(texts):
        raise ValueError(f"{len(texts)} texts for {len(catalogue_embeddings)} embeddings")
    widths = np.shape(target_embeddings)[1], np.shape(catalogue_embeddings)[1]
    if widths[0] != widths[1]:
        raise UserError(f"targets have width {widths[0]}, the catalogue has width {widths[1]}")
    targets, _ = directions(target_embeddings, "target")
    catalogue, _ = directions(catalogue_embeddings, "catalogue row")
    nearest = []
    for row, (target, left_out) in enumerate(zip(targets, excluded, strict=True)):
        similarity = catalogue @ target
        similarity[list(left_out)] = -np.inf
        best = int(np.argmax(similarity)) if len(texts) else 0
        if not len(texts) or similarity[best] == -np.inf:
            raise UserError(f"target {row}: all {len(texts)} items of the catalogue are excluded")
        nearest.append(texts[best])
    return nearest


def text_only_prompts(
    book: str, rows: Sequence[Row], names: Sequence[str], examples: Mapping[str, Row] | None = None
) -> list[Prompt]:
    """Each row as a model reads it that is given names instead of embeddings.

    Args:
      names: of the items, by index.
      examples: None (names alone), or for each task a row with its "target", shown before the
        question (appendix F); of the training split.

    Raises:
      UserError: an unknown task, one without an example, or an example that is the row itself.
    """
    prompts = []
    for row in rows:
        task = find_task(row["task"])
        prompt = _named_prompt(book, task, row, names)
        if examples is not None:
            if task.name not in examples:
                raise UserError(f"no example of task {task.name!r}: have {', '.join(examples)}")
            example = examples[task.name]
            if (example["items"], example["user"]) == (row["items"], row["user"]):
                raise UserError(f"the example of task {task.name!r} is a row that is to be scored")
            shown = _named_prompt(book, task, example, names)
            prompt = with_example(book, prompt, shown, example["target"])
        prompts.append(prompt)
    return prompts


def item_mixture_prompt(book: str, task: Task, first: str, second: str) -> Prompt:
    """A single-item task about a mixture of two items by name (appendix F)."""
    return teacher_prompt(book, task, [_between(quote_markers(first), quote_markers(second))])


def user_mixture_prompt(book: str, task: Task, first: str, second: str) -> Prompt:
    """The profile of a mixture of two users, by their profiles (appendix F: no example)."""
    blocks = [render_block("USER_PROFILE", quote_markers(text)) for text in (first, second)]
    text = task.wording(book).format(_between(*blocks))
    return Prompt(f"{text} {begin(ANSWER)}", (end(ANSWER),), begin(ANSWER), ("USER_PROFILE",))


def with_example(book: str, prompt: Prompt, example: Prompt, answer: str) -> Prompt:
    """The prompt behind another one of the task and what was written for that (appendix F).

    Both may be cut where a model has no room for them.
    """
    shown = f"{example.text} {quote_markers(answer)} {example.stop[0]}"
    text = _WITH_EXAMPLE[book].format(example=shown, prompt=prompt.text)
    return dataclasses.replace(prompt, text=text, may_be_cut=(*prompt.may_be_cut, ANSWER))


def _named_prompt(book: str, task: Task, row: Row, names: Sequence[str]) -> Prompt:
    return teacher_prompt(book, task, [quote_markers(names[item]) for item in row["items"]])


def _between(first: str, second: str) -> str:
    return f"between {first} and {second}"
