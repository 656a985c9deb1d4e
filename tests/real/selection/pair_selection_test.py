"""Pairs against float64 loops, and the laws that a selection obeys."""

import itertools

import jax
import numpy as np
import pytest
import scipy.stats
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from eagle_jax.base.errors import UserError
from eagle_jax.real.selection.pair_selection import METRICS, STRATEGIES, select_across, select_within

SETS = [(strategy, metric) for strategy in STRATEGIES for metric in METRICS]
SHAPE = (48, 7, 5)  # one compilation for each strategy and metric


def problems(seed=0, shape=SHAPE):
    """embeddings, is_valid with at least two valid responses each, implicit rewards."""
    rng = np.random.default_rng(seed)
    is_valid = rng.random(shape[:2]) < 0.7
    is_valid[:, 1:3] = True
    # Away from the origin, like the states of language models.
    embeddings = (rng.normal(size=shape) + 2.0).astype(np.float32)
    return embeddings, is_valid, rng.normal(size=shape[:2]).astype(np.float32)


def select(strategy, metric, embeddings, is_valid, rewards, seed=0, **changes):
    pairs = select_within(strategy, embeddings, is_valid, rewards, metric=metric, key=jax.random.key(seed), **changes)
    return jax.device_get(pairs)


def similarity_of(metric, one, other):
    one, other = one.astype(float), other.astype(float)
    if metric == "euclidean":
        return -np.linalg.norm(one - other)
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def best_of_all(strategy, metric, embeddings, rewards, valid):
    """The pair of the places `valid` that a float64 loop finds."""

    def value(pair):
        if strategy.startswith("implicit_reward_gap"):
            gap = abs(float(rewards[pair[0]]) - float(rewards[pair[1]]))
            return gap if strategy.endswith("small") else -gap
        similarity = similarity_of(metric, *embeddings[list(pair)])
        return similarity if strategy == "easy" else -similarity

    return min(itertools.combinations(valid, 2), key=value)


