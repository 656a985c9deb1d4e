"""SC and BC against scikit-learn, SciPy and worked rankings; laws; outputs that cannot be read."""

import numpy as np
import pytest
import scipy.spatial
import scipy.stats

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.elm.evaluation.consistency import (
    behavioral_consistency,
    chance_consistency,
    embed_outputs,
    ndcg,
    rating_matrix,
    read_outputs,
    semantic_consistency,
)
from eagle_jax.language_model.generation import Generation


class Lookup:
    """P that knows its texts by number, and how often it was asked."""

    def __init__(self, vectors):
        self.vectors, self.calls = vectors, []

    def __call__(self, texts):
        self.calls.append(list(texts))
        return np.stack([self.vectors[int(text)] for text in texts])


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def half_stars(seed, shape, rated_share):
    rng = np.random.default_rng(seed)
    return rng.integers(1, 11, shape) / 2 * (rng.random(shape) < rated_share)


def test_semantic_consistency_is_the_cosine():
    vectors, targets = drawn(0, 6, 5), drawn(1, 6, 5)
    embed, texts = Lookup(vectors), [str(i) for i in range(6)]
    expected = [1 - scipy.spatial.distance.cosine(a, b) for a, b in zip(vectors, targets, strict=True)]
    scores = semantic_consistency(embed, texts, targets)
    np.testing.assert_allclose(scores, expected)
    assert len(embed.calls) == 1


def test_unreadable_outputs_get_the_worst_value_and_change_no_other():
    vectors, targets = drawn(2, 4, 3), drawn(3, 4, 3)
    embed = Lookup(vectors)
    whole = semantic_consistency(embed, ["0", "1", "2", "3"], targets)
    some = semantic_consistency(embed, ["0", None, " \n", "3"], targets)
    np.testing.assert_allclose(some, [whole[0], -1.0, -1.0, whole[3]])
    assert embed.calls[-1] == ["0", "3"]
    np.testing.assert_array_equal(semantic_consistency(embed, [None, ""], targets[:2]), [-1, -1])
    profiles = embed_outputs(embed, ["0", None], 3)
    scored = behavioral_consistency(profiles, drawn(4, 8, 3), half_stars(5, (2, 8), 0.8))
    assert (scored.ndcg[1], scored.spearman[1]) == (0.0, -1.0)
    assert scored.ndcg[0] > 0.0


def test_answers_are_read_and_faults_counted():
    def wrote(text, why="stop"):
        return Generation(text=text, token_ids=None, log_probs=None, stop_reason=why)

    written = [wrote(" a quiet film "), wrote("cut", "length"), wrote("  "), wrote("a #BEGIN_PLOT b")]
    outputs = read_outputs("compact", written)
    assert outputs.texts == ["a quiet film", None, None, None]
    assert outputs.reasons == [None, "length", "empty_block", "wrong_markers"]


def test_ndcg_by_hand():
    # Ranked 2, 1, 3: gains 1, 3, 0 at discounts 1, 1 / log2(3), 1 / 2; the best order has 3 first.
    own, best = 1 + 3 / np.log2(3), 3 + 1 / np.log2(3)
    scores, gains = np.array([[0.5, 0.9, 0.1]]), np.array([[3.0, 1.0, 0.0]])
    np.testing.assert_allclose(ndcg(scores, gains), [own / best])
    # All scores equal: each discount is the mean of the three.
    mean = (1 + 1 / np.log2(3) + 1 / 2) / 3
    np.testing.assert_allclose(ndcg(0 * scores, gains), [4 * mean / best])
    np.testing.assert_array_equal(ndcg(scores, 0 * gains), [0.0])


def test_ndcg_matches_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    gains = half_stars(6, (20, 15), 0.5)
    for scores in (drawn(7, 20, 15), np.round(drawn(8, 20, 15))):  # without ties and with many
        expected = [metrics.ndcg_score(g[None], s[None]) for g, s in zip(gains, scores, strict=True)]
        np.testing.assert_allclose(ndcg(scores, gains), expected)


