"""The targets that ELM learns to write: a teacher language model answers each example's prompt.

Text world. Tennenholtz et al. 2024 (ELM), section 3.1 and appendix E: the teacher sees titles or
texts where ELM will see embeddings. Answers are kept on disk by content, so that a run that was
interrupted asks for none of them twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.prompts import MalformedText, Prompt
from eagle_jax.data.task_examples import Row
from eagle_jax.data.tasks import ANSWER, find_task, teacher_prompt
from eagle_jax.language_model.generation import SamplingSettings, TextGenerator, parse_generation
from eagle_jax.language_model.remote.cache import CachedGenerator


@settings
class TeacherSettings:
    """How the teacher is asked."""

    sampling: SamplingSettings
    batch_size: int = setting("Prompts at a time.", at_least=1)
    max_tries: int = setting("So often each is asked at most.", at_least=1)


class Targets(NamedTuple):
    """The rows that have a "target" now, in their order.

    malformed: reason -> number of answers that could not be used, asked again or not.
    left_out: task -> number of rows that have no target after the last try.
    """

    rows: list[Row]
    malformed: Counter[str]
    left_out: Counter[str]


def write_targets(
    generator: TextGenerator,
    book: str,
    rows: Sequence[Row],
    texts: Sequence[str],
    settings: TeacherSettings,
    seed: int,
    cache: Path,
) -> Targets:
    """Each row of `data.task_examples` with the teacher's answer as its "target".

    Args:
      texts: what the teacher is shown of each item, by index: its title, or its text.
      cache: file of `GenerationCache`; a batch that is there is not asked for again.

    An answer that is cut short, empty or has markers inside is asked for again with another seed;
    a row that has none after `max_tries` is left out. Raises UserError for an unknown task, and
    where no row has a target.
    """
    prompts = [teacher_prompt(book, find_task(row["task"]), [texts[item] for item in row["items"]]) for row in rows]
    teacher = CachedGenerator(generator, cache)
    targets: dict[int, str] = {}
    malformed: Counter[str] = Counter()
    pending = list(range(len(rows)))
    for attempt in range(settings.max_tries):
        answers = _ask(teacher, [prompts[row] for row in pending], settings, seed, attempt)
        for row, answer in zip(pending, answers, strict=True):
            if isinstance(answer, MalformedText):
                malformed[answer.reason] += 1
            else:
                targets[row] = answer
        pending = [row for row in pending if row not in targets]
    if rows and not targets:
        raise UserError(
            f"the teacher {teacher.name} wrote no target for {len(rows)} examples in "
            f"{settings.max_tries} tries: {dict(malformed)}; give it more new tokens or another "
            "book of tasks"
        )
    left_out = Counter(rows[row]["task"] for row in pending)
    return Targets([{**rows[row], "target": targets[row]} for row in sorted(targets)], malformed, left_out)


def _ask(
    teacher: TextGenerator, prompts: Sequence[Prompt], settings: TeacherSettings, seed: int, attempt: int
) -> list[str | MalformedText]:
    """The answer to each prompt, or what is wrong with it."""
    answers: list[str | MalformedText] = []
    starts = range(0, len(prompts), settings.batch_size)
    for start in progress(starts, len(starts), f"teacher, try {attempt + 1}", "batch"):
        batch = prompts[start : start + settings.batch_size]
        batch_seed = derive_seed(seed, attempt, start)
        for generation in teacher.generate(batch, settings.sampling, batch_seed):
            try:
                answers.append(parse_generation(generation, [ANSWER])[ANSWER])
            except MalformedText as error:
                answers.append(error)
    return answers
