"""Figure 3 of ELM: what is half one thing and half another, told from vectors and from words.

Tennenholtz et al. 2024 (ELM), section 4 and appendix F. The ELM reads the middle of two embeddings;
a model without embeddings is told what it lies between: films by name, alone or after an example
of the task, users by their profiles.

Axis letters: `B` mixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import Prompt
from eagle_jax.data.splits import Split
from eagle_jax.data.task_examples import Row
from eagle_jax.data.tasks import BEHAVIORAL, SEMANTIC, find_task
from eagle_jax.elm.evaluation.answers import titles_of
from eagle_jax.elm.evaluation.baselines import item_mixture_prompt, text_only_prompts, user_mixture_prompt, with_example
from eagle_jax.elm.evaluation.consistency import (
    behavioral_consistency_user,
    embed_outputs,
    read_outputs,
    semantic_consistency,
)
from eagle_jax.elm.evaluation.consistency_table import ConsistencyRecord
from eagle_jax.elm.model.embedding_lm import EmbeddingLM
from eagle_jax.elm.settings import BOOK, PROFILE, ElmEvaluationSettings
from eagle_jax.elm.space import Spaces, draw_ends, predicted_ratings
from eagle_jax.elm.train_stage import embedded_prompt
from eagle_jax.elm.verdict import ELM, FILM_MIXTURE, TEXT_ONLY, TEXT_ONLY_EXAMPLE, USER_MIXTURE
from eagle_jax.embeddings.interpolation import interpolate
from eagle_jax.embeddings.wals import WALSOutput
from eagle_jax.language_model.sampling.local import LocalGenerator


def score_mixtures(
    stage: StageFolder,
    catalogue: Catalogue,
    split: Split,
    wals: WALSOutput,
    spaces: Spaces,
    elms: Mapping[int, EmbeddingLM],
    reader: LocalGenerator,
    examples: Mapping[str, Row],
    settings: ElmEvaluationSettings,
    seed: int,
) -> list[ConsistencyRecord]:
    """A record for each system, seed and pair: SC with the middle of two films, BC with what
    matrix factorisation predicts for the middle of two users. `examples`: a row of each task."""
    curves = settings.curves
    films, users = draw_ends(split, spaces, curves.num_paths, seed)
    points = interpolate(*spaces.semantic[films], 0.5)
    middles = interpolate(*spaces.users[users], 0.5)
    test = split.entities["test"]
    ratings = predicted_ratings(wals, split.train, middles, np.asarray(wals.user_bias)[users].mean(axis=0), test)

    def semantic(texts: Sequence[str | None]) -> dict[str, np.ndarray]:
        return {"sc": semantic_consistency(spaces.embed, texts, points)}

    def behavioral(texts: Sequence[str | None]) -> dict[str, np.ndarray]:
        outputs = embed_outputs(spaces.user_encoder, texts, middles.shape[1])
        scored = behavioral_consistency_user(outputs, spaces.item_texts[test], ratings)
        return {"bc/ndcg": scored.ndcg, "bc/spearman": scored.spearman}

    named = _named_films(catalogue, films, curves.task)
    exemplified = _with_example(catalogue, named, examples[curves.task])
    profiles = [
        user_mixture_prompt(BOOK, find_task(PROFILE), *(spaces.profile_rows[int(user)]["target"] for user in pair))
        for pair in users.T
    ]
    of_films = [embedded_prompt(curves.task, SEMANTIC, point) for point in points]
    of_users = [embedded_prompt(PROFILE, BEHAVIORAL, point) for point in middles]
    asked = []
    for own_seed, elm in elms.items():
        asked += [
            (FILM_MIXTURE, ELM, own_seed, elm, of_films),
            (FILM_MIXTURE, TEXT_ONLY, own_seed, reader, named),
            (FILM_MIXTURE, TEXT_ONLY_EXAMPLE, own_seed, reader, exemplified),
            (USER_MIXTURE, ELM, own_seed, elm, of_users),
            (USER_MIXTURE, TEXT_ONLY, own_seed, reader, profiles),
        ]
    records = []
    for number, (task, system, own_seed, generator, prompts) in enumerate(asked):

        def generate(generator=generator, prompts=prompts, number=number):
            drawn = derive_seed(seed, number)
            return read_outputs(generator.generate(prompts, settings.sampling, drawn))._asdict()

        outputs = stage.chunk(number, generate)
        ends, score = (films, semantic) if task == FILM_MIXTURE else (users, behavioral)
        records += _records(task, system, own_seed, ends, outputs, score)
    return records


def _named_films(catalogue: Catalogue, films: np.ndarray, task: str) -> list[Prompt]:
    titles = titles_of(catalogue)
    return [item_mixture_prompt(BOOK, find_task(task), *(titles[film] for film in pair)) for pair in films.T]


def _with_example(catalogue: Catalogue, prompts: Sequence[Prompt], example: Row) -> list[Prompt]:
    """Each prompt behind one answered question about a film that exists."""
    (shown,) = text_only_prompts(BOOK, [example], titles_of(catalogue))
    return [with_example(BOOK, prompt, shown, example["target"]) for prompt in prompts]


def _records(
    task: str,
    system: str,
    seed: int,
    ends: np.ndarray,
    outputs: Mapping[str, list[str | None]],
    score: Callable[[Sequence[str | None]], dict[str, np.ndarray]],
) -> list[ConsistencyRecord]:
    measures = score(outputs["texts"])
    return [
        ConsistencyRecord(
            system=system,
            task=task,
            entities=tuple(int(end) for end in pair),
            seed=seed,
            scores={name: float(values[place]) for name, values in measures.items()},
            malformed=outputs["reasons"][place],
        )
        for place, pair in enumerate(ends.T)
    ]
