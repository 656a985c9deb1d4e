"""Utilities of texts, whatever batch they come in."""

import jax
import numpy as np
import pytest

from eagle_jax.data.minilens.grammar import GrammarOracle
from tests.small_world import utility_by_hand


@pytest.fixture(scope="module")
def texts(world):
    """More than one block of rows; edits, so that they are not in the catalogue."""
    return [e for text in world.catalogue.descriptions[:5] for e in GrammarOracle().single_edits(text)][:300]


def test_terms_are_the_utility_by_hand(world, texts):
    users = np.arange(len(texts)) % 60
    embeddings = world.scorer.embed(texts)
    terms = world.scorer.score(texts, users)
    for row in range(0, len(texts), 7):
        expected = utility_by_hand(world.scorer, embeddings[row], users[row])
        ours = [t[row] for t in (terms.utility, terms.user_term, terms.neighbor_distance_term)]
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    assert terms.creator_term is None  # no creators are known here
    assert all(isinstance(t, np.ndarray) and t.shape == (300,) for t in jax.tree.leaves(terms))


def test_a_row_does_not_depend_on_its_batch(world, texts):
    users = np.arange(len(texts)) % 60
    whole = world.scorer.score(texts, users).utility
    for rows in ([0], [255, 256], [299, 3, 3], list(range(250, 300))):
        some = world.scorer.score([texts[row] for row in rows], users[rows]).utility
        np.testing.assert_array_equal(some, whole[rows])
