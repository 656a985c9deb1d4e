"""Scores of tokens against SciPy, worked arithmetic, finite differences and NumPy's float64; on a mesh."""

import dataclasses
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.sharding import NamedSharding, PartitionSpec

from eagle_jax.language_model import log_probs
from eagle_jax.language_model.decoder.transformer import bind, forward, init_params
from eagle_jax.language_model.log_probs import LastStates, linear_loss, read_text, score_tokens
from eagle_jax.language_model.sharding import MeshSettings, constrain_tree, make_mesh, tree_shardings
from eagle_jax.learning.losses import next_token_loss
from tests.language_model.small_checkpoints import config_of


def given(logits):
    """Texts of which the logits [B, T, V] are known."""
    return LastStates(jnp.asarray(logits), jax.tree_util.Partial(lambda states: states))


def exact_kl(policy, reference, mask, temperature):
    """Summed over the tokens of the mask [B, T] -> [B]."""
    tokens = jnp.zeros(mask.shape, jnp.int32)
    divergence = score_tokens(given(policy), tokens, temperature, given(reference)).divergence
    return jnp.sum(jnp.where(mask, divergence, 0.0), axis=1)


class TestKL:
    def draw(self, seed=0):
        rng = np.random.default_rng(seed)
        mask = np.arange(4)[None] < np.array([4, 2, 0])[:, None]
        return 2 * rng.normal(size=(3, 4, 6)), 2 * rng.normal(size=(3, 4, 6)), mask

    def test_worked_example(self):
        # One token, two words, policy (3/4, 1/4), reference (1/2, 1/2):
        #   3/4 log(3/2) + 1/4 log(1/2) = 0.130812
        policy = jnp.log(jnp.array([[[0.75, 0.25]]]))
        divergence = exact_kl(policy, jnp.zeros((1, 1, 2)), jnp.ones((1, 1), bool), 1.0)
        np.testing.assert_allclose(divergence, [0.130812], atol=1e-6)
        # At temperature 1/2 the policy is (9/10, 1/10): 0.9 log 1.8 + 0.1 log 0.2 = 0.368064
        divergence = exact_kl(policy, jnp.zeros((1, 1, 2)), jnp.ones((1, 1), bool), 0.5)
        np.testing.assert_allclose(divergence, [0.368064], atol=1e-6)

    def test_agrees_with_scipy(self):
        policy, reference, mask = self.draw()
        divergence = exact_kl(jnp.array(policy), jnp.array(reference), mask, 0.7)
        per_token = scipy.special.rel_entr(
            scipy.special.softmax(policy / 0.7, axis=-1), scipy.special.softmax(reference / 0.7, axis=-1)
        ).sum(axis=-1)
        np.testing.assert_allclose(divergence, (per_token * mask).sum(axis=1), rtol=1e-4)

    def test_zero_with_zero_gradient_at_equality_and_positive_elsewhere(self):
        policy, reference, mask = (jnp.array(part) for part in self.draw(1))

        def total(logits):
            return exact_kl(logits, reference, mask, 0.5).sum()

        value, gradient = jax.value_and_grad(total)(reference)
        assert float(value) == pytest.approx(0.0, abs=1e-6)
        np.testing.assert_allclose(gradient, 0.0, atol=1e-6)
        assert (exact_kl(policy, reference, mask, 0.5)[:2] > 0.1).all()

    def test_gradient_is_that_of_finite_differences_and_none_for_the_reference(self):
        policy, reference, mask = (jnp.array(part) for part in self.draw(2))

        def total(policy, reference):
            return exact_kl(policy, reference, mask, 0.5).sum()

        jax.test_util.check_grads(
            lambda logits: total(logits, reference), (policy,), order=1, modes=["rev"], atol=2e-2, rtol=2e-2
        )
        np.testing.assert_array_equal(jax.grad(total, argnums=1)(policy, reference), 0.0)
        masked = np.asarray(jax.grad(total)(policy, reference))[~np.asarray(mask)]
        np.testing.assert_array_equal(masked, 0.0)


