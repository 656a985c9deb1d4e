"""E_D, text to domain embedding (crosses the border): features of texts and a regression head.

Axis letters: `N` texts, `F` features, `d` domain width, `U` users.

Tennenholtz et al. 2024 fine-tune a language model with an L2 head onto behavioral embeddings; here
`features_fn(texts) -> [N, F]` is passed in (the features of a language model, or of anything else)
and the head is fitted to it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from eagle_jax.embeddings.rank_correlation import spearman
from eagle_jax.embeddings.regression_head import HeadFit, RegressionHead, apply_regression_head

FeaturesFn = Callable[[Sequence[str]], np.ndarray]
_ROWS = 256


def in_pieces(fn: Callable[..., Any], *arrays: np.ndarray) -> Any:
    """NumPy fn(*arrays), arrays [B, ...], computed so many rows at a time (padded) that it is compiled once."""
    padded = [np.pad(array, ((0, -len(array) % _ROWS), (0, 0))) for array in arrays]
    starts = range(0, len(padded[0]), _ROWS)
    pieces = [fn(*(array[start : start + _ROWS] for array in padded)) for start in starts]
    return jax.tree.map(lambda *column: np.concatenate(column)[: len(arrays[0])], *pieces)


class DomainEncoder:
    """E_D: texts -> domain embeddings [N, d]; `validation_errors` as in HeadFit."""

    def __init__(self, features_fn: FeaturesFn, fit: HeadFit):
        self._features_fn = features_fn
        self._fit = fit
        self.validation_errors = np.asarray(fit.validation_errors)

    @property
    def dim(self) -> int:
        """Width of the domain embeddings."""
        return self._fit.head.layers[-1][1].shape[0]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> [N, d] float32; raises ValueError where features are not finite."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return self.embed_features(self.features(texts))

    def features(self, texts: Sequence[str]) -> np.ndarray:
        """What E_D reads of texts [N, F]; raises ValueError where features are not finite."""
        return compute_features(self._features_fn, texts)

    def embed_features(self, features: np.ndarray) -> np.ndarray:
        """Features [N, F] -> [N, d], for callers that keep the features of their texts."""
        return in_pieces(partial(apply_regression_head, self._fit.head), features)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything but `features_fn`, for an .npz file."""
        return head_arrays(self._fit)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], features_fn: FeaturesFn) -> "DomainEncoder":
        """The inverse of `to_arrays`, with the `features_fn` it was fitted with."""
        return cls(features_fn, read_head_fit(arrays))


def head_arrays(fit: HeadFit) -> dict[str, np.ndarray]:
    """A fitted head, for an .npz file."""
    head = fit.head
    arrays = {
        "feature_mean": head.feature_mean,
        "feature_scale": head.feature_scale,
        "validation_errors": fit.validation_errors,
    }
    for index, (weights, bias) in enumerate(head.layers):
        arrays |= {f"weights_{index}": weights, f"bias_{index}": bias}
    return {name: np.asarray(array) for name, array in arrays.items()}


def read_head_fit(arrays: Mapping[str, np.ndarray]) -> HeadFit:
    """The inverse of `head_arrays`."""
    num_layers = sum(name.startswith("weights_") for name in arrays)
    layers = tuple((arrays[f"weights_{i}"], arrays[f"bias_{i}"]) for i in range(num_layers))
    head = RegressionHead(arrays["feature_mean"], arrays["feature_scale"], layers)
    return HeadFit(head, arrays["validation_errors"])


def compute_features(features_fn: FeaturesFn, texts: Sequence[str]) -> np.ndarray:
    """features_fn(texts) as float32 [N, F]; raises ValueError on a wrong shape, NaN or infinity."""
    features = np.asarray(features_fn(texts), np.float32)
    if features.ndim != 2 or len(features) != len(texts):
        raise ValueError(f"features_fn gave shape {features.shape} for {len(texts)} texts")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        index = int(np.argmin(finite))
        raise ValueError(f"features of text {index} are not finite: {texts[index][:80]!r}")
    return features


class EncoderQuality(NamedTuple):
    """How well E_D reproduces behavioral embeddings of entities it has not seen."""

    relative_error: float  # sqrt(sum ||E_D - z||^2 / sum ||z||^2)
    r_squared: float  # 1 - sum ||E_D - z||^2 / sum ||z - mean z||^2
    rank_correlation: float  # of <z_u, E_D> with <z_u, z> over entities, Spearman, mean over users


def encoder_quality(domain_embeddings: np.ndarray, targets: np.ndarray, user_embeddings: np.ndarray) -> EncoderQuality:
    """Compare E_D of held-out texts [N, d] with their behavioral embeddings [N, d].

    `user_embeddings` [U, d] give the rank correlation; a constant utility of a user counts as 0.
    """
    embedded, targets, users = (
        np.asarray(array, np.float64) for array in (domain_embeddings, targets, user_embeddings)
    )
    error = np.sum((embedded - targets) ** 2)
    return EncoderQuality(
        relative_error=float(np.sqrt(error / np.sum(targets**2))),
        r_squared=float(1 - error / np.sum((targets - targets.mean(axis=0)) ** 2)),
        rank_correlation=float(spearman(users @ embedded.T, users @ targets.T).mean()),
    )
