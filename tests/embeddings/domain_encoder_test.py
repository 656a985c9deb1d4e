"""E_D against scikit-learn's ridge, on a nonlinear toy world, and through its artifact."""

import dataclasses

import jax
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from eagle_jax.embeddings.domain_encoder import DomainEncoder, compute_features, encoder_quality
from eagle_jax.embeddings.regression_head import DomainEncoderSettings, fit_head

RIDGE = DomainEncoderSettings(
    head="ridge",
    validation_fraction=0.2,
    penalties=(0.01, 0.1, 1.0, 10.0),
    hidden_width=32,
    dropout_rate=0.1,
    learning_rate=0.01,
    weight_decay=0.01,
    batch_size=32,
    max_epochs=60,
    patience=60,
)
MLP = dataclasses.replace(RIDGE, head="mlp")


def _problem(seed, num_examples=60, num_features=9, noise=2.0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_examples, num_features)) * rng.uniform(0.1, 9, num_features) + 3
    features[:, 4] = 7.3  # a constant column
    targets = features @ rng.normal(size=(num_features, 3)) / 9 + 1
    return (features, targets + noise * rng.normal(size=targets.shape), rng.integers(1, 30, len(features)))


def _split(settings, key, num_examples):
    """The validation split that fit_head draws."""
    order = np.asarray(jax.random.permutation(jax.random.split(key)[0], num_examples))
    num_validation = round(settings.validation_fraction * num_examples)
    return order[num_validation:], order[:num_validation]


def _sklearn_ridge(features, targets, weights, penalty):
    mean = np.average(features, axis=0, weights=weights)
    scale = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weights))
    scale[scale < 1e-9] = 1
    # scikit-learn's sum of weighted squares is sum(weights) times the mean that we penalise.
    model = Ridge(alpha=penalty * weights.sum()).fit((features - mean) / scale, targets, weights)
    return lambda new: model.predict((new - mean) / scale)


def _relative_error(predicted, targets, weights):
    spread = targets - np.average(targets, axis=0, weights=weights)
    return (weights @ (targets - predicted) ** 2).sum() / (weights @ spread**2).sum()


@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_matches_scikit_learn_and_picks_the_best_penalty(weighted):
    features, targets, weights = _problem(0)
    weights = weights.astype(float) if weighted else np.ones(len(features))
    fit = fit_head(features, targets, weights, RIDGE, jax.random.key(1))
    training, validation = _split(RIDGE, jax.random.key(1), len(features))
    expected = []
    for penalty in RIDGE.penalties:
        predict = _sklearn_ridge(features[training], targets[training], weights[training], penalty)
        expected.append(_relative_error(predict(features[validation]), targets[validation], weights[validation]))
    np.testing.assert_allclose(fit.validation_errors, expected, rtol=1e-4)
    assert 0 < np.argmin(expected) < 3  # so that the choice is one
    best = RIDGE.penalties[int(np.argmin(expected))]
    predict = _sklearn_ridge(features, targets, weights, best)
    encoder = DomainEncoder(lambda texts: features, fit)
    np.testing.assert_allclose(encoder.embed_features(features), predict(features), atol=1e-3)


def test_more_features_than_examples():
    rng = np.random.default_rng(2)
    features, targets = rng.normal(size=(30, 80)), rng.normal(size=(30, 2))
    fit = fit_head(features, targets, np.ones(30), RIDGE, jax.random.key(0))
    assert np.all(np.isfinite(fit.validation_errors))


def test_mlp_learns_what_ridge_cannot():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(600, 4))
    targets = np.stack([features[:, 0] * features[:, 1], np.abs(features[:, 2])], axis=1)
    weights = np.ones(600)
    ridge = fit_head(features, targets, weights, RIDGE, jax.random.key(0))
    mlp = fit_head(features, targets, weights, MLP, jax.random.key(0))
    assert np.min(ridge.validation_errors) > 0.9
    assert np.nanmin(mlp.validation_errors) < 0.35


def test_mlp_stops_early_and_keeps_the_best_epoch():
    rng = np.random.default_rng(4)
    features, targets = rng.normal(size=(80, 30)), rng.normal(size=(80, 2))  # nothing to learn
    settings = dataclasses.replace(MLP, patience=4)
    fit = fit_head(features, targets, np.ones(80), settings, jax.random.key(0))
    errors = np.asarray(fit.validation_errors)
    num_epochs = int(np.isfinite(errors).sum())
    best = int(np.nanargmin(errors))
    assert num_epochs == best + 1 + settings.patience < settings.max_epochs
    _, validation = _split(settings, jax.random.key(0), 80)
    predicted = DomainEncoder(lambda texts: features, fit).embed_features(features[validation])
    error = _relative_error(predicted, targets[validation], np.ones(len(validation)))
    np.testing.assert_allclose(error, errors[best], rtol=1e-4)


