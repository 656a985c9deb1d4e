"""An agent whose models are scripts: everything about it but the language models is real."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from eagle_jax.data.prompts import COMPACT, MOVIE, begin, end
from eagle_jax.data.splits import split_catalogue
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.eagle.serving.agent import Agent
from eagle_jax.eagle.serving.rating_intervals import fit_rating_predictor
from eagle_jax.eagle.serving.users import UserDirectory
from eagle_jax.eagle.settings import ProfileSettings
from eagle_jax.eagle.user_space import UserSpace
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN
from eagle_jax.embeddings.wals import fit_wals
from eagle_jax.language_model.generation import ScriptedGenerator
from tests.small_world import LETTERS, SAMPLING, SPLIT, WALS, letter_scorer

WORDS = ("dragon", "harvest", "lantern", "glacier", "orchard", "velvet")


def block(text, name):
    return re.search(rf"{begin(name)} (.*?) {end(name)}", text)[1]


def act(prompt, rng):
    """A policy: one of a few words; one action in ten is empty."""
    return "" if rng.random() < 0.1 else f"bring in the {WORDS[int(rng.integers(len(WORDS)))]}."


def rewrite(prompt, rng):
    """An environment: the plot with what the action brings in; "velvet" is too much for it."""
    word = block(prompt.text, "ACTION").split()[-1]
    if word.startswith("velvet"):
        return "a tale without its other blocks"
    plot, *others = (block(prompt.text, name) for name in MOVIE.blocks)
    told = [f"{plot} {word} {end('PLOT')}"]
    told += [f"{begin(n)} {t} {end(n)}" for n, t in zip(MOVIE.blocks[1:], others, strict=True)]
    return " ".join(told)


def write_profile(prompt, rng):
    return f"loves {block(prompt.text, 'LIKED')} and not {block(prompt.text, 'DISLIKED')}"


@pytest.fixture(scope="session")
def agent(world):
    catalogue = world.catalogue
    split = split_catalogue(catalogue, dataclasses.replace(SPLIT, rating_fraction=0.2, min_anchor_ratings=6))
    wals = fit_wals(split.train, WALS, jax.random.key(0))
    users, kernels = np.asarray(wals.user_embeddings), np.random.default_rng(0).normal(size=(2, len(LETTERS), WALS.dim))
    scorers = {
        name: letter_scorer(catalogue, users, kernel / 8, bias=0)
        for name, kernel in zip((TRAIN, HELD_OUT), kernels, strict=True)
    }
    ratings, facts = fit_rating_predictor(wals, scorers[HELD_OUT].catalogue_embeddings, split)
    of_split = np.concatenate(list(split.users.values())).tolist()
    names = catalogue.ratings.user_names
    test = split.entities["test"], split.users["test"]
    return Agent(
        name="agent_stub_0",
        catalogue=catalogue,
        policy=ScriptedGenerator(act, "policy"),
        policy_sampling=SAMPLING,
        environment=LLMEnvironment(
            generator=ScriptedGenerator(rewrite, "environment"), book=COMPACT, entity_format=MOVIE, sampling=SAMPLING
        ),
        horizon=2,
        batch_size=6,
        scorers=scorers,
        ratings=ratings,
        users=UserDirectory(
            catalogue=catalogue,
            space=UserSpace(fitted=wals, wals_settings=WALS, has_item_bias=False),
            profiles={user: f"user number {user}" for user in of_split},
            profile_settings=ProfileSettings(titles_per_side=2, max_tries=1, sampling=SAMPLING),
            data_profiles=None,
            profile_writer=ScriptedGenerator(write_profile),
            book=COMPACT,
        ),
        evaluated=[(catalogue.entities[test[0][i]].entity_id, names[test[1][j]]) for i, j in ((0, 1), (1, 0), (0, 2))],
        facts=facts,
    )
