"""Attention, whole and in blocks of queries, against the formula in float64; memory is linear in the length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.language_model.decoder import attention
from eagle_jax.language_model.decoder.attention import KeyValue, attend, window_mask
from eagle_jax.language_model.decoder.transformer import causal_mask


def formula(query, keys, values, allowed, scale, softcap):
    """One softmax for each head, query [B, T, H, d], keys [B, G, d, S], values [B, G, S, d]."""
    shared = query.shape[2] // keys.shape[1]
    scores = scale * jnp.einsum("bthd,bhds->bhts", query, jnp.repeat(keys, shared, axis=1))
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    weights = jnp.where(allowed[:, None], jnp.exp(scores - scores.max(-1, keepdims=True)), 0.0)
    weights = weights / jnp.where(allowed[:, None], weights, 0.0).sum(-1, keepdims=True)
    mixed = jnp.einsum("bhts,bhsd->bthd", weights, jnp.repeat(values, shared, axis=1))
    return mixed.reshape(*query.shape[:2], -1)


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize(("softcap", "window"), [(None, None), (2.0, 3)])
def test_blocks_are_the_formula_and_so_are_gradients(monkeypatch, size, softcap, window):
    rng = np.random.default_rng(0)
    arrays = tuple(rng.normal(size=shape) for shape in ((2, 8, 4, 6), (2, 2, 6, 8), (2, 2, 8, 6)))
    weights = rng.normal(size=(2, 8, 24))
    mask = np.ones((2, 8), bool)
    mask[0, :3] = False  # padded left: its first rows look at nothing and count nothing
    allowed = causal_mask(jnp.asarray(mask))
    allowed = allowed if window is None else window_mask(allowed, window)
    weights[0, :3] = 0.0
    monkeypatch.setattr(attention, "_MANY", size * 2 * 4 * 8)
    with jax.enable_x64(True):

        def ours(query, keys, values):
            mixed = attend(query, KeyValue(keys, values), allowed, 0.3, softcap)
            return jnp.sum(weights * mixed)

        def theirs(query, keys, values):
            seen = allowed.at[0, :3, 0].set(True)  # any key: no 0 / 0
            return jnp.sum(weights * formula(query, keys, values, seen, 0.3, softcap))

        found, expected = (jax.jit(jax.value_and_grad(of, argnums=(0, 1, 2)))(*arrays) for of in (ours, theirs))
    # The softmax is float32 whatever goes in.
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_what_all_rows_share_counts_as_if_each_had_it(softcap):
    rng = np.random.default_rng(1)
    query, keys, values = (rng.normal(size=shape) for shape in ((3, 2, 4, 6), (3, 2, 6, 5), (3, 2, 5, 6)))
    shared = KeyValue(rng.normal(size=(1, 2, 6, 7)), rng.normal(size=(1, 2, 7, 6)))
    allowed = jnp.asarray(rng.random((3, 2, 12)) < 0.6).at[:, :, -1].set(True)
    all_keys = np.concatenate([np.repeat(shared.keys, 3, axis=0), keys], axis=3)
    all_values = np.concatenate([np.repeat(shared.values, 3, axis=0), values], axis=2)
    with jax.enable_x64(True):
        found = attend(query, KeyValue(keys, values), allowed, 0.3, softcap, shared)
        expected = formula(query, all_keys, all_values, allowed, 0.3, softcap)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_memory_is_linear_in_the_length():
    def temporaries(length):
        shapes = ((1, length, 4, 8), (1, 1, 8, length), (1, 1, length, 8))
        arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        allowed = jax.ShapeDtypeStruct((1, length, length), bool)

        def total(query, keys, values, allowed):
            return jnp.sum(attend(query, KeyValue(keys, values), allowed))

        compiled = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(*arrays, allowed).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    long = temporaries(8192)
    assert long < 0.5 * 4 * 4 * 8192**2  # one array of the scores alone
    assert temporaries(16384) < 3 * long  # the mask, a byte each, is quadratic
