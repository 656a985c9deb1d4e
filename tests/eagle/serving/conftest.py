"""An agent whose models are scripts: everything about it but the language models is real."""

import dataclasses
import itertools
import re

import jax
import numpy as np
import pytest

from eagle_jax.data.minilens.world import MiniLensSettings, make_catalogue
from eagle_jax.data.prompts import COMPACT, MOVIE, begin, end
from eagle_jax.data.splits import SplitSettings, split_catalogue
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.eagle.serving.agent import Agent
from eagle_jax.eagle.serving.rating_intervals import fit_rating_predictor
from eagle_jax.eagle.serving.users import UserDirectory
from eagle_jax.eagle.settings import ProfileSettings
from eagle_jax.eagle.user_space import UserSpace
from eagle_jax.embeddings.domain_encoder import DomainEncoder
from eagle_jax.embeddings.regression_head import HeadFit, RegressionHead
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN, Scorer
from eagle_jax.embeddings.utility import UtilitySettings
from eagle_jax.embeddings.wals import WALSSettings, fit_wals
from eagle_jax.language_model.generation import SamplingSettings, ScriptedGenerator

LETTERS = "abcdefghijklmnop"
WORDS = ("dragon", "harvest", "lantern", "glacier", "orchard", "velvet")
SAMPLING = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=80)
WALS = WALSSettings(
    dim=4,
    num_iterations=4,
    bias="user_item",
    observed_weight=1.0,
    unobserved_weight=0.0,
    regularization=4.0,
    regularization_scaling=0.0,
    bias_regularization=3.0,
)


def count_letters(texts):
    """Features of a text that need no model."""
    return np.array([[text.count(letter) for letter in LETTERS] for text in texts], np.float32)


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
def world():
    """Catalogue, split and embeddings of ratings."""
    catalogue = make_catalogue(
        MiniLensSettings(
            seed=1,
            num_films=120,
            num_users=60,
            ratings_per_user=30,
            rating_noise=0.4,
            popularity_exponent=0.5,
            selection_strength=0.5,
        )
    )
    settings = SplitSettings(
        seed=0,
        rating_fraction=0.2,
        validation_fraction=0.1,
        test_fraction=0.2,
        min_anchor_ratings=6,
        min_user_ratings=20,
    )
    split = split_catalogue(catalogue, settings)
    return catalogue, split, fit_wals(split.train, WALS, jax.random.key(0))


@pytest.fixture(scope="session")
def agent(world):
    catalogue, split, wals = world
    rng = np.random.default_rng(0)
    utility = UtilitySettings(neighbor_weight=0.3, num_neighbors=3)

    def scorer():
        layers = ((rng.normal(size=(len(LETTERS), WALS.dim)).astype(np.float32) / 8, np.zeros(WALS.dim, np.float32)),)
        head = RegressionHead(np.full(len(LETTERS), 8, np.float32), np.full(len(LETTERS), 4, np.float32), layers)
        encoder = DomainEncoder(count_letters, HeadFit(head, np.zeros(1)))
        return Scorer(encoder, np.asarray(wals.user_embeddings), encoder(catalogue.descriptions), utility)

    scorers = {TRAIN: scorer(), HELD_OUT: scorer()}
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
            profile_writer=ScriptedGenerator(write_profile),
            book=COMPACT,
        ),
        evaluated=[(catalogue.entities[test[0][i]].entity_id, names[test[1][j]]) for i, j in ((0, 1), (1, 0), (0, 2))],
        facts=facts,
    )


class Stopped(Exception):
    pass


@pytest.fixture
def interrupted(agent):
    """(at) -> the agent stopped when its policy is asked for the `at`-th time (None: never), and the
    prompts that it was asked before."""

    def make(at):
        prompts, scripted, times = [], agent.policy.generate, itertools.count(1)

        def generate(asked, sampling, seed):
            if next(times) == at:
                raise Stopped
            prompts.extend(asked)
            return scripted(asked, sampling, seed)

        policy = ScriptedGenerator(act, agent.policy.name)
        policy.generate = generate
        return dataclasses.replace(agent, policy=policy), prompts

    return make
