"""A small MiniLens for what EAGLE's stages compute: its encoder counts letters and needs no model."""

import numpy as np
import pytest

from eagle_jax.data.minilens.world import MiniLensSettings, make_catalogue
from eagle_jax.data.prompts import COMPACT
from eagle_jax.data.splits import PARTS, SplitSettings, split_catalogue
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.embeddings.domain_encoder import DomainEncoder
from eagle_jax.embeddings.regression_head import DomainEncoderSettings, HeadFit, RegressionHead
from eagle_jax.embeddings.scorer import Scorer
from eagle_jax.embeddings.utility import UtilitySettings
from eagle_jax.embeddings.wals import WALSSettings
from eagle_jax.language_model.generation import SamplingSettings

NUM_FILMS, NUM_USERS = 120, 60
MINILENS = MiniLensSettings(
    seed=1,
    num_films=NUM_FILMS,
    num_users=NUM_USERS,
    ratings_per_user=30,
    rating_noise=0.4,
    popularity_exponent=0.5,
    selection_strength=0.5,
)
SPLIT = SplitSettings(
    seed=0, rating_fraction=0.1, validation_fraction=0.1, test_fraction=0.2, min_anchor_ratings=12, min_user_ratings=20
)
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
RIDGE = DomainEncoderSettings(
    head="ridge",
    validation_fraction=0.2,
    penalties=(0.1, 1.0),
    hidden_width=8,
    dropout_rate=0.0,
    learning_rate=0.01,
    weight_decay=0.0,
    batch_size=8,
    max_epochs=1,
    patience=1,
)
LETTERS = "abcdefghijklmnop"


def count_letters(texts):
    return np.array([[text.count(letter) for letter in LETTERS] for text in texts], np.float32)


def letter_scorer(catalogue, users, kernel, bias):
    """Utilities under an encoder of one layer on the counts of 16 letters: kernel [16, d], one bias."""
    mean, scale = (np.full(len(LETTERS), value, np.float32) for value in (8, 4))
    layer = kernel.astype(np.float32), np.full(kernel.shape[1], bias, np.float32)
    head = RegressionHead(mean, scale, (layer,))
    encoder = DomainEncoder(count_letters, HeadFit(head, np.zeros(1)))
    return Scorer(
        encoder, users, encoder(catalogue.descriptions), UtilitySettings(neighbor_weight=0.3, num_neighbors=3)
    )


def utility_by_hand(scorer, embedding, user):
    """<z_u, z> + lambda * the sum of the three nearest distances, float64: U and its terms."""
    z, z_u = np.float64(embedding), np.float64(scorer.user_embeddings[user])
    distances = np.linalg.norm(np.float64(scorer.catalogue_embeddings) - z, axis=1)
    nearest = np.sort(distances)[:3].sum()
    return z_u @ z + 0.3 * nearest, z_u @ z, nearest


@pytest.fixture(scope="session")
def world():
    """With a profile of each user; without an environment."""
    catalogue = make_catalogue(MINILENS)
    split = split_catalogue(catalogue, SPLIT)
    rng = np.random.default_rng(0)
    kernel, users = rng.normal(size=(len(LETTERS), 4)), rng.normal(size=(NUM_USERS, 4)).astype(np.float32)
    scorer = letter_scorer(catalogue, users, kernel, bias=1)
    profiles = {
        int(user): f"genre: loves user number {user}, avoids none." for part in PARTS for user in split.users[part]
    }
    return EagleWorld(catalogue, split, COMPACT, {"train": scorer}, profiles)