@pytest.mark.parametrize("strategy,metric", SETS)
def test_pairs_are_those_of_a_loop_in_float64(strategy, metric):
    embeddings, is_valid, rewards = problems()
    pairs = select(strategy, metric, embeddings, is_valid, rewards)
    assert pairs.first.dtype == pairs.second.dtype == np.int32
    assert np.all(pairs.is_valid) and not np.any(pairs.num_unusable)
    for row, (first, second) in enumerate(zip(pairs.first, pairs.second, strict=True)):
        valid = np.flatnonzero(is_valid[row])
        assert first < second and first in valid and second in valid
        if strategy not in ("centroid", "random"):
            assert (first, second) == best_of_all(strategy, metric, embeddings[row], rewards[row], valid)
        np.testing.assert_allclose(
            pairs.similarity[row],
            similarity_of(metric, embeddings[row, first], embeddings[row, second]),
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.parametrize("metric", METRICS)
def test_centroids_are_nearest_to_the_centres_of_the_best_division(metric):
    embeddings, is_valid, rewards = problems(1)
    pairs = select("centroid", metric, embeddings, is_valid, rewards)
    num_equal = 0
    for row in range(len(embeddings)):
        valid = np.flatnonzero(is_valid[row])
        points = embeddings[row, valid].astype(float)
        if metric == "cosine":
            points /= np.linalg.norm(points, axis=1, keepdims=True)
        best, chosen = np.inf, None
        for rest in itertools.product((True, False), repeat=len(valid) - 1):
            sides = np.array((True, *rest)), ~np.array((True, *rest))
            if not sides[1].any():
                continue
            squared = [np.sum((points - points[side].mean(axis=0)) ** 2, axis=1) for side in sides]
            own = [np.where(side, distances, np.inf) for side, distances in zip(sides, squared, strict=True)]
            inertia = np.min(own, axis=0).sum()  # each point is in one of both
            if inertia < best:
                best = inertia
                # Rounded: the first of two that are equally near.
                chosen = sorted(valid[np.argmin(np.round(distances, 9))] for distances in own)
        num_equal += [pairs.first[row], pairs.second[row]] == chosen
    assert num_equal >= 46  # of 48; the search may miss the best division


def test_random_pairs_are_uniform():
    """Ten valid pairs of five responses, 20,000 prompts; always the same pair fails by far."""
    num_prompts = 20_000
    is_valid = np.tile([True, False, True, True, True, True], (num_prompts, 1))
    pairs = select("random", "cosine", np.ones((num_prompts, 6, 1), np.float32), is_valid, None)
    counts = {pair: 0 for pair in itertools.combinations((0, 2, 3, 4, 5), 2)}
    for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        counts[pair] += 1
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_random_pairs_follow_the_key_and_the_number_of_the_prompt():
    embeddings, is_valid, rewards = problems()
    once, again, other = (select("random", "cosine", embeddings, is_valid, rewards, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(once.first, again.first)
    assert np.any(once.first != other.first)
    later = select("random", "cosine", embeddings, is_valid, rewards, first_row=1)
    same = select("random", "cosine", *(np.roll(x, 1, 0) for x in (embeddings, is_valid, rewards)))
    np.testing.assert_array_equal(later.first[:-1], same.first[1:])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_cosine_knows_no_scale_and_euclidean_no_origin(strategy):
    embeddings, *others = problems(3)
    rng = np.random.default_rng(0)
    scaled = embeddings * rng.choice([1e-20, 0.25, 3.0, 1e20], (*SHAPE[:2], 1))
    shifted = embeddings + rng.normal(size=(SHAPE[0], 1, SHAPE[2])) * 10.0
    for metric, changed, tolerance in (("cosine", scaled, 1e-6), ("euclidean", shifted, 1e-4)):
        before = select(strategy, metric, embeddings, *others)
        after = select(strategy, metric, changed.astype(np.float32), *others)
        for name in ("first", "second", "is_valid"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
        np.testing.assert_allclose(before.similarity, after.similarity, atol=tolerance)


@pytest.mark.parametrize("strategy,metric", SETS)
def test_what_is_not_valid_is_not_looked_at(strategy, metric):
    embeddings, is_valid, rewards = problems(4)
    before = select(strategy, metric, embeddings, is_valid, rewards)
    embeddings[~is_valid], rewards[~is_valid] = np.nan, np.inf
    after = select(strategy, metric, embeddings, is_valid, rewards)
    for name, mine, expected in zip(before._fields, after, before, strict=True):
        np.testing.assert_array_equal(mine, expected, err_msg=name)


@pytest.mark.parametrize("strategy", ["easy", "centroid", "random"])
def test_sharded_over_eight_devices(strategy):
    given = problems(5)
    alone = select(strategy, "cosine", *given)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    pairs = select_within(
        strategy, *(jax.device_put(array, sharding) for array in given), metric="cosine", key=jax.random.key(0)
    )
    assert len(pairs.first.sharding.device_set) == 8
    for name, found, expected in zip(pairs._fields, pairs, alone, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("strategy,metric", SETS)
def test_faults_are_counted_and_give_no_nan(strategy, metric):
    embeddings, _, rewards = problems(6)
    is_valid = np.ones(SHAPE[:2], bool)
    embeddings[0, 0, 1], embeddings[0, 1, 0], embeddings[0, 2] = np.nan, -np.inf, 0.0
    is_valid[1, 1:] = False  # one response
    is_valid[2] = False  # none
    embeddings[3, 2:] = 0.0
    embeddings[4] = 0.3  # all equal
    embeddings[5, 1:] = embeddings[5, :1]
    embeddings[6, 3] = embeddings[6, 5]
    embeddings[7] *= 1e38 / np.abs(embeddings[7]).max()
    embeddings[8, 0] = 1e-42
    rewards[9, :2] = np.nan
    pairs = select(strategy, metric, embeddings, is_valid, rewards)
    is_cosine, has_rewards = metric == "cosine", strategy.startswith("implicit")
    np.testing.assert_array_equal(
        pairs.num_unusable[:10], [2 + is_cosine, 0, 0, 5 * is_cosine, 0, 0, 0, 0, is_cosine, 2 * has_rewards]
    )
    np.testing.assert_array_equal(pairs.is_valid, ~np.isin(np.arange(SHAPE[0]), [1, 2]))
    assert np.all(np.isfinite(pairs.similarity)) and np.all(pairs.first < pairs.second)
    assert pairs.first[0] >= (3 if is_cosine else 2)
    if is_cosine:
        assert (pairs.first[3], pairs.second[3]) == (0, 1)
    if strategy in ("easy", "hard", "centroid"):  # equal embeddings: the first two
        np.testing.assert_array_equal(pairs.first[4:6], 0)
        np.testing.assert_array_equal(pairs.second[4:6], 1)
        np.testing.assert_allclose(pairs.similarity[4:6], 1.0 if is_cosine else 0.0)
    if strategy == "hard":
        assert (pairs.first[6], pairs.second[6]) == (3, 5)


def test_responses_that_are_nearly_alike_are_told_apart():
    """Cosines of about 1 - 1e-8 and 1 - 1e-7 are the same number in float32, or the next one."""
    rng = np.random.default_rng(0)
    steps = np.array([0.0, 1e-4, 3e-4])[:, None] * rng.normal(size=(SHAPE[0], 1, SHAPE[2]))
    embeddings = np.zeros(SHAPE, np.float32)
    embeddings[:, :3] = rng.normal(size=(SHAPE[0], 1, SHAPE[2])) + steps
    is_valid = np.tile(np.arange(SHAPE[1]) < 3, (SHAPE[0], 1))
    for metric in METRICS:
        easy = select("easy", metric, embeddings, is_valid, None)
        hard = select("hard", metric, embeddings, is_valid, None)
        np.testing.assert_array_equal([easy.first, easy.second], [[0] * 48, [2] * 48])
        np.testing.assert_array_equal([hard.first, hard.second], [[0] * 48, [1] * 48])


@pytest.mark.parametrize(
    ("strategy", "metric", "num_responses", "said"),
    [
        ("hardest", "cosine", 7, "strategy 'hardest' is not known; expected one of easy"),
        ("easy", "manhattan", 7, "metric 'manhattan'"),
        ("implicit_reward_gap_small", "cosine", 7, "needs implicit rewards"),
        ("easy", "cosine", 1, "at least 2 responses"),
    ],
)
def test_what_cannot_be_selected_is_said(strategy, metric, num_responses, said):
    embeddings, is_valid, _ = problems()
    with pytest.raises(UserError, match=said):
        select(strategy, metric, embeddings[:, :num_responses], is_valid[:, :num_responses], None)


SIMILARITIES = np.array([0.5, -0.2, 0.9, 0.1, 0.1, -1.0], np.float32)
GAPS = np.array([0.3, -0.1, -2.0, 0.0, 1.0, 9.0], np.float32)
HAS_PAIR = np.array([True] * 5 + [False])


def across(strategy, num_kept, similarities=SIMILARITIES, gaps=GAPS, seed=0):
    key = jax.random.key(seed)
    return select_across(strategy, similarities, gaps, num_kept, key=key, is_valid=HAS_PAIR)


@pytest.mark.parametrize("strategy,order", [
    ("easy", [1, 3, 4, 0, 2]),
    ("hard", [2, 0, 3, 4, 1]),
    ("implicit_reward_gap_small", [3, 1, 0, 4, 2]),
    ("implicit_reward_gap_large", [2, 4, 0, 1, 3]),
])  # fmt: skip
def test_across_prompts_by_hand(strategy, order):
    for num_kept in (1, 3, 5):
        np.testing.assert_array_equal(across(strategy, num_kept), order[:num_kept])


def test_random_prompts_are_uniform():
    chosen = np.concatenate([across("random", 2, seed=seed) for seed in range(400)])
    assert set(chosen) == {0, 1, 2, 3, 4}
    assert scipy.stats.chisquare(np.bincount(chosen)).pvalue > 1e-3
    np.testing.assert_array_equal(across("random", 5)[:2], across("random", 2))


@pytest.mark.parametrize(
    ("strategy", "num_kept", "gaps", "said"),
    [
        ("centroid", 2, GAPS, "'centroid' selects within a prompt"),
        ("easy", 6, GAPS, "5 of 6 prompts have a pair"),
        ("implicit_reward_gap_small", 2, None, "needs implicit reward gaps"),
        ("implicit_reward_gap_large", 2, [0.3, np.nan, 1, 2, 3, 4], "prompt 1: the implicit reward gap is nan"),
    ],
)
def test_what_cannot_be_selected_across_is_said(strategy, num_kept, gaps, said):
    with pytest.raises(UserError, match=said):
        across(strategy, num_kept, gaps=gaps)
