"""PAL from pairs beside WALS from ratings, at equal amounts of feedback of users of known taste.

A row of the outcome is one method on one group of users, seen ones or new ones of whom `num_feedback`
ratings or pairs are known, with the accuracy on held-out pairs of every user of the group.

Axis letters: `N` films, `F` features, `U` users.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.settings import setting, settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.data.minilens import grammar
from eagle_jax.embeddings.text_users import fit_taste
from eagle_jax.embeddings.wals import WALSSettings, fit_wals, fold_in_users
from eagle_jax.studies.people.ideal_points import PalSettings, UserPairs, fit_new_users, fit_pal, pal_rewards
from eagle_jax.studies.people.tastes import (
    People,
    TasteSettings,
    answer_pairs,
    expected_accuracy,
    first_of_each,
    rate_films,
    show_pairs,
)

STATES, READ_SLOTS = "text states", "slots read from the text"
WALS, WALS_PRIOR, PAL, PAL_PLAIN, KNOWN = (
    "WALS",
    "WALS, prior of tastes",
    "PAL",
    "PAL, weights alone",
    "the known taste",
)
SEEN, NEW = "seen", "new"


@settings
class PairRewardSettings:
    """The first part: rewards of pairs and of ratings."""

    tastes: TasteSettings
    features: str = setting("Of the films' texts: minilens/<role> or a folder of a model.")
    pal: PalSettings
    num_prototypes: tuple[int, ...] = setting("K, each a fit; 1 is one reward for all.", at_least=1, distinct=True)
    logit_penalty: float = setting("That draws users to their mean, in nats.", at_least=0)
    wals: WALSSettings
    num_feedback: tuple[int, ...] = setting("Of new users.", at_least=1, distinct=True)


def unit_variance(features: np.ndarray) -> np.ndarray:
    """Features [N, F] of mean 0 and variance 1 over films; those that do not vary are left out. float32."""
    scale = features.std(axis=0)
    varying = scale > 1e-6
    return ((features - features.mean(axis=0)) / np.where(varying, scale, 1.0))[:, varying].astype(np.float32)


def slot_features(films: Sequence[str]) -> np.ndarray:
    """What the grammar reads from told films: a column for each value of each slot, 1 where it is told. [N, F]."""
    values = list(grammar.word_values().values())
    columns = {value: column for column, value in enumerate(dict.fromkeys(values))}
    features = np.zeros((len(films), len(columns)), np.float32)
    for row, film in enumerate(films):
        features[row, [columns[value] for value in grammar.parse_film(film).items()]] = 1.0
    return features


def measure_pair_rewards(
    people: People, features: Mapping[str, np.ndarray], settings: PairRewardSettings, seed: int, stage: StageFolder
) -> list[dict[str, Any]]:
    """All rows; what is done is kept when interrupted. features: [N, F] by name."""
    study = _Study(people, settings, seed)
    fits = [(name, count) for name in features for count in settings.num_prototypes]
    rows = stage.chunk(0, lambda: list(study.ratings()))
    for index, (name, count) in enumerate(progress(fits, len(fits), "PAL", "fit"), start=1):
        rows += stage.chunk(index, lambda name=name, count=count: list(study.pairs(name, features[name], count)))
    return rows


class _Study:
    """What everybody says, drawn once for all methods."""

    def __init__(self, people: People, settings: PairRewardSettings, seed: int):
        self.settings, self.seed = settings, seed
        tastes = settings.tastes
        split = people.num_seen
        self.affinity = {SEEN: people.affinity[:split], NEW: people.affinity[split:]}
        counts = {SEEN: tastes.feedback_per_seen_user, NEW: max(settings.num_feedback)}
        rng = np.random.default_rng(derive_seed(seed, 0))
        self.test: dict[str, UserPairs] = {}
        self.said_pairs: dict[str, UserPairs] = {}
        self.said_ratings: dict[str, RatingTable] = {}
        for group, affinity in self.affinity.items():
            self.test[group] = show_pairs(affinity, tastes.num_test_pairs, rng)
            self.said_pairs[group] = answer_pairs(affinity, counts[group], tastes.pair_temperature, rng)
            self.said_ratings[group] = rate_films(affinity, counts[group], tastes.rating_noise, rng)

    def ratings(self) -> Iterator[dict[str, Any]]:
        """The known taste, and both ways to fold users into WALS."""
        for group, affinity in self.affinity.items():
            yield self._row(KNOWN, group, affinity, None)
        wals = self.settings.wals
        output = fit_wals(self.said_ratings[SEEN], wals, jax.random.key(derive_seed(self.seed, 1)))
        items, bias = np.asarray(output.item_embeddings), np.asarray(output.item_bias)
        tastes = fit_taste(self.said_ratings[SEEN], items, np.asarray(output.global_bias) + bias)
        folds = {
            WALS: lambda ratings: fold_in_users(output, ratings, wals)[0],
            WALS_PRIOR: lambda ratings: tastes.fold_in(ratings)[0],
        }
        for method, fold_in in folds.items():
            for group, count in self._amounts():
                said = self.said_ratings[group]
                users = np.asarray(fold_in(said.take(first_of_each(said.user_index, count))))
                yield self._row(method, group, users @ items.T + bias, count)

    def pairs(self, name: str, features: np.ndarray, num_prototypes: int) -> Iterator[dict[str, Any]]:
        """PAL with K prototypes; new users with the penalty and, as in the paper, without."""
        settings, told = self.settings, jnp.asarray(features)
        key = jax.random.key(derive_seed(self.seed, 2, num_prototypes))
        seen, new = self.said_pairs[SEEN], self.said_pairs[NEW]
        num_users = {group: len(affinity) for group, affinity in self.affinity.items()}
        fit = fit_pal(told, seen, num_users[SEEN], num_prototypes, settings.logit_penalty, settings.pal, key)
        about = {"features": name, "num_prototypes": num_prototypes}
        amount = settings.tastes.feedback_per_seen_user
        yield self._row(PAL, SEEN, pal_rewards(fit.params, told), amount, **about)
        for count in settings.num_feedback:
            known = first_of_each(new.user, count)
            for method, penalty in ((PAL, settings.logit_penalty), (PAL_PLAIN, 0.0)):
                params = fit_new_users(fit.params, told, new, known, num_users[NEW], penalty, settings.pal)
                yield self._row(method, NEW, pal_rewards(params, told), count, **about)

    def _amounts(self) -> Iterator[tuple[str, int]]:
        yield SEEN, self.settings.tastes.feedback_per_seen_user
        yield from ((NEW, count) for count in self.settings.num_feedback)

    def _row(
        self, method: str, group: str, scores: Any, num_feedback: int | None,
        features: str | None = None, num_prototypes: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        temperature = self.settings.tastes.pair_temperature
        accuracy = expected_accuracy(np.asarray(scores), self.affinity[group], self.test[group], temperature)
        return {
            "method": method,
            "features": features,
            "num_prototypes": num_prototypes,
            "group": group,
            "num_feedback": num_feedback,
            "accuracy": np.round(accuracy, 6).tolist(),
        }