def test_log_probs_and_entropy_agree_with_scipy():
    rng = np.random.default_rng(4)
    logits, tokens = 5 * rng.normal(size=(2, 3, 7)) + 100, rng.integers(7, size=(2, 3))
    scores = score_tokens(given(logits), jnp.asarray(tokens), 0.7)
    expected = scipy.special.log_softmax(np.float32(logits).astype(float) / 0.7, axis=-1)
    drawn = np.take_along_axis(expected, tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(scores.log_probs, drawn, rtol=1e-5, atol=1e-5)
    entropy = scipy.special.entr(np.exp(expected)).sum(axis=-1)
    np.testing.assert_allclose(scores.entropy, entropy, rtol=1e-4, atol=1e-6)
    assert scores.divergence is None


@pytest.mark.parametrize("family", ["gemma2", "phi"])  # capped and tied, with bias
def test_a_decoder_is_read_as_it_reads_itself_in_blocks_too(monkeypatch, family):
    config = config_of(family)
    params = init_params(config, jax.random.key(0))
    tokens = np.random.default_rng(0).integers(2, config.vocab_size, (2, 6))
    mask = np.arange(6)[None] < np.array([6, 4])[:, None]

    def of_forward(params):
        log_probs = jax.nn.log_softmax(forward(config, params, tokens, mask).logits)
        return -jnp.take_along_axis(log_probs[:, :-1], tokens[:, 1:, None], axis=-1).mean()

    def in_blocks(params):
        return next_token_loss(read_text(config, params, tokens, mask), tokens, np.ones((2, 6)))

    expected = jax.jit(jax.value_and_grad(of_forward))(params)
    monkeypatch.setattr(log_probs, "_MANY", 2 * 2 * config.vocab_size)
    found = jax.jit(jax.value_and_grad(in_blocks))(params)
    chex.assert_trees_all_close(found, expected, atol=1e-6)


def plain_scores(logits, other, tokens, temperature, weights):
    """NumPy, float64: scores [3, B, T], and the gradient of sum(weights * scores) by the logits."""
    log_p, log_ref = (scipy.special.log_softmax(each / temperature, axis=-1) for each in (logits, other))
    p, drawn = np.exp(log_p), np.eye(logits.shape[-1])[tokens]
    entropy, divergence = -(p * log_p).sum(-1, keepdims=True), (p * (log_p - log_ref)).sum(-1, keepdims=True)
    scores = np.stack([(drawn * log_p).sum(-1), entropy[..., 0], divergence[..., 0]])
    of_scores = np.stack([drawn - p, -p * (log_p + entropy), p * (log_p - log_ref - divergence)])
    return scores, (weights[..., None] * of_scores).sum(0) / temperature


def heads(rng):
    """Name -> (unembedding, its leaves, logits and (logits' gradient, states) -> leaves' gradients in NumPy)."""
    table, bias, down, up = (rng.normal(size=shape) for shape in ((11, 4), (11,), (4, 2), (2, 11)))

    def capped(leaves, states):
        return 3.0 * jnp.tanh(states @ leaves["table"].T / 3.0)

    def of_capped(gradient, states):
        inner = gradient * (1 - np.tanh(states @ table.T / 3.0) ** 2)
        return {"table": np.einsum("btv,btd->vd", inner, states)}, inner @ table

    def biased(leaves, states):
        return states @ leaves["table"].T + leaves["bias"][None, None]

    def of_biased(gradient, states):
        return {"bias": gradient.sum((0, 1)), "table": np.einsum("btv,btd->vd", gradient, states)}, gradient @ table

    def low_rank(leaves, states):
        return states @ table.T + states @ leaves["down"] @ leaves["up"]

    def of_low_rank(gradient, states):
        of_down = np.einsum("btd,btr->dr", states, gradient @ up.T)
        of_up = np.einsum("btr,btv->rv", states @ down, gradient)
        return {"down": of_down, "up": of_up}, gradient @ (table + (down @ up).T)

    return {
        "capped": (capped, {"table": table}, of_capped),
        "biased": (biased, {"table": table, "bias": bias}, of_biased),
        "low_rank": (low_rank, {"down": down, "up": up}, of_low_rank),
    }


@pytest.mark.parametrize(("name", "size"), [("capped", 1), ("capped", 7), ("biased", 3), ("low_rank", 3)])
@pytest.mark.parametrize("is_linear", [True, False])
def test_values_and_gradients_are_those_of_a_plain_computation(monkeypatch, name, size, is_linear):
    rng = np.random.default_rng(6)
    unembed, leaves, of_head = heads(rng)[name]
    states, others, weights = (rng.normal(size=shape) for shape in ((3, 7, 4), (3, 7, 4), (3, 3, 7)))
    tokens = rng.integers(11, size=(3, 7), dtype=np.int32)
    weights[:, 1, 4:] = 0.0  # padding
    monkeypatch.setattr(log_probs, "_MANY", size * 3 * 11)
    with jax.enable_x64(True):

        def total(leaves, states, others):
            reads = [LastStates(jnp.asarray(h), jax.tree_util.Partial(unembed, leaves)) for h in (states, others)]
            if not is_linear:
                scores = score_tokens(reads[0], tokens, 0.7, reads[1])
                return jnp.sum(weights * jnp.stack(scores)), scores
            loss = linear_loss(lambda s: jnp.sum(weights * jnp.stack(s)), reads[0], tokens, 0.7, reads[1])
            return -2 * loss[0], loss[1]

        value_and_gradient = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
        (value, scores), found = jax.jit(value_and_gradient)(leaves, states, others)
        logits, other = (np.asarray(unembed(leaves, jnp.asarray(each))) for each in (states, others))
    expected, of_logits = plain_scores(logits, other, tokens, 0.7, weights)
    factor = -2 if is_linear else 1
    of_leaves, of_states = of_head(factor * of_logits, states)
    np.testing.assert_allclose(value, factor * (weights * expected).sum(), rtol=1e-9)
    np.testing.assert_allclose(np.stack(scores), expected, rtol=1e-9, atol=1e-12)
    chex.assert_trees_all_close(found, (of_leaves, of_states, np.zeros_like(others)), rtol=1e-8, atol=1e-11)


def test_a_token_that_does_not_count_may_be_impossible(monkeypatch):
    logits = np.zeros((1, 2, 5), np.float32)
    logits[0, 1, 3] = -np.inf
    monkeypatch.setattr(log_probs, "_MANY", 5)
    loss, scores = linear_loss(lambda s: s.log_probs[0, 0], given(logits), jnp.array([[3, 3]]))
    np.testing.assert_allclose(loss, -np.log(5), rtol=1e-6)
    assert scores.log_probs[0, 1] == -np.inf


def compiled_loss(length, frozen):
    """Of 2 texts with 4,096 words and 16 dimensions."""

    def loss(table, states):
        table = jax.lax.stop_gradient(table) if frozen else table
        read = LastStates(states, jax.tree_util.Partial(lambda table, states: states @ table.T, table))
        return linear_loss(lambda s: jnp.sum(s.log_probs), read, jnp.zeros(states.shape[:2], jnp.int32))[0]

    shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4096, 16), (2, length, 16)))
    wanted = 1 if frozen else (0, 1)
    return jax.jit(jax.grad(loss, argnums=wanted)).lower(*shapes).compile()


