"""How well E_D of unseen films orders users' real ratings: folds, features, heads, and a row's figures.

Apart from the command, whose flags can be defined once in a process only.

Axis letters: `N` films, `F` features, `U` users, `d` width, `R` ratings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from eagle_jax.data.catalogue import RatingTable
from eagle_jax.embeddings.domain_encoder import DomainEncoder
from eagle_jax.embeddings.rank_correlation import spearman_by_user
from eagle_jax.embeddings.regression_head import DomainEncoderSettings, fit_head
from eagle_jax.embeddings.text_users import fit_taste
from eagle_jax.embeddings.wals import WALSOutput, WALSSettings, rating_embeddings
from eagle_jax.reports.statistics import BootstrapSettings, bootstrap_interval

NUM_FOLDS = 5
MIN_RATINGS = 5  # of a film, and of a user's held-out ratings in a fold
HEAD = DomainEncoderSettings(
    head="ridge",
    validation_fraction=0.15,
    penalties=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
    hidden_width=64,
    dropout_rate=0.5,
    learning_rate=1e-3,
    weight_decay=0.1,
    batch_size=64,
    max_epochs=100,
    patience=10,
)
HEADS = ("ridge", "mlp", "boosting")
MEASURES = ("both", "taste", "bias", "both of WALS' users", "taste of WALS' users")
_BOOTSTRAP = BootstrapSettings(num_resamples=2000, confidence=0.95, seed=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What is compared: fields of the text, features of it, the head and WALS' width."""

    fields: str
    features: str
    head: str = "ridge"
    width: int = 16

    @property
    def name(self) -> str:
        """Of its files."""
        return "-".join(map(str, dataclasses.astuple(self))).replace(" ", "_").replace(",", "")


def wals_settings(width: int) -> WALSSettings:
    """Those of experiments/configs/eagle_movielens.py."""
    return WALSSettings(
        dim=width,
        num_iterations=20,
        bias="user_item",
        observed_weight=1.0,
        unobserved_weight=0.0,
        regularization=1.4,
        regularization_scaling=0.5,
        bias_regularization=2.0,
    )


def folds(num_films: int, seed: int) -> np.ndarray:
    """The fold of each film [N]."""
    return np.random.default_rng(seed).permutation(num_films) % NUM_FOLDS


def tfidf(texts: Sequence[str], width: int, seed: int) -> np.ndarray:
    """Words' weights, by scikit-learn, on their leading directions [N, width]; fitted to texts alone."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    weights = TfidfVectorizer(sublinear_tf=True, min_df=3, stop_words="english").fit_transform(texts)
    return TruncatedSVD(width, random_state=seed).fit_transform(weights).astype(np.float32)


def predicted(head: str, features: np.ndarray, targets: np.ndarray, weights: np.ndarray, seed: int) -> np.ndarray:
    """Targets [N, d] of all films, by a head fitted to those of positive weight [N]."""
    known = np.flatnonzero(weights)
    if head == "boosting":
        return _boosted(features, targets, weights, known, seed)
    settings = dataclasses.replace(HEAD, head=head)
    fit = fit_head(features[known], targets[known], weights[known], settings, jax.random.key(seed))
    return DomainEncoder(_no_texts, fit).embed_features(features)


def _no_texts(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError("the features are there already")


def _boosted(features, targets, weights, known, seed) -> np.ndarray:
    """scikit-learn's histogram gradient boosting, a model for each coordinate: the yardstick."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    columns = []
    for target in targets.T:
        model = HistGradientBoostingRegressor(
            learning_rate=0.05, max_iter=150, max_leaf_nodes=8, l2_regularization=10.0, random_state=seed
        )
        columns.append(model.fit(features[known], target[known], weights[known]).predict(features))
    return np.stack(columns, axis=1)


def measured(
    ratings: RatingTable, is_training: np.ndarray, wals: WALSOutput, embeddings: np.ndarray
) -> dict[str, dict[int, float]]:
    """Measure -> user -> Spearman of predicted and given ratings of the films held out.

    is_training: of each rating. wals: fitted to these; embeddings: predicted [z_i, b_i] [N, d + 1].
    """
    train, test = ratings.take(np.flatnonzero(is_training)), ratings.take(np.flatnonzero(~is_training))
    width = embeddings.shape[1] - 1
    item_bias = float(wals.global_bias) + np.asarray(wals.item_bias, np.float64)
    users, _ = fit_taste(train, embeddings[:, :width], item_bias).fold_in(train)
    of_wals = np.asarray(rating_embeddings(wals)[0])
    taste, of_bias = (users - users.mean(axis=0), embeddings[:, width] + embeddings[:, :width] @ users.mean(axis=0))
    scores = {
        "both": np.column_stack([users, np.ones(len(users))]) @ embeddings.T,
        "taste": taste @ embeddings[:, :width].T,
        "bias": np.tile(of_bias, (len(users), 1)),
        "both of WALS' users": of_wals @ embeddings.T,
        "taste of WALS' users": of_wals[:, :width] @ embeddings[:, :width].T,
    }
    return {
        name: spearman_by_user(
            test.user_index, values[test.user_index, test.item_index], test.rating, min_ratings=MIN_RATINGS
        )
        for name, values in scores.items()
    }


def cells(of_folds: Sequence[Mapping[str, Mapping[int, float]]]) -> dict[str, Any]:
    """Measure -> mean over users and folds with a 95 % interval: users are resampled, folds stay together."""
    found = {}
    for name in of_folds[0]:
        pairs = [(user, value) for fold in of_folds for user, value in fold[name].items()]
        interval = bootstrap_interval(
            [value for _, value in pairs], _BOOTSTRAP, clusters=[str(user) for user, _ in pairs]
        )
        found[name] = interval.as_cell() | {
            "num_users": interval.num_clusters,
            "by_fold": [float(np.mean(list(fold[name].values()))) for fold in of_folds],
        }
    return found
