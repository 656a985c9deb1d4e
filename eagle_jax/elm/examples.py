"""The teacher of MiniLens' ELM, the grammar, and the examples whose answers it writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.minilens.task_teacher import answer_task
from eagle_jax.data.splits import Split
from eagle_jax.data.task_examples import Row, draw_task_examples
from eagle_jax.data.tasks import TASKS
from eagle_jax.elm.settings import BOOK, PROFILE, TASK_NAMES, ElmEvaluationSettings, ElmExampleSettings
from eagle_jax.elm.teacher import Targets, TeacherSettings, write_targets
from eagle_jax.language_model.generation import ScriptedGenerator

# (rows, number of the use) -> the rows with their "target"
TeacherFn = Callable[[Sequence[Row], int], list[Row]]
_DRAWS_PER_EXAMPLE = 8  # held-out examples are different ones: repetitions are dropped


def grammar_teacher() -> ScriptedGenerator:
    """Answers every task about films of MiniLens, as `data/minilens/task_teacher.py` says."""
    return ScriptedGenerator(answer_task, "MiniLens' grammar")


def ask_teacher(
    catalogue: Catalogue, rows: Sequence[Row], settings: TeacherSettings, seed: int, cache: Path
) -> Targets:
    """Targets of the rows, by the titles of their films."""
    titles = [entity.title for entity in catalogue.entities]
    return write_targets(grammar_teacher(), BOOK, rows, titles, settings, seed, cache)


def run_example_stage(
    stage: StageFolder,
    catalogue: Catalogue,
    split: Split,
    neighbors: np.ndarray,
    settings: ElmExampleSettings,
    evaluation: ElmEvaluationSettings,
    teacher: TeacherSettings,
    seed: int,
    cache: Path,
) -> dict[str, list[Row]]:
    """{"train", "test"} examples with targets; writes <part>.jsonl and facts.json."""
    if not stage.is_complete():
        stage.begin()
        drawn = {
            "train": _draw(split, "train", neighbors, settings, seed),
            "test": _distinct(_draw_many(split, neighbors, evaluation, seed), evaluation),
        }
        facts: dict[str, Any] = {}
        for number, (part, rows) in enumerate(drawn.items()):
            teacher_seed = derive_seed(seed, 2, number)
            targets = ask_teacher(catalogue, rows, teacher, teacher_seed, cache)
            stage.write_jsonl(f"{part}.jsonl", targets.rows)
            facts[part] = {
                "examples": dict(Counter(row["task"] for row in targets.rows)),
                "malformed": dict(targets.malformed),
                "left_out": dict(targets.left_out),
            }
        stage.write_json("facts.json", facts)
        stage.finish()
    return {part: stage.read_jsonl(f"{part}.jsonl") for part in ("train", "test")}


def _draw(split: Split, part: str, neighbors: np.ndarray, settings: ElmExampleSettings, seed: int) -> list[Row]:
    rows = []
    for number, name in enumerate(TASK_NAMES):
        count = settings.profiles if name == PROFILE else settings.per_movie_task
        rows += draw_task_examples(
            TASKS[name],
            count,
            np.random.default_rng([seed, number]),
            items=split.entities[part],
            neighbors=neighbors,
            ratings=split.train,
            users=split.users[part],
        )
    return rows


def _draw_many(split: Split, neighbors: np.ndarray, settings: ElmEvaluationSettings, seed: int) -> list[Row]:
    several = ElmExampleSettings(
        per_movie_task=_DRAWS_PER_EXAMPLE * settings.per_movie_task,
        profiles=_DRAWS_PER_EXAMPLE * settings.profiles,
        num_neighbors=neighbors.shape[1],
    )
    return _draw(split, "test", neighbors, several, derive_seed(seed, 1))


def _distinct(rows: Sequence[Row], settings: ElmEvaluationSettings) -> list[Row]:
    """Of each task the first examples about different films (first ones of a pair) or users."""
    kept: dict[tuple[str, int], Row] = {}
    counts: Counter[str] = Counter()
    for row in rows:
        task = row["task"]
        wanted = settings.profiles if task == PROFILE else settings.per_movie_task
        key = task, entities_of(row)[0]
        if key not in kept and counts[task] < wanted:
            kept[key] = row
            counts[task] += 1
    return list(kept.values())


def entities_of(row: Row) -> tuple[int, ...]:
    """What the answer is about: the user, or the films."""
    return (row["user"],) if row["user"] is not None else tuple(row["items"])
