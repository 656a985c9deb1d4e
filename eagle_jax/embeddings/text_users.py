"""Users as their ratings of *texts* tell them: a random-effects model over what E_D says.

    r_ui - mu - b_i = a_u + <z_u, z_i> + noise,    (z_u, a_u) ~ N(0, S),    noise ~ N(0, s^2)

with z_i = E_D(text of i), S and s^2 by EM (Laird and Ware 1982) and z_u the posterior mean,

    C_u = (X_u'X_u / s^2 + S^-1)^-1,    (z_u, a_u) = C_u X_u'y_u / s^2,    rows of X_u: (z_i, 1)
    S = mean_u (m_u m_u' + C_u),        s^2 = mean_ui ((y - x'm_u)^2 + x'C_u x).

WALS' own z_u belong to WALS' z_i. E_D tells a part of these, more along some directions than along
others; users fitted to E_D's put their weight where texts say something, and S says how much taste
there is along each direction, in place of one penalty for all.

Axis letters: `N` items, `U` users, `d` width, `R` ratings.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from eagle_jax.data.catalogue import RatingTable

_FIRST_VARIANCE = 0.01  # of S, in units of rating over embedding; EM forgets it
_LEAST_VARIANCE = 1e-8


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TasteModel:
    """The model with S and s^2 as fitted: what new users are folded in by."""

    item_embeddings: np.ndarray  # [N, d], E_D of the items' texts
    item_bias: np.ndarray  # [N], mu + b_i, in the unit of the ratings
    prior: np.ndarray  # S [d + 1, d + 1]
    noise: float  # s^2

    def fold_in(self, ratings: RatingTable) -> tuple[np.ndarray, np.ndarray]:
        """z_u [U, d] and a_u [U] of the users of these ratings, 0 for one without any."""
        moments = _moments(ratings, self.item_embeddings, self.item_bias)
        means, _ = _posterior(*moments[:2], self.prior, self.noise)
        return means[:, :-1], means[:, -1]


def fit_taste(
    ratings: RatingTable, item_embeddings: np.ndarray, item_bias: np.ndarray, num_iterations: int = 20
) -> TasteModel:
    """S and s^2 of `ratings` given E_D of all items [N, d] and mu + b_i [N], by EM from a small S.

    The likelihood never falls from one iteration to the next. Users without ratings say nothing of S.
    """
    gram, moment, square, count = _moments(ratings, item_embeddings, item_bias)
    rated = count > 0
    gram, moment = gram[rated], moment[rated]
    size = gram.shape[1]
    # Directions of E_D have their own scale: the first S is the same in each of them.
    scale = np.append(np.maximum(np.asarray(item_embeddings, np.float64).std(axis=0), 1e-6), 1.0)
    prior, noise = _FIRST_VARIANCE * np.diag(1 / scale**2), square / count.sum()
    for _ in range(num_iterations):
        means, covariances = _posterior(gram, moment, prior, noise)
        second = np.einsum("ui,uj->uij", means, means) + covariances
        residual = square - 2 * np.sum(means * moment) + np.sum(second * gram)
        prior = second.mean(axis=0) + _LEAST_VARIANCE * np.eye(size)
        noise = residual / count.sum()
    return TasteModel(
        item_embeddings=np.asarray(item_embeddings), item_bias=np.asarray(item_bias), prior=prior, noise=float(noise)
    )


def _moments(
    ratings: RatingTable, item_embeddings: np.ndarray, item_bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """X'X [U, d + 1, d + 1], X'y [U, d + 1], y'y and the ratings' count [U], float64."""
    rows = np.concatenate([np.asarray(item_embeddings, np.float64), np.ones((len(item_embeddings), 1))], axis=1)
    order = np.argsort(ratings.user_index, kind="stable")
    ends = np.searchsorted(ratings.user_index[order], np.arange(ratings.num_users + 1))
    target = ratings.rating.astype(np.float64) - item_bias[ratings.item_index]
    size = rows.shape[1]
    gram, moment = np.zeros((ratings.num_users, size, size)), np.zeros((ratings.num_users, size))
    for user in range(ratings.num_users):
        mine = order[ends[user] : ends[user + 1]]
        own = rows[ratings.item_index[mine]]
        gram[user], moment[user] = own.T @ own, own.T @ target[mine]
    return gram, moment, float(target @ target), np.diff(ends)


def _posterior(gram: np.ndarray, moment: np.ndarray, prior: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Means [U, d + 1] and covariances [U, d + 1, d + 1]."""
    covariances = np.linalg.inv(gram / noise + np.linalg.inv(prior)[None])
    return np.einsum("uij,uj->ui", covariances, moment) / noise, covariances
