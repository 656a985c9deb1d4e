"""MiniLens users of known taste, and what they say of films: ratings and comparisons, equally noisy.

Every film is as likely to be shown as any other: what is compared is what is said, not what is seen.

Axis letters: `N` films, `U` users, `R` pairs, `L` latent width.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import expit

from eagle_jax.base.settings import setting, settings
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.data.minilens import grammar
from eagle_jax.data.minilens.world import (
    MEAN_STARS,
    STARS_PER_AFFINITY,
    USER_STARS,
    as_film,
    draw_films,
    draw_world,
    to_stars,
)
from eagle_jax.real.annotators import FIRST, simulated_answers
from eagle_jax.studies.people.ideal_points import UserPairs


@settings
class TasteSettings:
    """Who is asked about which films, and how well they answer."""

    num_films: int = setting("Which all users speak about.", at_least=2)
    num_seen_users: int = setting("From whom prototypes, maps and item embeddings are learned.", at_least=2)
    num_new_users: int = setting("Who come later, with little to say.", at_least=2)
    feedback_per_seen_user: int = setting("So many ratings, or so many pairs.", at_least=1)
    num_test_pairs: int = setting("Of each user, held out.", at_least=1)
    rating_noise: float = setting("Standard deviation.", at_least=0, unit="stars")
    pair_temperature: float = setting("Of Bradley and Terry's annotator.", above=0, unit="affinity")


@dataclasses.dataclass(frozen=True, kw_only=True)
class People:
    """films: told. affinity: [U, N], what every user truly thinks; the seen users come first."""

    films: tuple[str, ...]
    affinity: np.ndarray
    num_seen: int


def draw_people(settings: TasteSettings, seed: int) -> People:
    """Films and users drawn afresh from the one world."""
    rng = np.random.default_rng([seed, 0])
    world = draw_world()
    films = draw_films(settings.num_films, rng)
    tellings = [grammar.draw_telling(as_film(film), grammar.DIALECTS[int(rng.integers(2))], rng) for film in films]
    tastes = world.draw_tastes(settings.num_seen_users + settings.num_new_users, rng)
    return People(
        films=tuple(map(grammar.tell_film, tellings)),
        affinity=tastes @ world.film_vectors(films).T,
        num_seen=settings.num_seen_users,
    )


def give_stars(affinity: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """What every user [U, N] says of films by stars, each about an own mean."""
    mean = MEAN_STARS + USER_STARS * rng.standard_normal((len(affinity), 1))
    return to_stars(mean + STARS_PER_AFFINITY * affinity + noise * rng.standard_normal(affinity.shape))


def rate_films(affinity: np.ndarray, count: int, noise: float, rng: np.random.Generator) -> RatingTable:
    """`count` ratings of every user [U, N], of different films, in the order in which they were given."""
    num_users, num_films = affinity.shape
    items = np.stack([rng.permutation(num_films)[:count] for _ in range(num_users)])
    users = np.repeat(np.arange(num_users), count)
    rating = give_stars(np.take_along_axis(affinity, items, axis=1), noise, rng)
    return RatingTable(
        user_names=tuple(f"u{user}" for user in range(num_users)),
        item_names=tuple(f"f{film}" for film in range(num_films)),
        user_index=users.astype(np.int32),
        item_index=items.ravel().astype(np.int32),
        rating=rating.ravel(),
    )


def answer_pairs(affinity: np.ndarray, count: int, temperature: float, rng: np.random.Generator) -> UserPairs:
    """`count` pairs of two different films of every user [U, N], as Bradley and Terry's annotator answers."""
    shown = show_pairs(affinity, count, rng)
    users = np.repeat(np.arange(len(affinity)), count)
    gaps = affinity[users, shown.chosen] - affinity[users, shown.rejected]
    is_first = simulated_answers(gaps, temperature, rng) == FIRST
    return UserPairs(
        shown.user, np.where(is_first, shown.chosen, shown.rejected), np.where(is_first, shown.rejected, shown.chosen)
    )


def show_pairs(affinity: np.ndarray, count: int, rng: np.random.Generator) -> UserPairs:
    """`count` pairs of two different films for every user, in no order of preference; [U * count]."""
    num_users, num_films = affinity.shape
    first = rng.integers(num_films, size=num_users * count)
    second = rng.integers(num_films - 1, size=num_users * count)
    return UserPairs(np.repeat(np.arange(num_users), count), first, second + (second >= first))


def first_of_each(user: np.ndarray, count: int) -> np.ndarray:
    """Mask of the first `count` rows of every user, in the order given."""
    order = np.argsort(user, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(user))])[:-1]
    place = np.empty(len(user), int)
    place[order] = np.arange(len(user)) - starts[user[order]]
    return place < count


def expected_accuracy(scores: np.ndarray, affinity: np.ndarray, pairs: UserPairs, temperature: float) -> np.ndarray:
    """Of each user, the share of the answers to `pairs` that a scoring would foresee; [U].

    Expected over the annotator's answers, which takes their own noise out of the measure: where the
    scores [U, N] order a pair as the affinities do, sigmoid(gap / temperature), else 1 less that; a
    tie is a half. `pairs` has equally many of every user, in the order of users.
    """
    told = np.sign(scores[pairs.user, pairs.chosen] - scores[pairs.user, pairs.rejected])
    gaps = affinity[pairs.user, pairs.chosen] - affinity[pairs.user, pairs.rejected]
    foreseen = np.where(told == 0, 0.5, expit(told * gaps / temperature))
    return foreseen.reshape(len(affinity), -1).mean(axis=1)
