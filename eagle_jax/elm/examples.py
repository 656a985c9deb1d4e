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
from eagle_jax.data.prompts import MalformedText, Prompt, full_blocks, quote_markers, render_block
from eagle_jax.data.splits import Split
from eagle_jax.data.task_examples import Row, draw_task_examples
from eagle_jax.data.tasks import CHAT, TASKS, find_task, teacher_prompt
from eagle_jax.elm.answer_text import read_target
from eagle_jax.elm.settings import ElmEvaluationSettings, ElmExampleSettings, TeacherSettings
from eagle_jax.language_model.generation import ScriptedGenerator, TextGenerator
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

    def answer(self, rows: Sequence[Row], use: int) -> Targets:
        """What it says of the rows; `use` is a number of its own for each use of the answers."""
        return self.write_targets(rows, derive_seed(self.seed, 9, use))

    def prompt(self, row: Row) -> Prompt:
        """What it reads of a row."""
        return self._prompt(row, self._texts(row))

    def _prompt(self, row: Row, texts: Sequence[str]) -> Prompt:
        return teacher_prompt(self.book, find_task(row["task"]), texts)

    def _texts(self, row: Row) -> list[str]:
        """Titles, or texts with them; in a chat texts alone: a small model would repeat the title."""
        entities = [self.catalogue.entities[item] for item in row["items"]]
        if find_task(row["task"]).describes_user or self.settings.shows == "title":
            return [quote_markers(entity.title) for entity in entities]
        texts = []
        for entity in entities:
            blocks = full_blocks(entity.description, self.catalogue.entity_format.blocks)
            if self.book == CHAT:
                texts.append(" ".join(blocks.values()))
            else:
                told = [render_block(name, text) for name, text in blocks.items()]
                texts.append(" ".join([quote_markers(entity.title), *told]))
        return texts

    def write_targets(self, rows: Sequence[Row], seed: int) -> Targets:
        """Each row of `data.task_examples` with the teacher's answer as its "target".

        An answer that cannot be used (`read_target`) is asked for again with another seed; a row
        that has none after `max_tries` is left out. Raises UserError for an unknown task, and where
        no row has a target.
        """
        targets: dict[int, str] = {}
        malformed: Counter[str] = Counter()
        pending = list(range(len(rows)))
        for attempt in range(self.settings.max_tries):
            answers = self._ask([rows[row] for row in pending], seed, attempt)
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

    def _ask(self, rows: Sequence[Row], seed: int, attempt: int) -> list[str | MalformedText]:
        """The answer to each row, or what is wrong with it."""
        generator = CachedGenerator(self.generator, self.cache)
        texts = [self._texts(row) for row in rows]
        prompts = [self._prompt(*of_row) for of_row in zip(rows, texts, strict=True)]
        order = list(range(len(rows)))
        if self.book == CHAT:  # whose texts are long: those of like length share a batch, there is little padding
            order.sort(key=lambda row: len(prompts[row].text))
        answers: dict[int, str | MalformedText] = {}
        starts = range(0, len(rows), self.settings.batch_size)
        for start in progress(starts, len(starts), f"teacher, try {attempt + 1}", "batch"):
            batch = order[start : start + self.settings.batch_size]
            asked = [prompts[row] for row in batch]
            made = generator.generate(asked, self.settings.sampling, derive_seed(seed, attempt, start))
            for row, generation in zip(batch, made, strict=True):
                try:
                    answers[row] = read_target(self.book, generation, " ".join(texts[row]))
                except MalformedText as error:
                    answers[row] = error
        return [answers[row] for row in range(len(rows))]


def run_example_stage(
    stage: StageFolder,
    tasks: Sequence[str],
    split: Split,
    neighbors: np.ndarray,
    settings: ElmExampleSettings,
    evaluation: ElmEvaluationSettings,
    teacher: Teacher,
    seed: int,
    told: Sequence[Row] = (),
) -> dict[str, list[Row]]:
    """{"train", "test"} examples with targets; writes <part>.jsonl and facts.json.

    told: rows with targets, the training examples of their tasks; the other tasks' are drawn.
    """
    if not stage.is_complete():
        stage.begin()
        known = {row["task"] for row in told}
        drawn = {
            "train": _draw([name for name in tasks if name not in known], split, "train", neighbors, settings, 1, seed),
            "test": _distinct(
                _draw(tasks, split, "test", neighbors, evaluation, _DRAWS_PER_EXAMPLE, derive_seed(seed, 1)), evaluation
            ),
        }
        facts: dict[str, Any] = {}
        for number, (part, rows) in enumerate(drawn.items()):
            targets = teacher.write_targets(rows, derive_seed(seed, 2, number))
            if part == "train":
                targets = targets._replace(rows=[*told, *targets.rows])
            stage.write_jsonl(f"{part}.jsonl", (row | subject_names(row, teacher.catalogue) for row in targets.rows))
            facts[part] = {
                "examples": dict(Counter(row["task"] for row in targets.rows)),
                "malformed": dict(targets.malformed),
                "left_out": dict(targets.left_out),
            }
        stage.write_json("facts.json", facts)
        stage.finish()
    return {part: stage.read_jsonl(f"{part}.jsonl") for part in ("train", "test")}


def rows_about(task: str, films: Sequence[int]) -> list[Row]:
    """The task about each of the films."""
    return [{"task": task, "items": [int(film)], "user": None} for film in films]


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
