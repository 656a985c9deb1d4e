"""ELM's examples, and the teacher who writes what it learns to say of them.

Tennenholtz et al. 2024 (ELM), section 3.1 and appendix E: the teacher sees titles where ELM will
see embeddings. Its answers are kept on disk by content, so that a run that was interrupted asks for
none of them twice.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.minilens.task_teacher import answer_task
from eagle_jax.data.prompts import MalformedText, Prompt, parse_blocks, quote_markers, render_block
from eagle_jax.data.splits import Split
from eagle_jax.data.task_examples import Row, draw_task_examples
from eagle_jax.data.tasks import ANSWER, TASKS, find_task, teacher_prompt
from eagle_jax.elm.settings import ElmEvaluationSettings, ElmExampleSettings, TeacherSettings
from eagle_jax.language_model.generation import ScriptedGenerator, TextGenerator, parse_generation
from eagle_jax.language_model.remote.cache import CachedGenerator

_DRAWS_PER_EXAMPLE = 8  # held-out examples are different ones: repetitions are dropped


class Targets(NamedTuple):
    """The rows that have a "target" now, in their order.

    malformed: reason -> number of answers that could not be used, asked again or not.
    left_out: task -> number of rows that have no target after the last try.
    """

    rows: list[Row]
    malformed: Counter[str]
    left_out: Counter[str]


def grammar_teacher() -> ScriptedGenerator:
    """Answers every task about films of MiniLens, as `data/minilens/task_teacher.py` says."""
    return ScriptedGenerator(answer_task, "MiniLens' grammar")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher:
    """A model that is told of items what the settings say; its answers are kept in `cache`, a file of
    `GenerationCache`. book: of the tasks; seed: of the experiment."""

    generator: TextGenerator
    book: str
    catalogue: Catalogue
    settings: TeacherSettings
    seed: int
    cache: Path

    def answer(self, rows: Sequence[Row], use: int) -> list[Row]:
        """The rows that have a "target"; `use` is a number of its own for each use of the answers."""
        return self.write_targets(rows, derive_seed(self.seed, 9, use)).rows

    def prompt(self, row: Row) -> Prompt:
        """What it reads of a row."""
        task = find_task(row["task"])
        entities = [self.catalogue.entities[item] for item in row["items"]]
        if task.describes_user or self.settings.shows == "title":
            return teacher_prompt(self.book, task, [quote_markers(entity.title) for entity in entities])
        texts = []
        for entity in entities:
            blocks = parse_blocks(entity.description, self.catalogue.entity_format.blocks, may_be_empty=True)
            told = [render_block(name, text) for name, text in blocks.items() if text]
            texts.append(" ".join([quote_markers(entity.title), *told]))
        return teacher_prompt(self.book, task, texts)

    def write_targets(self, rows: Sequence[Row], seed: int) -> Targets:
        """Each row of `data.task_examples` with the teacher's answer as its "target".

        An answer that is cut short, empty or has markers inside is asked for again with another
        seed; a row that has none after `max_tries` is left out. Raises UserError for an unknown
        task, and where no row has a target.
        """
        prompts = [self.prompt(row) for row in rows]
        targets: dict[int, str] = {}
        malformed: Counter[str] = Counter()
        pending = list(range(len(rows)))
        for attempt in range(self.settings.max_tries):
            answers = self._ask([prompts[row] for row in pending], seed, attempt)
            for row, answer in zip(pending, answers, strict=True):
                if isinstance(answer, MalformedText):
                    malformed[answer.reason] += 1
                else:
                    targets[row] = answer
            pending = [row for row in pending if row not in targets]
        if rows and not targets:
            raise UserError(
                f"the teacher {self.generator.name} wrote no target for {len(rows)} examples in "
                f"{self.settings.max_tries} tries: {dict(malformed)}; give it more new tokens or another "
                "book of tasks"
            )
        left_out = Counter(rows[row]["task"] for row in pending)
        return Targets([{**rows[row], "target": targets[row]} for row in sorted(targets)], malformed, left_out)

    def _ask(self, prompts: Sequence[Prompt], seed: int, attempt: int) -> list[str | MalformedText]:
        """The answer to each prompt, or what is wrong with it."""
        generator = CachedGenerator(self.generator, self.cache)
        answers: list[str | MalformedText] = []
        starts = range(0, len(prompts), self.settings.batch_size)
        for start in progress(starts, len(starts), f"teacher, try {attempt + 1}", "batch"):
            batch = prompts[start : start + self.settings.batch_size]
            for generation in generator.generate(batch, self.settings.sampling, derive_seed(seed, attempt, start)):
                try:
                    answers.append(parse_generation(generation, [ANSWER])[ANSWER])
                except MalformedText as error:
                    answers.append(error)
        return answers


def run_example_stage(
    stage: StageFolder,
    tasks: Sequence[str],
    split: Split,
    neighbors: np.ndarray,
    settings: ElmExampleSettings,
    evaluation: ElmEvaluationSettings,
    teacher: Teacher,
    seed: int,
) -> dict[str, list[Row]]:
    """{"train", "test"} examples with targets; writes <part>.jsonl and facts.json."""
    if not stage.is_complete():
        stage.begin()
        drawn = {
            "train": _draw(tasks, split, "train", neighbors, settings, 1, seed),
            "test": _distinct(
                _draw(tasks, split, "test", neighbors, evaluation, _DRAWS_PER_EXAMPLE, derive_seed(seed, 1)), evaluation
            ),
        }
        facts: dict[str, Any] = {}
        for number, (part, rows) in enumerate(drawn.items()):
            targets = teacher.write_targets(rows, derive_seed(seed, 2, number))
            stage.write_jsonl(f"{part}.jsonl", (row | subject_names(row, teacher.catalogue) for row in targets.rows))
            facts[part] = {
                "examples": dict(Counter(row["task"] for row in targets.rows)),
                "malformed": dict(targets.malformed),
                "left_out": dict(targets.left_out),
            }
        stage.write_json("facts.json", facts)
        stage.finish()
    return {part: stage.read_jsonl(f"{part}.jsonl") for part in ("train", "test")}


def _draw(
    tasks: Sequence[str],
    split: Split,
    part: str,
    neighbors: np.ndarray,
    counts: ElmExampleSettings | ElmEvaluationSettings,
    times: int,
    seed: int,
) -> list[Row]:
    """`times` as many of every task as the settings ask for."""
    rows = []
    for number, name in enumerate(tasks):
        rows += draw_task_examples(
            TASKS[name],
            times * (counts.profiles if TASKS[name].describes_user else counts.per_movie_task),
            np.random.default_rng([seed, number]),
            items=split.entities[part],
            neighbors=neighbors,
            ratings=split.train,
            users=split.users[part],
        )
    return rows


def _distinct(rows: Sequence[Row], settings: ElmEvaluationSettings) -> list[Row]:
    """Of each task the first examples about different films (first ones of a pair) or users."""
    kept: dict[tuple[str, int], Row] = {}
    counts: Counter[str] = Counter()
    for row in rows:
        task = row["task"]
        wanted = settings.profiles if TASKS[task].describes_user else settings.per_movie_task
        key = task, entities_of(row)[0]
        if key not in kept and counts[task] < wanted:
            kept[key] = row
            counts[task] += 1
    return list(kept.values())


def subject_names(row: Row, catalogue: Catalogue) -> dict[str, Any]:
    """What artifacts tell beside the indices of an example's items and user."""
    items = [catalogue.item_names(item) for item in row["items"]]
    user = {"user_id": None} if row["user"] is None else catalogue.user_names(row["user"])
    return {"item_ids": [item["item_id"] for item in items], "titles": [item["title"] for item in items], **user}


def entities_of(row: Row) -> tuple[int, ...]:
    """What the answer is about: the user, or the films."""
    return (row["user"],) if row["user"] is not None else tuple(row["items"])
