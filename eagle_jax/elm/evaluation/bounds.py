"""Between which texts an ELM's consistency lies: those that say as much as can be said, and those that say nothing.

The held-out films' own texts and the teacher's bound it from above, what was said of a training film at random from
below; what the ELM says of films that it learned from tells what it cannot learn from what it cannot carry over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.task_examples import Row
from eagle_jax.elm.evaluation.consistency import read_outputs, semantic_consistency
from eagle_jax.elm.model.embedding_lm import EmbeddingLM
from eagle_jax.elm.settings import SINGLE_MOVIE, ElmEvaluationSettings
from eagle_jax.elm.space import Spaces
from eagle_jax.elm.train_stage import elm_prompts
from eagle_jax.reports.statistics import bootstrap_interval


def bound_consistency(
    stage: StageFolder,
    examples: Mapping[str, Sequence[Row]],
    spaces: Spaces,
    elm: EmbeddingLM,
    settings: ElmEvaluationSettings,
    seed: int,
) -> list[dict[str, Any]]:
    """SC of single-item tasks, with intervals over items.

    Rows {"texts": which, "sc": mean and interval, "num_outputs", "num_entities", "malformed": reason -> count}.
    """
    held_out, known = (_single(examples[part]) for part in ("test", "train"))
    rng = np.random.default_rng(seed)
    seen = _some_of_each(known, settings.training_rows, rng)
    by_task = {task: [row for row in known if row["task"] == task] for task in {row["task"] for row in held_out}}
    others = [by_task[row["task"]][int(rng.integers(len(by_task[row["task"]])))] for row in held_out]
    films = [dict(row) for row in {row["items"][0]: row for row in held_out}.values()]
    told = spaces.catalogue.descriptions

    def answer() -> dict[str, Any]:
        made = elm.generate(elm_prompts(seen, spaces), settings.sampling, derive_seed(seed, 1))
        return read_outputs(spaces.book, made)._asdict()

    of_elm = stage.chunk(0, answer)
    return [
        _bound("the catalogue's text", films, [told[row["items"][0]] for row in films], spaces, settings),
        _bound("the teacher's text", held_out, [row["target"] for row in held_out], spaces, settings),
        _bound(
            "the catalogue's text of the nearest training item",
            films,
            [told[int(spaces.neighbors[row["items"][0]][0])] for row in films],
            spaces,
            settings,
        ),
        _bound(
            "the teacher's text of a training item at random",
            held_out,
            [row["target"] for row in others],
            spaces,
            settings,
        ),
        _bound("training items, the teacher's text", seen, [row["target"] for row in seen], spaces, settings),
        _bound("training items, ELM's text", seen, of_elm["texts"], spaces, settings, of_elm["reasons"]),
    ]


def _single(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["task"] in SINGLE_MOVIE]


def _some_of_each(rows: Sequence[Row], count: int, rng: np.random.Generator) -> list[Row]:
    """At most `count` rows of each task, in their order."""
    chosen: list[int] = []
    for task in dict.fromkeys(row["task"] for row in rows):
        places = [place for place, row in enumerate(rows) if row["task"] == task]
        chosen += rng.permutation(places)[:count].tolist()
    return [rows[place] for place in sorted(chosen)]


def _bound(
    name: str,
    rows: Sequence[Row],
    texts: Sequence[str | None],
    spaces: Spaces,
    settings: ElmEvaluationSettings,
    reasons: Sequence[str | None] = (),
) -> dict[str, Any]:
    films = [row["items"][0] for row in rows]
    values = semantic_consistency(spaces.embed, texts, spaces.semantic[films])
    return {
        "texts": name,
        "sc": bootstrap_interval(values.tolist(), settings.bootstrap, clusters=films).as_cell(),
        "num_outputs": len(rows),
        "num_entities": len(set(films)),
        "malformed": dict(Counter(reason for reason in reasons if reason is not None)),
    }
