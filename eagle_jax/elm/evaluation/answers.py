"""Stage 5 of ELM: held-out examples answered by the ELM and what it is compared with, scored.

Axis letters: `B` answers, `d` width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.minilens.task_teacher import share_recovered
from eagle_jax.data.prompts import Prompt, quote_markers
from eagle_jax.data.task_examples import Row, nearest_neighbors
from eagle_jax.data.tasks import find_task, teacher_prompt
from eagle_jax.elm.evaluation.baselines import text_only_prompts
from eagle_jax.elm.evaluation.consistency import (
    BehavioralConsistency,
    behavioral_consistency,
    chance_consistency,
    embed_outputs,
    rating_matrix,
    read_outputs,
    semantic_consistency,
)
from eagle_jax.elm.evaluation.consistency_table import ConsistencyRecord
from eagle_jax.elm.examples import Teacher, entities_of
from eagle_jax.elm.model.embedding_lm import EmbeddingLM
from eagle_jax.elm.model.prompts import EmbeddedPrompt
from eagle_jax.elm.settings import PROFILES, SINGLE_MOVIE, TWO_MOVIES
from eagle_jax.elm.space import Spaces
from eagle_jax.elm.train_stage import elm_prompts
from eagle_jax.elm.verdict import CHANCE, ELM, NEAREST, TEACHER, TEXT_ONLY, TEXT_ONLY_EXAMPLE
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.sampling.local import LocalGenerator

ELM_ANSWERS = "parts/00000.json"  # of `answer_all`: the ELM is asked first, and that of the first seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class SystemTexts:
    """What a system wrote for each of the rows; reasons as in `evaluation.consistency.Outputs`."""

    system: str
    seed: int
    texts: list[str | None]
    reasons: list[str | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Respondents:
    """The ELM of each seed, and as often the reader that is told titles, alone or after one of
    `examples`, a row of each task. book: of the tasks."""

    book: str
    elms: Mapping[int, EmbeddingLM]
    reader: LocalGenerator
    examples: Mapping[str, Row]
    sampling: SamplingSettings

    def ask(
        self,
        stage: StageFolder,
        asked: Sequence[tuple[str, int, Sequence[EmbeddedPrompt] | Sequence[Prompt]]],
        seed: int,
    ) -> list[SystemTexts]:
        """What each (system, its seed) answers to its prompts, a chunk of the stage each."""

        def answer(number: int) -> dict[str, Any]:
            system, own_seed, prompts = asked[number]
            generator = self.elms[own_seed] if system == ELM else self.reader
            made = generator.generate(prompts, self.sampling, derive_seed(seed, number))
            return read_outputs(self.book, made)._asdict()

        return [
            SystemTexts(system=system, seed=own_seed, **stage.chunk(number, functools.partial(answer, number)))
            for number, (system, own_seed, _) in enumerate(asked)
        ]


def answer_all(
    stage: StageFolder,
    rows: Sequence[Row],
    told: Sequence[Row],
    spaces: Spaces,
    respondents: Respondents,
    teacher: Teacher,
    seed: int,
) -> list[SystemTexts]:
    """Teacher and nearest entity once, the respondents with each of their seeds.

    told: what the teacher said of training entities, each task about each; of the nearest ones it is then not asked
    again.
    """
    nothing = [None] * len(rows)
    near = [row | {"place": place} for place, row in enumerate(_nearest(rows, told, spaces))]
    asked_about = [row for row in near if "target" not in row]
    said = {row["place"]: row["target"] for row in near if "target" in row}
    said |= {row["place"]: row["target"] for row in teacher.answer(asked_about, 2).rows}
    of_nearest = [said.get(place) for place in range(len(rows))]
    no_answer = [None if text is not None else "the teacher has no answer" for text in of_nearest]
    answers = [
        SystemTexts(system=TEACHER, seed=0, texts=[row["target"] for row in rows], reasons=nothing),
        SystemTexts(system=NEAREST, seed=0, texts=of_nearest, reasons=no_answer),
    ]
    prompts = {
        ELM: elm_prompts(rows, spaces),
        TEXT_ONLY: text_only_prompts(spaces.book, rows, spaces.titles),
        TEXT_ONLY_EXAMPLE: text_only_prompts(spaces.book, rows, spaces.titles, respondents.examples),
    }
    asked = [(system, own_seed, given) for system, given in prompts.items() for own_seed in respondents.elms]
    return answers + respondents.ask(stage, asked, seed)


def _nearest(rows: Sequence[Row], told: Sequence[Row], spaces: Spaces) -> list[Row]:
    """The same tasks about the training films, or the training user, nearest to each row's own; with the "target" where
    one of the nearest films is told, the first of them, or all users are."""
    of_users = nearest_neighbors(spaces.users, np.array(spaces.described_users("train")), 1)[:, 0]
    by_film = {(row["task"], *row["items"]): row["target"] for row in told if row["user"] is None}
    found = []
    for row in rows:
        if row["user"] is not None:
            profile = spaces.profile_rows[int(of_users[row["user"]])]
            found.append({name: value for name, value in profile.items() if told or name != "target"})
            continue
        near = {**row, "items": [int(spaces.neighbors[item][0]) for item in row["items"]]}
        del near["target"]
        for film in spaces.neighbors[row["items"][0]] if len(row["items"]) == 1 else ():
            if (row["task"], int(film)) in by_film:
                near |= {"items": [int(film)], "target": by_film[row["task"], int(film)]}
                break
        found.append(near)
    return found


def score(answers: SystemTexts, rows: Sequence[Row], spaces: Spaces) -> list[ConsistencyRecord]:
    """A record for each row, measures by group of tasks (see the settings)."""
    scores: list[dict[str, float]] = [{} for _ in rows]
    for group in (SINGLE_MOVIE, TWO_MOVIES, PROFILES):
        places = [place for place, row in enumerate(rows) if row["task"] in group]
        if not places:
            continue
        group_rows = [rows[place] for place in places]
        texts = [answers.texts[place] for place in places]
        measures = {}
        if spaces.catalogue.oracle is not None:  # the grammar of MiniLens, which reads its texts
            measures["slots"] = _slots(group_rows, texts, spaces.titles)
        if group is not TWO_MOVIES:
            measures |= _behavioral(group_rows, texts, spaces).by_measure()
        if group is not PROFILES:
            measures["sc"] = semantic_consistency(spaces.embed, texts, _targets(group_rows, spaces))
        for name, values in measures.items():
            for place, value in zip(places, values, strict=True):
                scores[place][name] = float(value)
    return _records(answers.system, answers.seed, rows, scores, answers.reasons)


def score_chance(rows: Sequence[Row], spaces: Spaces) -> list[ConsistencyRecord]:
    """Behavioral consistency of rankings at random, expected, on the same rows."""
    records = []
    for group in (SINGLE_MOVIE, PROFILES):
        group_rows = [row for row in rows if row["task"] in group]
        if group_rows:
            at_random = chance_consistency(_candidates(group_rows, spaces)[1]).by_measure()
            scores = [
                {name: float(values[place]) for name, values in at_random.items()} for place in range(len(group_rows))
            ]
            records += _records(CHANCE, 0, group_rows, scores, [None] * len(group_rows))
    return records


def _records(
    system: str, seed: int, rows: Sequence[Row], scores: Sequence[Mapping[str, float]], reasons: Sequence[str | None]
) -> list[ConsistencyRecord]:
    return [
        ConsistencyRecord(
            system=system, task=row["task"], entities=entities_of(row), seed=seed, scores=of_row, malformed=reason
        )
        for row, of_row, reason in zip(rows, scores, reasons, strict=True)
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
        prompt = teacher_prompt("compact", find_task(row["task"]), shown)
        shares.append(0.0 if text is None else share_recovered(prompt, text))
    return shares


def _behavioral(rows: Sequence[Row], texts: Sequence[str | None], spaces: Spaces) -> BehavioralConsistency:
    encoder = spaces.user_encoder if rows[0]["task"] in PROFILES else spaces.item_encoder
    outputs = embed_outputs(encoder, texts, spaces.users.shape[1])
    return behavioral_consistency(outputs, *_candidates(rows, spaces))


def _candidates(rows: Sequence[Row], spaces: Spaces) -> tuple[np.ndarray, np.ndarray]:
    """A profile ranks the held-out films, a film's text the held-out users: the embeddings of their
    texts, and the ratings [B, candidates]."""
    about = [entities_of(row)[0] for row in rows]
    given = spaces.catalogue.ratings
    if rows[0]["task"] in PROFILES:
        films = spaces.split.entities["test"]
        return spaces.item_texts[films], rating_matrix(given, about, films)
    users = spaces.described_users("test")
    return np.stack([spaces.user_texts[user] for user in users]), rating_matrix(given, users, about).T


def sample_rows(
    answers: Sequence[SystemTexts],
    records: Sequence[Sequence[ConsistencyRecord]],
    rows: Sequence[Row],
    spaces: Spaces,
    per_task: int,
) -> list[dict[str, Any]]:
    """The first `per_task` rows of each task as every system answered them, with its first seed."""
    titles, names = spaces.titles, spaces.catalogue.ratings.user_names
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
