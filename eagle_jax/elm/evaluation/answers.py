"""Stage 5 of ELM: held-out examples answered by the ELM and what it is compared with, scored.

Axis letters: `B` answers, `d` width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.minilens.task_teacher import share_recovered
from eagle_jax.data.prompts import quote_markers
from eagle_jax.data.splits import Split
from eagle_jax.data.task_examples import Row, nearest_neighbors
from eagle_jax.data.tasks import find_task, teacher_prompt
from eagle_jax.elm.evaluation.baselines import text_only_prompts
from eagle_jax.elm.evaluation.consistency import (
    BehavioralConsistency,
    behavioral_consistency_item,
    behavioral_consistency_user,
    chance_consistency,
    embed_outputs,
    rating_matrix,
    read_outputs,
    semantic_consistency,
)
from eagle_jax.elm.evaluation.consistency_table import ConsistencyRecord
from eagle_jax.elm.examples import TeacherFn, entities_of
from eagle_jax.elm.model.embedding_lm import EmbeddingLM
from eagle_jax.elm.settings import BOOK, PROFILE, SINGLE_MOVIE, TWO_MOVIES, ElmEvaluationSettings
from eagle_jax.elm.space import Spaces
from eagle_jax.elm.train_stage import elm_prompts
from eagle_jax.elm.verdict import CHANCE, ELM, NEAREST, TEACHER, TEXT_ONLY, TEXT_ONLY_EXAMPLE
from eagle_jax.language_model.sampling.local import LocalGenerator


@dataclasses.dataclass(frozen=True, kw_only=True)
class SystemTexts:
    """What a system wrote for each of the rows; reasons as in `evaluation.consistency.Outputs`."""

    system: str
    seed: int
    texts: list[str | None]
    reasons: list[str | None]


def answer_all(
    stage: StageFolder,
    rows: Sequence[Row],
    catalogue: Catalogue,
    split: Split,
    spaces: Spaces,
    elms: Mapping[int, EmbeddingLM],
    reader: LocalGenerator,
    examples: Mapping[str, Row],
    write: TeacherFn,
    settings: ElmEvaluationSettings,
    seed: int,
) -> list[SystemTexts]:
    """The ELM of each seed, and as often the reader that is told titles, alone or after the
    example of the task; the others once."""
    nothing = [None] * len(rows)
    of_nearest = [row["target"] for row in write(_nearest(rows, spaces, split), 2)]
    answers = [
        SystemTexts(system=TEACHER, seed=0, texts=[row["target"] for row in rows], reasons=nothing),
        SystemTexts(system=NEAREST, seed=0, texts=of_nearest, reasons=nothing),
    ]
    embedded = elm_prompts(rows, spaces)
    titles = titles_of(catalogue)
    titled = text_only_prompts(BOOK, rows, titles)
    exemplified = text_only_prompts(BOOK, rows, titles, examples)
    asked = [(ELM, own_seed, elm, embedded) for own_seed, elm in elms.items()]
    asked += [(TEXT_ONLY, own_seed, reader, titled) for own_seed in elms]
    asked += [(TEXT_ONLY_EXAMPLE, own_seed, reader, exemplified) for own_seed in elms]
    for number, (system, own_seed, generator, prompts) in enumerate(asked):

        def generate(generator=generator, prompts=prompts, number=number):
            drawn = derive_seed(seed, number)
            return read_outputs(generator.generate(prompts, settings.sampling, drawn))._asdict()

        outputs = stage.chunk(number, generate)
        answers.append(SystemTexts(system=system, seed=own_seed, **outputs))
    return answers


def titles_of(catalogue: Catalogue) -> list[str]:
    return [entity.title for entity in catalogue.entities]


def _nearest(rows: Sequence[Row], spaces: Spaces, split: Split) -> list[Row]:
    """The same tasks about the training films, or the training user, nearest to each row's own."""
    known = [user for user in split.users["train"] if int(user) in spaces.profile_rows]
    of_users = nearest_neighbors(spaces.users, np.array(known), 1)[:, 0]
    return [
        {**row, "items": [int(spaces.neighbors[item][0]) for item in row["items"]]}
        if row["user"] is None
        else spaces.profile_rows[int(of_users[row["user"]])]
        for row in rows
    ]


def score(
    answers: SystemTexts, rows: Sequence[Row], catalogue: Catalogue, split: Split, spaces: Spaces
) -> list[ConsistencyRecord]:
    """A record for each row, measures by group of tasks (see the settings)."""
    columns: list[dict[str, float]] = [{} for _ in rows]
    for group in (SINGLE_MOVIE, TWO_MOVIES, (PROFILE,)):
        places = [place for place, row in enumerate(rows) if row["task"] in group]
        if not places:
            continue
        group_rows = [rows[place] for place in places]
        texts = [answers.texts[place] for place in places]
        measures = {"slots": _slots(group_rows, texts, titles_of(catalogue))}
        if group is not TWO_MOVIES:
            behavioral = _behavioral(group_rows, texts, catalogue, split, spaces)
            measures |= {"bc/ndcg": behavioral.ndcg, "bc/spearman": behavioral.spearman}
        if group != (PROFILE,):
            measures["sc"] = semantic_consistency(spaces.embed, texts, _targets(group_rows, spaces))
        for name, values in measures.items():
            for place, value in zip(places, values, strict=True):
                columns[place][name] = float(value)
    return [
        ConsistencyRecord(
            system=answers.system,
            task=row["task"],
            entities=entities_of(row),
            seed=answers.seed,
            scores=scores,
            malformed=reason,
        )
        for row, scores, reason in zip(rows, columns, answers.reasons, strict=True)
    ]


