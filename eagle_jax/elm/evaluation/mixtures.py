"""Figure 3 of ELM: what is half one thing and half another, told from vectors and from words.

Tennenholtz et al. 2024 (ELM), section 4 and appendix F. The ELM reads the middle of two embeddings;
a model without embeddings is told what it lies between: films by name, alone or after an example
of the task, users by their profiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.prompts import Prompt
from eagle_jax.data.tasks import BEHAVIORAL, SEMANTIC, find_task
from eagle_jax.elm.evaluation.answers import Respondents
from eagle_jax.elm.evaluation.baselines import item_mixture_prompt, text_only_prompts, user_mixture_prompt, with_example
from eagle_jax.elm.evaluation.consistency import semantic_consistency
from eagle_jax.elm.evaluation.consistency_table import ConsistencyRecord
from eagle_jax.elm.settings import ElmCurveSettings
from eagle_jax.elm.space import Spaces, draw_ends
from eagle_jax.elm.train_stage import embedded_prompt
from eagle_jax.elm.verdict import ELM, FILM_MIXTURE, TEXT_ONLY, TEXT_ONLY_EXAMPLE, USER_MIXTURE
from eagle_jax.embeddings.interpolation import interpolate


def score_mixtures(
    stage: StageFolder, spaces: Spaces, respondents: Respondents, curves: ElmCurveSettings, seed: int
) -> list[ConsistencyRecord]:
    """A record for each system, seed and pair: SC with the middle of two films, BC with what
    matrix factorisation predicts for the middle of two users."""
    book, profile_task = spaces.book, spaces.profile_task
    films, users = draw_ends(spaces, curves.num_paths, seed)
    points = interpolate(*spaces.semantic[films], 0.5)
    middles = interpolate(*spaces.users[users], 0.5)
    test = spaces.split.entities["test"]
    ratings = spaces.predict_ratings(middles, np.asarray(spaces.wals.user_bias)[users].mean(axis=0), test)

    named = [
        item_mixture_prompt(book, find_task(curves.task), *(spaces.titles[film] for film in pair)) for pair in films.T
    ]
    profiles = [
        user_mixture_prompt(book, find_task(profile_task), *(spaces.profile_rows[int(user)]["target"] for user in pair))
        for pair in users.T
    ]
    prompts = [
        (FILM_MIXTURE, ELM, [embedded_prompt(book, curves.task, SEMANTIC, point) for point in points]),
        (FILM_MIXTURE, TEXT_ONLY, named),
        (FILM_MIXTURE, TEXT_ONLY_EXAMPLE, _with_example(spaces, respondents, named, curves.task)),
        (USER_MIXTURE, ELM, [embedded_prompt(book, profile_task, BEHAVIORAL, point) for point in middles]),
        (USER_MIXTURE, TEXT_ONLY, profiles),
    ]
    asked = [(system, own_seed, given) for own_seed in respondents.elms for _, system, given in prompts]
    records = []
    for number, answer in enumerate(respondents.ask(stage, asked, seed)):
        task = prompts[number % len(prompts)][0]
        if task == FILM_MIXTURE:
            ends, scores = films, {"sc": semantic_consistency(spaces.embed, answer.texts, points)}
        else:
            ends, scores = users, spaces.rank_films(answer.texts, test, ratings).by_measure()
        records += [
            ConsistencyRecord(
                system=answer.system,
                task=task,
                entities=tuple(int(end) for end in pair),
                seed=answer.seed,
                scores={name: float(values[place]) for name, values in scores.items()},
                malformed=answer.reasons[place],
            )
            for place, pair in enumerate(ends.T)
        ]
    return records


def _with_example(spaces: Spaces, respondents: Respondents, prompts: Sequence[Prompt], task: str) -> list[Prompt]:
    """Each prompt behind one answered question about a film that exists."""
    example = respondents.examples[task]
    (shown,) = text_only_prompts(spaces.book, [example], spaces.titles)
    return [with_example(spaces.book, prompt, shown, example["target"]) for prompt in prompts]
