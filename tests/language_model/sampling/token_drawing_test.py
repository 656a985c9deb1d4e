"""Top-k and top-p against the logits warpers of `transformers`; draws against probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.language_model.sampling.token_drawing import Drawing, draw, keep_top_k, nucleus_argmax

SETTINGS = [(1.0, 0, 0.9), (0.6, 7, 1.0), (1.7, 12, 0.8), (0.8, 1, 1.0), (1.0, 200, 0.3)]
LATER = [(1.0, 0, 1.0, 0.1, 1.3), (1.5, 0, 0.8, 0.05, 1.0), (0.7, 9, 0.95, 0.3, 0.6), (2.0, 0, 1.0, 1.0, 2.0)]


def warped(logits, temperature, top_k, top_p, min_p=0.0, penalty=1.0, seen=None):
    """Where `transformers` leaves logits, float64: penalty, temperature, top-k, top-p and min-p."""
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    scores = torch.tensor(logits)
    if penalty != 1:
        scores = process.RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor(seen), scores)
    scores = process.TemperatureLogitsWarper(temperature)(None, scores)
    if top_k:
        scores = process.TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = process.TopPLogitsWarper(top_p)(None, scores)
    if min_p:
        scores = process.MinPLogitsWarper(min_p)(None, scores)
    return scores.numpy()


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), SETTINGS)
def test_what_may_be_drawn_is_what_the_warpers_of_transformers_leave(temperature, top_k, top_p):
    rows, vocab = 5, 61
    logits = np.random.default_rng(0).normal(size=(rows, vocab)) * 2
    scores = warped(logits, temperature, top_k, top_p)
    log_probs = jax.nn.log_softmax(jnp.float32(logits / temperature), axis=-1)
    if top_k:
        log_probs = keep_top_k(log_probs, jnp.int32(top_k))
        expected = jax.nn.log_softmax(warped(logits, temperature, top_k, 1.0), axis=-1)
        np.testing.assert_allclose(log_probs, expected, atol=1e-5)
    if top_p < 1:
        # Noise that favours one token: it is drawn if it may be.
        favoured = jnp.tile(100.0 * jnp.eye(vocab), (rows, 1))
        drawn = nucleus_argmax(jnp.repeat(log_probs, vocab, 0), favoured, jnp.float32(top_p))
        is_kept = np.asarray(drawn).reshape(rows, vocab) == np.arange(vocab)
        np.testing.assert_array_equal(is_kept, np.isfinite(scores))


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p", "penalty"), [*((*before, 0.0, 1.0) for before in SETTINGS), *LATER]
)
def test_a_draw_is_the_best_of_what_the_warpers_leave_under_the_same_noise(temperature, top_k, top_p, min_p, penalty):
    rows, vocab = 400, 61
    rng = np.random.default_rng(1)
    logits, seen = rng.normal(size=(rows, vocab)) * 2, rng.integers(vocab, size=(rows, 9))
    keys = jax.random.split(jax.random.key(0), rows)
    drawing = Drawing(
        *(jnp.float32(temperature), jnp.int32(top_k), jnp.float32(top_p), jnp.array([-1])),
        *(jnp.float32(min_p), jnp.float32(penalty)),
    )
    has_seen = (np.arange(vocab) == seen[..., None]).any(axis=1)
    tokens, log_probs = draw(jnp.float32(logits), keys, jnp.int32(3), drawing, None if penalty == 1 else has_seen)
    noise = jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, 3), (vocab,)))(keys)
    left = warped(logits, temperature, top_k, top_p, min_p, penalty, seen)
    expected = np.argmax(left + np.asarray(noise), axis=1)
    np.testing.assert_array_equal(tokens, expected)
    # Reported before penalty and truncation.
    before = jax.nn.log_softmax(logits / temperature, axis=-1)[np.arange(rows), expected]
    np.testing.assert_allclose(log_probs, before, atol=1e-5)


def test_tokens_as_likely_as_the_last_one_are_kept():
    log_probs = jnp.log(jnp.array([[0.4, 0.2, 0.2, 0.1, 0.1]]))
    for top_k, count in ((1, 1), (2, 3), (3, 3), (4, 5), (5, 5), (9, 5)):
        kept = np.isfinite(keep_top_k(log_probs, jnp.int32(top_k)))
        np.testing.assert_array_equal(kept[0], np.arange(5) < count)
    # 0.4 + 0.2 + 0.2 reaches 0.5: both of the 0.2 belong to the nucleus.
    noise = 100.0 * jnp.eye(5)
    drawn = nucleus_argmax(jnp.repeat(log_probs, 5, 0), noise, jnp.float32(0.5))
    np.testing.assert_array_equal(drawn, [0, 1, 2, 0, 0])


def test_certain_tokens_are_drawn_and_a_row_of_nan_ends():
    logits = jnp.array([[0.0, -jnp.inf, -jnp.inf], [jnp.nan, jnp.nan, jnp.nan]])
    keys = jax.random.split(jax.random.key(0), 2)
    drawing = Drawing(jnp.float32(1.0), jnp.int32(2), jnp.float32(0.9), jnp.array([-1]))
    tokens, log_probs = draw(logits, keys, jnp.int32(0), drawing)
    assert (int(tokens[0]), float(log_probs[0])) == (0, 0.0)
    assert np.isnan(log_probs[1])


@pytest.mark.parametrize("top_p", [1e-45, 1e-38, 1.2e-38, 1e-7])
def test_the_smallest_nucleus_is_the_likeliest_token_and_found_in_two_steps(monkeypatch, top_p):
    """Numbers below 1.2e-38 count as 0 on CPU, and a mass of 0 is not below that."""

    def bounded(is_open, step, value):
        for _ in range(3):
            if not is_open(value):
                return value
            value = step(value)
        raise AssertionError("it goes on")

    monkeypatch.setattr(jax.lax, "while_loop", bounded)
    log_probs = jnp.log(jnp.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]]))
    drawn = nucleus_argmax(log_probs, 100.0 * jnp.eye(3)[:2], jnp.float32(top_p))
    np.testing.assert_array_equal(drawn, [1, 0])
    drawn = nucleus_argmax(log_probs, jnp.zeros((2, 3)), jnp.float32(top_p))
    np.testing.assert_array_equal(drawn, [1, 0])
