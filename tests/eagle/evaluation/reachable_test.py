"""Beam search against brute force, and the laws of a lower bound."""

import itertools

import numpy as np
import pytest

from eagle_jax.data.minilens import grammar
from eagle_jax.data.minilens.grammar import GrammarOracle, draw_telling, num_values, parse_film, tell_film
from eagle_jax.eagle.evaluation.reachable import best_reachable_utility
from eagle_jax.embeddings.utility import UtilityTerms

USERS = np.array([0, 1, 2])


class LetterOracle:
    """A text is three letters of abcd; an edit replaces one of them."""

    def single_edits(self, text):
        return [text[:i] + c + text[i + 1 :] for i in range(3) for c in "abcd" if c != text[i]]


def letter_score(texts, users):
    """A table of random utilities with no structure at all: beams can be led astray."""
    table = np.random.default_rng(5).normal(size=(3, 4, 4, 4))
    places = [tuple("abcd".index(c) for c in text) for text in texts]
    utility = np.array([table[u][p] for u, p in zip(users, places, strict=True)])
    return UtilityTerms(utility, utility, utility, utility)


def brute_force(start, user, horizon):
    oracle, reached = LetterOracle(), {start}
    for _ in range(horizon):
        reached |= set(itertools.chain.from_iterable(map(oracle.single_edits, reached)))
    return max(letter_score(sorted(reached), [user] * len(reached)).utility)


def search(starts, horizon, beam_width, score_fn=letter_score):
    return best_reachable_utility(starts, USERS[: len(starts)], LetterOracle(), score_fn, horizon, beam_width)


@pytest.mark.parametrize("horizon", [0, 1, 2, 3])
def test_a_beam_as_wide_as_the_world_finds_the_best(horizon):
    starts = ["aaa", "bcd", "dda"]
    expected = [brute_force(s, u, horizon) for s, u in zip(starts, USERS, strict=True)]
    np.testing.assert_allclose(search(starts, horizon, beam_width=64), expected)


def test_a_narrow_beam_is_a_lower_bound_that_grows_with_width_and_depth():
    starts = ["aaa", "bcd", "dda"]
    widths = [search(starts, 2, width) for width in (1, 2, 64)]
    assert (widths[0] <= widths[1]).all() and (widths[1] <= widths[2]).all()
    depths = [search(starts, horizon, 1) for horizon in range(4)]
    for shallow, deep in itertools.pairwise(depths):
        assert (shallow <= deep).all()


def test_a_start_does_not_depend_on_the_others():
    alone = search(["aaa"], 2, 2)
    np.testing.assert_array_equal(search(["aaa", "bcd"], 2, 2)[:1], alone)


def test_every_depth_is_one_batch_and_no_text_is_scored_twice():
    batches = []

    def counting(texts, users):
        batches.append(list(zip(texts, users.tolist(), strict=True)))
        return letter_score(texts, users)

    search(["aaa", "bcd"], 2, 4, counting)
    asked = list(itertools.chain.from_iterable(batches))
    assert len(batches) == 3  # depths 0, 1, 2
    assert len(asked) == len(set(asked))


def test_a_text_that_the_world_cannot_edit_keeps_its_own_utility():
    class Mute:
        def single_edits(self, text):
            return []

    best = best_reachable_utility(["aaa"], USERS[:1], Mute(), letter_score, 3, 2)
    np.testing.assert_allclose(best, letter_score(["aaa"], [0]).utility)
    with pytest.raises(ValueError, match="beam_width"):
        search(["aaa"], 1, 0)


def test_on_minilens_an_additive_utility_reaches_the_sum_of_its_best_edits():
    """With a utility that adds up over slots, the best of 2 edits are the 2 best single ones."""
    rng = np.random.default_rng(0)
    worth = {slot: rng.normal(size=num_values(slot)) for slot in grammar.SLOTS}

    def score(texts, users):
        films = [parse_film(text) for text in texts]
        utility = np.array([sum(worth[s][v] for s, v in film.items()) for film in films])
        return UtilityTerms(utility, utility, utility, utility)

    film = {slot: int(rng.integers(num_values(slot))) for slot in grammar.SLOTS}
    text = tell_film(draw_telling(film, "a", rng))
    gains = sorted((worth[slot].max() - worth[slot][film[slot]] for slot in film), reverse=True)
    best = best_reachable_utility([text], np.array([0]), GrammarOracle(), score, 2, 1)
    np.testing.assert_allclose(best, score([text], [0]).utility + sum(gains[:2]))