def _letter_counts(texts):
    """A five-line stand-in for a language model's features."""
    return np.array([[text.count(letter) for letter in "abcdefgh"] for text in texts], np.float32)


def _texts(seed, num_texts=500):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abcdefgh"), 12)) for _ in range(num_texts)]


def _fitted(texts, targets, settings, weights=None):
    weights = np.ones(len(texts)) if weights is None else weights
    fit = fit_head(_letter_counts(texts), targets, weights, settings, jax.random.key(0))
    return DomainEncoder(_letter_counts, fit)


@pytest.mark.parametrize("settings", [RIDGE, MLP])
def test_encoder_of_texts_and_its_artifact(tmp_path, settings):
    texts, unseen = _texts(0), _texts(1, num_texts=300)
    mixing = np.random.default_rng(5).normal(size=(8, 3)) + 0.5
    encoder = _fitted(texts, _letter_counts(texts) @ mixing, settings)
    embedded = encoder(unseen)
    assert embedded.shape == (300, 3) and embedded.dtype == np.float32 and encoder.dim == 3
    quality = encoder_quality(embedded, _letter_counts(unseen) @ mixing, np.eye(3))
    assert quality.r_squared > 0.9 and quality.rank_correlation > 0.9
    np.savez(tmp_path / "encoder.npz", **encoder.to_arrays())
    with np.load(tmp_path / "encoder.npz", allow_pickle=False) as arrays:
        loaded = DomainEncoder.from_arrays(arrays, _letter_counts)
    np.testing.assert_array_equal(loaded(unseen), embedded)
    np.testing.assert_array_equal(loaded.validation_errors, encoder.validation_errors)
    np.testing.assert_array_equal(encoder(unseen[:1]), embedded[:1])  # whatever the batch
    assert encoder([]).shape == (0, 3)


def test_quality_by_hand():
    targets = np.array([[2.0, 0.0], [0.0, 0.0], [1.0, 3.0]])
    embedded = np.array([[2.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    users = np.array([[1.0, 0.0], [0.0, 1.0]])
    # Squared error 1 + 4 = 5; of the targets 4 + 10 = 14; about their mean (1, 1): 2 + 2 + 4 = 8.
    # User 0 ranks alike: 1. User 1 ranks (1.5, 1.5, 3) and (2.5, 1, 2.5), in deviations
    # (-.5, -.5, 1) and (.5, -1, .5): (-.25 + .5 + .5) / sqrt(1.5 * 1.5) = 0.5.
    quality = encoder_quality(embedded, targets, users)
    np.testing.assert_allclose(quality.relative_error, np.sqrt(5 / 14))
    np.testing.assert_allclose(quality.r_squared, 1 - 5 / 8)
    np.testing.assert_allclose(quality.rank_correlation, (1 + 0.5) / 2)


def test_settings_that_do_not_fit_the_examples_are_refused():
    texts, targets = _texts(3), np.ones((500, 2))
    with pytest.raises(ValueError, match="500 examples are too few .* 0 for validation"):
        _fitted(texts, targets, dataclasses.replace(RIDGE, validation_fraction=0.001))
    with pytest.raises(ValueError, match="batch_size is 401; only 400 examples"):
        _fitted(texts, targets, dataclasses.replace(MLP, batch_size=401))


def test_bad_features_targets_and_weights_are_refused():
    texts, targets = _texts(4, num_texts=50), np.arange(100.0).reshape(50, 2)

    def spoil(texts):
        features = _letter_counts(texts)
        features[7, 2] = np.nan
        return features

    with pytest.raises(ValueError, match="features of text 7 are not finite"):
        compute_features(spoil, texts)
    with pytest.raises(ValueError, match=r"features_fn gave shape \(49, 8\) for 50 texts"):
        compute_features(lambda texts: _letter_counts(texts[1:]), texts)
    with pytest.raises(ValueError, match="weights must be at least 0"):
        _fitted(texts, targets, RIDGE, np.full(50, -1.0))
    with pytest.raises(ValueError, match="no ridge head has a finite validation error"):
        _fitted(texts, targets * np.nan, RIDGE)
