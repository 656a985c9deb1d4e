"""From a finished ELM run to the dialogue with it (`elm_dialogue`)."""

from __future__ import annotations

import sys

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.tasks import BEHAVIORAL, SEMANTIC
from eagle_jax.elm.dialogue import Explorer, Ranker, Space, converse, typed_lines
from eagle_jax.elm.evaluation.directions import fit_tag_cavs
from eagle_jax.elm.run import ElmRun


def ask_elm(run: ElmRun) -> None:
    """Answers what is typed until `quit` or the end of input; `run` is done."""
    lines = typed_lines("> " if sys.stdin.isatty() else "")
    converse(explorer_of(run), lines, print, derive_seed(run.experiment.seed, 7))


def explorer_of(run: ElmRun) -> Explorer:
    """Films and users of the catalogue, held-out ones too, and a direction for every tag.

    Users share the space of matrix factorisation with films: their directions are those of films,
    measured on users.
    """
    spaces, catalogue, wals = run.spaces, run.spaces.catalogue, run.spaces.wals
    evaluation = run.experiment.evaluation
    tags = sorted({tag for _, _, tag in catalogue.tags})
    of_films, of_users = (
        fit_tag_cavs(spaces, embeddings, tags, "linear", evaluation.curves).found
        for embeddings in (spaces.semantic, np.asarray(wals.item_embeddings))
    )
    of_users = {tag: cav.measured_on(spaces.users) for tag, cav in of_users.items()}
    every_film = np.arange(len(catalogue.entities))
    # A point between or beyond users has no bias of its own: the mean of all.
    bias = np.mean(wals.user_bias)
    users = catalogue.ratings.user_names
    return Explorer(
        elm=run.elms[run.experiment.elm_seeds[0]],
        book=spaces.book,
        sampling=evaluation.sampling,
        how=evaluation.curves.how[0],
        spaces={
            SEMANTIC: Space(
                ids=[entity.entity_id for entity in catalogue.entities],
                titles=spaces.titles,
                vectors=spaces.semantic,
                activations=of_films,
            ),
            BEHAVIORAL: Space(ids=users, titles=users, vectors=spaces.users, activations=of_users),
        },
        of_items=Ranker(spaces.embed, spaces.semantic),
        of_profiles=Ranker(spaces.user_encoder, spaces.item_texts),
        predicted_ratings=lambda vector: spaces.predict_ratings(vector, bias, every_film),
    )
