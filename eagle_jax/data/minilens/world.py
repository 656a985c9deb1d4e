"""The people of MiniLens: tastes, ratings with popularity and selection bias, tags, the catalogue.

A world is a set of value vectors, one for each value of each slot. A film's latent vector is the
weighted sum of its values' vectors plus something of its own; a user's is drawn around the
population's taste. The scale of `affinity` is one: its standard deviation over users and films.

Axis letters: `N` films, `U` users, `S` slots, `L` latent width.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from eagle_jax.base.settings import setting, settings
from eagle_jax.data.catalogue import Catalogue, Entity, RatingTable
from eagle_jax.data.minilens import grammar
from eagle_jax.data.prompts import MOVIE

_SLOT_WEIGHTS = {
    "genre": 1.4,
    "tone": 1.2,
    "setting": 0.8,
    "hero": 0.8,
    "conflict": 1.0,
    "theme": 1.0,
    "ending": 1.0,
    "style": 0.9,
    "music": 0.7,
    "excluded": 0.5,
}
WORLD_SEED = 2024  # the one world that the shipped language models know
# Stars of a film of affinity 0, of one more unit of affinity, and of users about the scale itself.
MEAN_STARS, STARS_PER_AFFINITY, USER_STARS = 3.3, 0.8, 0.35


@settings
class MiniLensSettings:
    """How much of the world is seen, and how."""

    seed: int = setting("Of films, users and ratings.", at_least=0)
    num_films: int = setting("Films in all.", at_least=1)
    num_users: int = setting("Users in all.", at_least=1)
    ratings_per_user: int = setting("The median.", at_least=1)
    rating_noise: float = setting("Standard deviation.", at_least=0, unit="stars")
    popularity_exponent: float = setting("0: all films are equally visible.", at_least=0)
    selection_strength: float = setting("How much users watch what they like, per unit of affinity.", at_least=0)


@dataclasses.dataclass(frozen=True)
class World:
    """Value vectors `[num_values, L]` by slot, and the population's mean taste `[L]`."""

    value_vectors: dict[str, np.ndarray]
    mean_taste: np.ndarray

    @property
    def latent_width(self) -> int:
        return len(self.mean_taste)

    def film_vectors(self, films: np.ndarray) -> np.ndarray:
        """Latent vectors [N, L] of films given as value indices [N, S]."""
        return sum(self.value_vectors[slot][films[:, s]] for s, slot in enumerate(grammar.SLOTS))

    def draw_tastes(self, num_users: int, rng: np.random.Generator) -> np.ndarray:
        """User latent vectors [U, L]."""
        return self.mean_taste + rng.standard_normal((num_users, self.latent_width))

    def value_affinity(self, taste: np.ndarray) -> dict[tuple[str, int], float]:
        """What a user thinks of each value."""
        return {
            (slot, value): float(score)
            for slot, vectors in self.value_vectors.items()
            for value, score in enumerate(vectors @ taste)
        }


@functools.cache
def draw_world(seed: int = WORLD_SEED, latent_width: int = 6) -> World:
    """Centred value vectors, scaled so that a film drawn at random has affinity variance one."""
    rng = np.random.default_rng(seed)
    scale = np.sqrt(latent_width * sum(w**2 for w in _SLOT_WEIGHTS.values()))
    vectors = {}
    for slot, weight in _SLOT_WEIGHTS.items():
        raw = rng.standard_normal((grammar.num_values(slot), latent_width))
        vectors[slot] = weight / scale * (raw - raw.mean(axis=0))
    return World(vectors, 0.4 * rng.standard_normal(latent_width))


def draw_films(num_films: int, rng: np.random.Generator) -> np.ndarray:
    """Films as value indices [N, S], no two the same."""
    films: dict[tuple[int, ...], None] = {}
    while len(films) < num_films:
        films[tuple(int(rng.integers(grammar.num_values(slot))) for slot in grammar.SLOTS)] = None
    return np.array(list(films))


def as_film(values: np.ndarray) -> dict[str, int]:
    return {slot: int(value) for slot, value in zip(grammar.SLOTS, values, strict=True)}


