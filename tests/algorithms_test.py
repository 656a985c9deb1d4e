"""Each algorithm gives the values of a plain NumPy float64 computation with and without jit, on one
device and over eight, and is traced once however often it is called."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
from absl.testing import parameterized
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.special import expit, log_expit, log_softmax

from eagle_jax.design.g_optimal import g_optimal_design
from eagle_jax.elm.model.adapter import apply_adapter
from eagle_jax.elm.rlaif.losses import regularized_reinforce_loss, returns_to_go, token_divergence
from eagle_jax.language_model.sampling.token_drawing import keep_top_k, nucleus_argmax
from eagle_jax.learning.losses import generalized_advantage, reinforce_loss, sum_over_action, value_loss
from eagle_jax.real.training.losses import PairValues, dpo_loss, em_loss, ipo_loss

B, T, V, WIDTH = 16, 5, 11, 4  # B: two rows for each of eight devices


class Algorithm(NamedTuple):
    """function(*rows, **more) and its oracle; the first axis of every array of `rows` is split."""

    function: Callable[..., Any]
    oracle: Callable[..., Any]
    rows: tuple
    more: dict[str, Any] = {}


def _adapter_oracle(embeddings, params):
    hidden = embeddings @ params["up"]["kernel"] + params["up"]["bias"]
    hidden = hidden * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    return hidden @ params["down"]["kernel"] + params["down"]["bias"]


def _advantage_oracle(rewards, values, discount, gae_lambda):
    horizon = rewards.shape[1]
    deltas = rewards + discount * values[:, 1:] - values[:, :-1]
    advantages = np.zeros_like(deltas)
    for step in range(horizon):
        for later in range(step, horizon):
            advantages[:, step] += (discount * gae_lambda) ** (later - step) * deltas[:, later]
    return advantages, advantages + values[:, :-1]


def _nucleus_oracle(log_probs, noise, top_p):
    chosen = []
    for row, own in zip(log_probs, noise, strict=True):
        order = np.argsort(-row)
        kept = order[: np.searchsorted(np.cumsum(np.exp(row[order])), top_p) + 1]
        chosen.append(kept[np.argmax((row + own)[kept])])
    return np.array(chosen)


def _top_k_oracle(log_probs, top_k):
    least = np.sort(log_probs, axis=-1)[:, -top_k, None]
    return log_softmax(np.where(log_probs >= least, log_probs, -np.inf), axis=-1)


def _divergence_oracle(log_policy, log_reference, mask):
    return np.where(mask, (np.exp(log_policy) * (log_policy - log_reference)).sum(-1), 0)


def _regularized_oracle(log_probs, divergence, rewards, baselines, mask, kl_coefficient):
    total = 0.0
    for row in range(len(rewards)):
        for n in np.flatnonzero(mask[row]):
            to_go = rewards[row] - kl_coefficient * divergence[row, n + 1 :].sum()
            total += kl_coefficient * divergence[row, n] - (to_go - baselines[row, n]) * log_probs[row, n]
    return total / len(rewards)


def _regularized(log_probs, divergence, rewards, baselines, mask, kl_coefficient):
    returns = returns_to_go(rewards, divergence, mask, kl_coefficient)
    return regularized_reinforce_loss(log_probs, divergence, returns, baselines, mask, kl_coefficient)


def _em_oracle(margins, error_rate):
    wrong = error_rate * expit(-margins) / ((1 - error_rate) * expit(margins) + error_rate * expit(-margins))
    return -(1 - wrong) * log_expit(margins) - wrong * log_expit(-margins)


def _algorithms() -> dict[str, Algorithm]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    mask = np.arange(T)[None] < rng.integers(1, T + 1, B)[:, None]
    log_probs = log_softmax(2 * normal(B, T, V), axis=-1)
    other = log_softmax(2 * normal(B, T, V), axis=-1)
    pairs = [PairValues(normal(B), normal(B)) for _ in range(2)]
    counts = PairValues(*rng.integers(1, 9, (2, B)).astype(np.float32))
    divergence = np.where(mask, np.abs(normal(B, T)), 0)
    params = {
        "up": {"kernel": normal(WIDTH, 7), "bias": normal(7)},
        "down": {"kernel": normal(7, 6), "bias": normal(6)},
    }
    return {
        "adapter": Algorithm(
            lambda embeddings, params: apply_adapter(params, embeddings),
            _adapter_oracle,
            (normal(B, WIDTH),),
            {"params": params},
        ),
        "advantage": Algorithm(
            generalized_advantage,
            _advantage_oracle,
            (normal(B, T), normal(B, T + 1)),
            {"discount": 0.9, "gae_lambda": 0.6},
        ),
        "reinforce": Algorithm(reinforce_loss, lambda p, a: -(p * a).mean(), (normal(B), normal(B))),
        "log_pi": Algorithm(sum_over_action, lambda p, m: (p * m).sum(1), (normal(B, T), mask)),
        "value": Algorithm(value_loss, lambda v, r: ((v - r) ** 2).mean() / 2, (normal(B), normal(B))),
        "dpo": Algorithm(
            dpo_loss,
            lambda m, label_smoothing: -(1 - label_smoothing) * log_expit(m) - label_smoothing * log_expit(-m),
            (5 * normal(B),),
            {"label_smoothing": 0.1},
        ),
        "em": Algorithm(em_loss, _em_oracle, (5 * normal(B),), {"error_rate": 0.2}),
        "ipo": Algorithm(
            ipo_loss,
            lambda p, r, n, beta: ((p[0] - r[0]) / n[0] - (p[1] - r[1]) / n[1] - 1 / (2 * beta)) ** 2,
            (*pairs, counts),
            {"beta": 0.3},
        ),
        "divergence": Algorithm(token_divergence, _divergence_oracle, (log_probs, other, mask)),
        "regularized": Algorithm(
            _regularized,
            _regularized_oracle,
            (normal(B, T), divergence, normal(B), normal(B, T), mask),
            {"kl_coefficient": 0.3},
        ),
        "top_k": Algorithm(keep_top_k, _top_k_oracle, (log_probs[:, 0],), {"top_k": 3}),
        "nucleus": Algorithm(
            nucleus_argmax,
            _nucleus_oracle,
            (log_probs[:, 1], rng.gumbel(size=(B, V)).astype(np.float32)),
            {"top_p": 0.7},
        ),
        # Orthogonal rows, each of twice the length of the one before: the design is uniform at any lengths.
        "design": Algorithm(
            lambda rows: jax.vmap(lambda own: g_optimal_design(own).design_weights)(rows),
            lambda rows: np.full(rows.shape[:2], 1 / rows.shape[1]),
            (np.stack([np.diag(2.0 ** np.arange(WIDTH)).astype(np.float32)] * B),),
        ),
    }


ALGORITHMS = _algorithms()
each = parameterized.named_parameters((name, name) for name in ALGORITHMS)


def oracle(algorithm: Algorithm):
    rows = jax.tree.map(lambda leaf: leaf if leaf.dtype == bool else np.float64(leaf), algorithm.rows)
    return algorithm.oracle(*rows, **algorithm.more)


class AlgorithmsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @each
    def test_it_is_the_plain_computation(self, name):
        algorithm = ALGORITHMS[name]
        function = functools.partial(algorithm.function, **algorithm.more)
        got = self.variant(function)(*algorithm.rows)
        chex.assert_trees_all_close(got, oracle(algorithm), rtol=2e-5, atol=2e-6)

    @each
    def test_it_is_the_same_over_eight_devices_and_traced_once(self, name):
        algorithm = ALGORITHMS[name]
        over_rows = NamedSharding(Mesh(np.array(jax.devices()), "rows"), PartitionSpec("rows"))
        rows = jax.device_put(algorithm.rows, over_rows)
        chex.clear_trace_counter()  # it counts by the place in the file
        function = jax.jit(chex.assert_max_traces(lambda *rows: algorithm.function(*rows, **algorithm.more), n=1))
        for _ in range(2):
            got = function(*rows)
        chex.assert_trees_all_close(jax.device_get(got), oracle(algorithm), rtol=2e-5, atol=2e-6)