def test_behavioral_consistency_matches_the_peers_row_by_row():
    metrics = pytest.importorskip("sklearn.metrics")
    profiles, items = drawn(9, 5, 4), drawn(10, 12, 4)
    ratings = half_stars(11, (5, 12), 0.6)
    scored = behavioral_consistency(profiles, items, ratings)
    for row, (profile, own) in enumerate(zip(profiles, ratings, strict=True)):
        similarity = [1 - scipy.spatial.distance.cosine(profile, item) for item in items]
        # Burges et al. 2005: a film of r stars gains 2^r - 1, an unrated one nothing.
        expected = metrics.ndcg_score([2**own - 1], [similarity])
        assert scored.ndcg[row] == pytest.approx(expected)
        expected = scipy.stats.spearmanr(similarity, own).statistic
        assert scored.spearman[row] == pytest.approx(expected)


def test_chance_is_the_mean_over_random_rankings():
    ratings = half_stars(16, (3, 6), 0.7)
    chance = chance_consistency(ratings)
    random = np.random.default_rng(17).normal(size=(4000, 3, 6))
    drawn_ndcg = ndcg(random, 2**ratings - 1)
    error = drawn_ndcg.std(axis=0) / np.sqrt(len(random))
    assert (np.abs(drawn_ndcg.mean(axis=0) - chance.ndcg) < 4 * error).all()
    np.testing.assert_array_equal(chance.spearman, 0.0)


def test_ratings_unrated_as_zero_and_rows_without_an_order():
    table = RatingTable(
        user_names=("a", "b", "c"),
        item_names=("x", "y", "z"),
        user_index=np.array([0, 0, 1]),
        item_index=np.array([2, 0, 1]),
        rating=np.array([4.5, 1.0, 3.0]),
    )
    ratings = rating_matrix(table, [1, 0, 2, 0], [2, 0])
    np.testing.assert_array_equal(ratings, [[0, 0], [4.5, 1], [0, 0], [4.5, 1]])
    scored = behavioral_consistency(drawn(18, 4, 3), drawn(19, 2, 3), ratings)
    np.testing.assert_array_equal(scored.spearman[[0, 2]], 0.0)
    np.testing.assert_array_equal(scored.ndcg[[0, 2]], 0.0)


def test_faults_are_named():
    vectors, targets = drawn(20, 3, 4), drawn(21, 3, 4)
    texts = ["0", "1", "2"]
    with pytest.raises(UserError, match=r"shape \(3, 4\).*width 5"):
        semantic_consistency(Lookup(vectors), texts, drawn(22, 3, 5))
    with pytest.raises(ValueError, match="targets"):
        semantic_consistency(Lookup(vectors), texts, targets[:2])
    for value, fault in ((0.0, "all zeros"), (np.inf, "not finite")):
        broken = vectors.copy()
        broken[1] = value
        with pytest.raises(UserError, match=f"output 2 is {fault}: '1'"):
            semantic_consistency(Lookup(broken), ["0", None, "1"], targets)
        with pytest.raises(UserError, match=f"target 1 is {fault}"):
            semantic_consistency(Lookup(vectors), texts, broken)
        with pytest.raises(UserError, match=f"candidate 1 is {fault}"):
            behavioral_consistency(vectors, broken, np.ones((3, 3)))
    partly = vectors.copy()
    partly[2, 0] = np.nan
    with pytest.raises(UserError, match="text 2 is not finite"):
        behavioral_consistency(partly, vectors, np.ones((3, 3)))
    with pytest.raises(UserError, match="got -0.5: clip"):
        behavioral_consistency(vectors, vectors, np.full((3, 3), -0.5))
    with pytest.raises(UserError, match=r"\(3, 3\), got \(3, 2\)"):
        behavioral_consistency(vectors, vectors, np.ones((3, 2)))
