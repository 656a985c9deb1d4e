"""Where in the embedding space users want more than a catalogue has, against texts that could as well be in it.

A user wants the texts of the best `wanted_share` of all imagined ones, by <z_u, E_D(x)>. With w(x) the share of users
who want x, a ball B around an imagined text has, in items per user,

    demand(B) = N * mean over imagined x of w(x) [x in B],    supply(B) = sum over the N items of w(x) [x in B],

and what is unmet is their difference: of the items that users would want of a catalogue of N, drawn as the imagined
texts are, so many are not there. A ball holds `region_share` of the imagined texts, and two texts are as far apart as
users' predicted ratings of them differ: |x - y|^2 = mean over users of <z_u, x - y>^2.

By chance: catalogues of N are drawn from the imagined texts, and these drawn anew, for they are a sample as well. What
is unmet in a ball in these draws has a standard deviation, in which unmet demand is compared from ball to ball. The
largest of all balls in each draw is what a complete catalogue shows; the rank of a ball's own among these holds for
all balls at once (Westfall and Young 1993, section 2.3).

Axis letters: `N` items, `M` imagined texts, `U` users, `C` balls, `R` draws, `d` domain width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eagle_jax.eagle.gaps.settings import GapSettings

_USERS = 1000  # looked at at once


class Wants(NamedTuple):
    """From which <z_u, x> on a user wants a text [U], and the share of users who want each [M], [N]."""

    thresholds: np.ndarray
    of_imagined: np.ndarray
    of_items: np.ndarray


class Balls(NamedTuple):
    """By ball [C]: the place of its centre among the imagined texts, its radius, and what `unmet_demand` says of it.

    deviation: standard deviation of what is unmet by chance. chance: share of complete catalogues in which some ball
    lacks as much, in its own deviations.
    """

    center: np.ndarray
    radius: np.ndarray
    demand: np.ndarray
    supply: np.ndarray
    num_items: np.ndarray
    deviation: np.ndarray
    chance: np.ndarray

    @property
    def unmet(self) -> np.ndarray:
        """[C], in items per user."""
        return self.demand - self.supply

    @property
    def excess(self) -> np.ndarray:
        """[C], what is unmet in deviations of chance."""
        return self.unmet / self.deviation


def by_ratings(users: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Embeddings [B, d] in coordinates whose distances are those of predicted ratings, of users [U, d]."""
    second_moment = users.T.astype(np.float64) @ users / len(users)
    values, vectors = np.linalg.eigh(second_moment)
    return embeddings @ (vectors * np.sqrt(np.maximum(values, 0)))


def wants(users: np.ndarray, imagined: np.ndarray, items: np.ndarray, share: float) -> Wants:
    """Of users [U, d], for imagined texts [M, d] and items [N, d]."""
    thresholds, of_imagined, of_items = [], np.zeros(len(imagined)), np.zeros(len(items))
    for start in range(0, len(users), _USERS):
        some = users[start : start + _USERS]
        promised = some @ imagined.T
        least = np.quantile(promised, 1 - share, axis=1)
        thresholds.append(least)
        of_imagined += (promised >= least[:, None]).sum(axis=0)
        of_items += (some @ items.T >= least[:, None]).sum(axis=0)
    return Wants(np.concatenate(thresholds), of_imagined / len(users), of_items / len(users))


def as_wide(users: np.ndarray, imagined: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Imagined texts [M, d] drawn in around their mean until users' predicted ratings of them vary as those of items
    [N, d] do.

    An environment tells texts in its own manner, and embeddings of one manner spread otherwise than those of another.
    A missing region narrows the items as well, but in one direction, and this is one number for all.
    """
    spread_items, spread = (by_ratings(users, of).var(axis=0).sum() for of in (items, imagined))
    mean = imagined.mean(axis=0)
    return mean + np.sqrt(spread_items / spread) * (imagined - mean)


def unmet_demand(wanted: Wants, points: np.ndarray, of_items: np.ndarray, settings: GapSettings) -> Balls:
    """Of what users want of imagined texts and of items; points [M, d], of_items [N, d]: these, as `by_ratings` has
    them."""
    rng = np.random.default_rng(settings.seed)
    center = np.sort(rng.permutation(len(points))[: settings.num_centers])
    distances = distances_between(points[center], points)
    radius = np.quantile(distances, settings.region_share, axis=1)
    inside = (distances <= radius[:, None]).astype(np.float32) * wanted.of_imagined.astype(np.float32)
    holds = distances_between(points[center], of_items) <= radius[:, None]
    demand, supply = len(of_items) * inside.mean(axis=1), holds @ wanted.of_items
    by_chance = _by_chance(inside, len(of_items), settings.num_draws, rng)
    deviation = np.maximum(by_chance.std(axis=0), np.finfo(np.float32).tiny)
    largest = (by_chance / deviation).max(axis=1)
    reached = largest[None] >= ((demand - supply) / deviation)[:, None]
    chance = (1 + reached.sum(axis=1)) / (1 + len(largest))
    return Balls(center, radius, demand, supply, holds.sum(axis=1), deviation, chance)


def _by_chance(inside: np.ndarray, num_items: int, num_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Unmet demand of each ball where a catalogue lacks nothing [R, C]; inside: w(x) [x in B] of imagined texts."""
    count = inside.shape[1]
    evenly = np.full(count, 1 / count)
    drawn = [
        num_items / count * rng.multinomial(count, evenly) - rng.multinomial(num_items, evenly)
        for _ in range(num_draws)
    ]
    return np.float32(drawn) @ inside.T


def distances_between(centers: np.ndarray, points: np.ndarray) -> np.ndarray:
    """[C, B] of centres [C, d] and points [B, d]."""
    squared = (centers**2).sum(axis=1)[:, None] + (points**2).sum(axis=1) - 2 * centers @ points.T
    return np.sqrt(np.maximum(squared, 0))


def largest_apart(balls: Balls, points: np.ndarray, count: int) -> list[int]:
    """Which balls lack most in deviations of chance, the most first, no centre inside a ball before; points: all
    imagined [M, d], as `by_ratings` has them. Balls that lack nothing are left out."""
    chosen: list[int] = []
    for ball in np.argsort(-balls.excess, kind="stable"):
        if len(chosen) == count or balls.unmet[ball] <= 0:
            break
        center = points[balls.center[ball]]
        if all(np.linalg.norm(center - points[balls.center[other]]) > balls.radius[other] for other in chosen):
            chosen.append(int(ball))
    return chosen