def test_memory_does_not_grow_with_the_text_and_a_frozen_table_costs_no_product(monkeypatch):
    monkeypatch.setattr(log_probs, "_MANY", 2 * 8 * 4096)
    short, long = (compiled_loss(length, frozen=False) for length in (32, 128))
    grown = (each.memory_analysis().temp_size_in_bytes for each in (short, long))
    assert -np.subtract(*grown) < 0.1 * 4 * 2 * (128 - 32) * 4096  # bytes of the logits
    # A loop's body is counted once: 8 x 2 tokens. Products of two (frozen) and three with the table.
    product = 2 * 16 * 16 * 4096
    frozen = compiled_loss(32, frozen=True).cost_analysis()["flops"]
    assert 0.8 * product < short.cost_analysis()["flops"] - frozen < 1.2 * product


@pytest.mark.parametrize("is_linear", [True, False])
def test_on_a_mesh_no_chip_gathers_the_table_and_sums_are_exchanged_once(monkeypatch, is_linear):
    config = dataclasses.replace(config_of("gemma2"), vocab_size=1024)
    params = init_params(config, jax.random.key(0))
    batch, length, width = 8, 12, config.hidden_size
    states, others = jax.random.normal(jax.random.key(1), (2, batch, length, width))
    tokens = jax.random.randint(jax.random.key(2), (batch, length), 0, 1024)

    def loss(params, states, others):
        def of(scores):
            return sum(jnp.sum(weight * each) for weight, each in zip((1.0, 0.1, 0.3), scores, strict=True))

        read, other = (LastStates(each, bind(config, params).head) for each in (states, others))
        if is_linear:
            return linear_loss(of, read, tokens, 0.7, other)[0]
        return of(score_tokens(read, tokens, 0.7, other))

    value_and_grad = jax.value_and_grad(loss)
    expected = jax.jit(value_and_grad)(params, states, others)
    mesh = make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, first_device=0))
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    placed = (jax.device_put(params, tree_shardings(mesh, params)), *jax.device_put((states, others), rows))
    monkeypatch.setattr(log_probs, "_MANY", 2 * 512 * 3)  # three tokens of each chip's two rows
    with jax.set_mesh(mesh):
        compiled = jax.jit(lambda *arrays: constrain_tree(value_and_grad(*arrays))).lower(*placed).compile()
        found = compiled(*placed)
    chex.assert_trees_all_close(jax.device_get(found), jax.device_get(expected), rtol=1e-5, atol=1e-5)
    text = compiled.as_text()
    gathered = re.findall(r"= f32\[([\d,]+)\]\S* all-gather\(", text)
    sizes = [math.prod(map(int, shape.split(","))) for shape in gathered]
    assert sizes and max(sizes) <= 512 * width
    bodies = re.findall(r"body=%?([\w.-]+)", text)
    for computation in re.split(r"\n(?=%|ENTRY)", text):
        if any(computation.startswith(f"%{body} ") for body in bodies):
            assert not re.search(rf"\[(?:512|1024),(?:{width}|{width // 2})\]\S* all-reduce", computation)


def test_layers_that_are_computed_again_are_not_kept():
    config = dataclasses.replace(config_of("llama"), layer_windows=(None,) * 6, num_layers=6)
    params = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    tokens, mask = (jax.ShapeDtypeStruct((2, 128), dtype) for dtype in (jnp.int32, bool))

    def temporaries(config):
        def loss(params, tokens, mask):
            return next_token_loss(read_text(config, params, tokens, mask), tokens, mask)

        return jax.jit(jax.grad(loss)).lower(params, tokens, mask).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(dataclasses.replace(config, remat=True)) < 0.5 * temporaries(config)