def draw_film(rng: np.random.Generator) -> dict[str, int]:
    return as_film(draw_films(1, rng)[0])


def films_by_rating(world: World, taste: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """40 to 89 films [N, S] that a user rated, from the highest rating to the lowest."""
    films = draw_films(int(rng.integers(40, 90)), rng)
    noise = 0.5 * rng.standard_normal(len(films))
    return films[np.argsort(-to_stars(MEAN_STARS + STARS_PER_AFFINITY * world.film_vectors(films) @ taste + noise))]


def to_stars(rating: np.ndarray) -> np.ndarray:
    """Half stars from 0.5 to 5."""
    return np.clip(np.round(2 * rating) / 2, 0.5, 5.0).astype(np.float32)


def make_catalogue(settings: MiniLensSettings) -> Catalogue:
    """Films told in both dialects, the ratings of users who see what is popular or to their taste,
    and tags that name a film's values."""
    rng = np.random.default_rng(settings.seed)
    world = draw_world()
    films = draw_films(settings.num_films, rng)
    entities = []
    for i, values in enumerate(films):
        film = as_film(values)
        telling = grammar.draw_telling(film, grammar.DIALECTS[int(rng.integers(2))], rng)
        title = grammar.title_of(film)
        description = grammar.tell_film(telling)
        entities.append(Entity(entity_id=f"f{i}", title=title, description=description))
    ratings = _draw_ratings(settings, world, films, rng)
    return Catalogue(
        name="minilens",
        entities=tuple(entities),
        ratings=ratings,
        tags=_draw_tags(films, ratings, rng),
        entity_format=MOVIE,
        oracle=grammar.GrammarOracle(),
    )


def _draw_ratings(settings: MiniLensSettings, world: World, films: np.ndarray, rng: np.random.Generator) -> RatingTable:
    noise = 0.2 * rng.standard_normal((len(films), world.latent_width))
    film_vectors = world.film_vectors(films) + noise / np.sqrt(world.latent_width)
    tastes = world.draw_tastes(settings.num_users, rng)
    affinity = tastes @ film_vectors.T  # [U, N]
    film_bias = 0.3 * rng.standard_normal(len(films))
    user_bias = USER_STARS * rng.standard_normal(settings.num_users)
    rank = rng.permutation(len(films)) + 1.0
    visibility = -settings.popularity_exponent * np.log(rank + 20.0) + 0.5 * film_bias
    rows = []
    for user in range(settings.num_users):
        count = settings.ratings_per_user * np.exp(0.5 * rng.standard_normal())
        count = int(np.clip(count, 20, len(films) // 2))
        # Gumbel top-k: films drawn without replacement in proportion to exp(score).
        score = visibility + settings.selection_strength * affinity[user]
        seen = np.argsort(-(score + rng.gumbel(size=len(films))))[:count]
        stars = MEAN_STARS + user_bias[user] + film_bias[seen] + STARS_PER_AFFINITY * affinity[user, seen]
        stars += settings.rating_noise * rng.standard_normal(count)
        rows.append((np.full(count, user), seen, to_stars(stars)))
    user_index, item_index, rating = (np.concatenate(column) for column in zip(*rows, strict=True))
    return RatingTable(
        user_names=tuple(f"u{i}" for i in range(settings.num_users)),
        item_names=tuple(f"f{i}" for i in range(len(films))),
        user_index=user_index.astype(np.int32),
        item_index=item_index.astype(np.int32),
        rating=rating,
    )


def _draw_tags(films: np.ndarray, ratings: RatingTable, rng: np.random.Generator) -> tuple[tuple[int, int, str], ...]:
    """One rating in ten leaves a tag: the name of one of the film's values."""
    tagged = np.flatnonzero(rng.random(len(ratings)) < 0.1)
    slots = rng.integers(len(grammar.SLOTS), size=len(tagged))
    tags = []
    for row, s in zip(tagged, slots, strict=True):
        user, item = int(ratings.user_index[row]), int(ratings.item_index[row])
        tags.append((user, item, grammar.LEXICON[grammar.SLOTS[s]][films[item, s]][0]))
    return tuple(tags)