def _targets(rows: Sequence[Row], spaces: Spaces) -> np.ndarray:
    """w [B, d]: of one film its own embedding, of two that of the teacher's text (appendix B)."""
    if rows[0]["task"] in TWO_MOVIES:
        return spaces.embed([row["target"] for row in rows])
    return spaces.semantic[[row["items"][0] for row in rows]]


def _slots(rows: Sequence[Row], texts: Sequence[str | None], titles: Sequence[str]) -> list[float]:
    shares = []
    for row, text in zip(rows, texts, strict=True):
        shown = [quote_markers(titles[item]) for item in row["items"]]
        prompt = teacher_prompt(BOOK, find_task(row["task"]), shown)
        shares.append(0.0 if text is None else share_recovered(prompt, text))
    return shares


def _behavioral(
    rows: Sequence[Row], texts: Sequence[str | None], catalogue: Catalogue, split: Split, spaces: Spaces
) -> BehavioralConsistency:
    """A profile ranks the held-out films, a film's text the held-out users."""
    ratings = _ratings(rows, catalogue, split, spaces)
    width = spaces.users.shape[1]
    if rows[0]["task"] == PROFILE:
        outputs = embed_outputs(spaces.user_encoder, texts, width)
        candidates = spaces.item_texts[split.entities["test"]]
        return behavioral_consistency_user(outputs, candidates, ratings)
    outputs = embed_outputs(spaces.item_encoder, texts, width)
    of_users = np.stack([spaces.user_texts[user] for user in _ranked_users(split, spaces)])
    return behavioral_consistency_item(outputs, of_users, ratings.T)


def _ranked_users(split: Split, spaces: Spaces) -> list[int]:
    return [int(user) for user in split.users["test"] if int(user) in spaces.user_texts]


def _ratings(rows: Sequence[Row], catalogue: Catalogue, split: Split, spaces: Spaces) -> np.ndarray:
    """[rows, candidates]: of users the held-out films, of films the held-out users."""
    about = [entities_of(row)[0] for row in rows]
    if rows[0]["task"] == PROFILE:
        return rating_matrix(catalogue.ratings, about, split.entities["test"])
    return rating_matrix(catalogue.ratings, _ranked_users(split, spaces), about).T


def score_chance(rows: Sequence[Row], catalogue: Catalogue, split: Split, spaces: Spaces) -> list[ConsistencyRecord]:
    """Behavioral consistency of rankings at random, expected, on the same rows."""
    records = []
    for group in (SINGLE_MOVIE, (PROFILE,)):
        group_rows = [row for row in rows if row["task"] in group]
        if not group_rows:
            continue
        at_random = chance_consistency(_ratings(group_rows, catalogue, split, spaces))
        records += [
            ConsistencyRecord(
                system=CHANCE,
                task=row["task"],
                entities=entities_of(row),
                seed=0,
                scores={"bc/ndcg": float(at_random.ndcg[place]), "bc/spearman": float(at_random.spearman[place])},
                malformed=None,
            )
            for place, row in enumerate(group_rows)
        ]
    return records


def sample_rows(
    answers: Sequence[SystemTexts],
    records: Sequence[Sequence[ConsistencyRecord]],
    rows: Sequence[Row],
    catalogue: Catalogue,
    per_task: int,
) -> list[dict[str, Any]]:
    """The first `per_task` rows of each task as every system answered them, with its first seed."""
    titles, names = titles_of(catalogue), catalogue.ratings.user_names
    seen: dict[str, int] = {}
    chosen = []
    for place, row in enumerate(rows):
        seen[row["task"]] = seen.get(row["task"], 0) + 1
        if seen[row["task"]] <= per_task:
            chosen.append(place)
    shown: set[str] = set()
    samples = []
    for of_system, scored in zip(answers, records, strict=True):
        if of_system.system in shown:
            continue
        shown.add(of_system.system)
        for place in chosen:
            row = rows[place]
            samples.append(
                {
                    "system": of_system.system,
                    "task": row["task"],
                    "items": [titles[item] for item in row["items"]],
                    "user": None if row["user"] is None else names[row["user"]],
                    "seed": of_system.seed,
                    "text": of_system.texts[place],
                    "malformed": of_system.reasons[place],
                    "target": row["target"],
                    "scores": dict(scored[place].scores),
                }
            )
    return samples
