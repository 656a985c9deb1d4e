"""What ELM is compared with on the same rows: a language model that reads text only.

Tennenholtz et al. 2024 (ELM), section 4 and appendix F, whose prompts are worded by this project.
A row is one of `data.task_examples`: {"task", "items", "user"}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import Prompt, quote_markers, render_block
from eagle_jax.data.task_chats import behind_example
from eagle_jax.data.task_examples import Row
from eagle_jax.data.tasks import ANSWER, CHAT, Task, find_task, teacher_prompt, told_prompt

# The smallest models know no other words than those of the tasks.
_WITH_EXAMPLE = {
    "compact": "{example} {prompt}",
    "detailed": "First an example of the task and its answer: {example} Now do the same, in the same style: {prompt}",
}


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
    shown = [quote_markers(text) for text in (first, second)]
    if book != CHAT:
        shown = [render_block("USER_PROFILE", text) for text in shown]
    return told_prompt(book, task, [_between(*shown)], shown=("USER_PROFILE",))


def with_example(book: str, prompt: Prompt, example: Prompt, answer: str) -> Prompt:
    """The prompt behind another one of the task and what was written for that (appendix F).

    Both may be cut where a model has no room for them.
    """
    if book == CHAT:
        return behind_example(prompt, example, answer)
    shown = f"{example.text} {quote_markers(answer)} {example.stop[0]}"
    text = _WITH_EXAMPLE[book].format(example=shown, prompt=prompt.text)
    return dataclasses.replace(prompt, text=text, may_be_cut=(*prompt.may_be_cut, ANSWER))


def _named_prompt(book: str, task: Task, row: Row, names: Sequence[str]) -> Prompt:
    return teacher_prompt(book, task, [quote_markers(names[item]) for item in row["items"]])


def _between(first: str, second: str) -> str:
    return f"between {first} and {second}"
