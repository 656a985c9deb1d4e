"""A small MiniLens for what EAGLE's stages compute: its encoder counts letters and needs no model."""

import numpy as np
import pytest

from eagle_jax.data.minilens.world import MiniLensSettings, make_catalogue
from eagle_jax.data.prompts import COMPACT
from eagle_jax.data.splits import PARTS, SplitSettings, split_catalogue
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.embeddings.domain_encoder import DomainEncoder
from eagle_jax.embeddings.regression_head import HeadFit, RegressionHead
from eagle_jax.embeddings.scorer import Scorer
from eagle_jax.embeddings.utility import UtilitySettings
from eagle_jax.language_model.generation import SamplingSettings

NUM_FILMS, NUM_USERS = 120, 60
SPLIT = SplitSettings(
    seed=0, rating_fraction=0.1, validation_fraction=0.1, test_fraction=0.2, min_anchor_ratings=12, min_user_ratings=20
)
SAMPLING = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=80)
_UTILITY = UtilitySettings(neighbor_weight=0.3, num_neighbors=3)
_WIDTH, _LETTERS = 4, "abcdefghijklmnop"


def _count_letters(texts):
    return np.array([[text.count(letter) for letter in _LETTERS] for text in texts], np.float32)


def utility_by_hand(scorer, embedding, user):
    """<z_u, z> + lambda * the sum of the three nearest distances, float64: U and its terms."""
    z, z_u = np.float64(embedding), np.float64(scorer.user_embeddings[user])
    distances = np.linalg.norm(np.float64(scorer.catalogue_embeddings) - z, axis=1)
    nearest = np.sort(distances)[:3].sum()
    return z_u @ z + 0.3 * nearest, z_u @ z, nearest


@pytest.fixture(scope="session")
def world():
    """With a profile of each user; without an environment."""
    settings = MiniLensSettings(
        seed=1,
        num_films=NUM_FILMS,
        num_users=NUM_USERS,
        ratings_per_user=30,
        rating_noise=0.4,
        popularity_exponent=0.5,
        selection_strength=0.5,
    )
    catalogue = make_catalogue(settings)
    split = split_catalogue(catalogue, SPLIT)
    rng = np.random.default_rng(0)
    layer = rng.normal(size=(len(_LETTERS), _WIDTH)).astype(np.float32), np.ones(_WIDTH, np.float32)
    mean, scale = (np.full(len(_LETTERS), value, np.float32) for value in (8, 4))
    encoder = DomainEncoder(_count_letters, HeadFit(RegressionHead(mean, scale, (layer,)), np.zeros(1)))
    users = rng.normal(size=(NUM_USERS, _WIDTH)).astype(np.float32)
    scorer = Scorer(encoder, users, encoder(catalogue.descriptions), _UTILITY)
    profiles = {
        int(user): f"genre: loves user number {user}, avoids none." for part in PARTS for user in split.users[part]
    }
    return EagleWorld(catalogue, split, COMPACT, {"train": scorer}, profiles)
