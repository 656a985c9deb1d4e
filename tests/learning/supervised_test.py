"""Next-token training against gradients worked out row by row, and its laws of resuming."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tokenizers import processors

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.metrics import NonFiniteError, read_metrics
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer
from eagle_jax.learning.loop import Records
from eagle_jax.learning.supervised import (
    encode_pairs,
    init_training,
    next_token_optimizer,
    next_token_step,
    train_next_token,
)
from tests.language_model.forced import token_log_probs
from tests.language_model.small_checkpoints import word_model
from tests.learning.next_token import next_token_settings
from tests.same_run import Interrupted

WORDS = ["one", "two", "three", "four", "five", "six", ".", "#BEGIN_ACTION", "#END_ACTION"]
NUM_STEPS = 12
SETTINGS = next_token_settings()
PAIRS = [
    ("one two #BEGIN_ACTION", "three #END_ACTION"),
    ("two one #BEGIN_ACTION", "four five six four #END_ACTION"),
    ("six five four three #BEGIN_ACTION", "one. #END_ACTION"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_key_value_heads": 1}
    return word_model(
        WORDS, tmp_path_factory.mktemp("tokenizer"), tie_word_embeddings=True, initializer_range=0.3, **sizes
    )


@pytest.fixture(scope="module")
def tokenizer(model):
    return model.tokenizer


@pytest.fixture
def train(model, tokenizer, tmp_path):
    """Trains in a folder of its own; `spoil(step, batches)` may change or interrupt what is drawn.

    Returns the parameters; the steps asked for are in `train.asked`.
    """

    def run(name="run", spoil=lambda step, batches: batches, settings=SETTINGS):
        def draw_batches(step):
            run.asked.append(step)
            rows = np.random.default_rng(step).integers(len(PAIRS), size=3)
            batches = (
                encode_pairs(tokenizer, [PAIRS[i] for i in rows[:2]], 0.5, 8),
                encode_pairs(tokenizer, [PAIRS[rows[2]]], 0.5, 16),
            )
            return spoil(step, batches)

        run.asked = []
        records = Records(Checkpoints(tmp_path / name / "ckpt", digest="d", max_to_keep=2), tmp_path / name, "test")
        return train_next_token(model.config, model.params, "full", draw_batches, settings, records)

    return run


def saved_steps(folder):
    return sorted(int(path.name.removeprefix("step_")) for path in (folder / "ckpt").iterdir())


def test_prompts_count_a_little_completions_fully_and_padding_not_at_all(tokenizer):
    batch = encode_pairs(tokenizer, PAIRS[:2], 0.25, 4)
    # 3 + 2 tokens, padded, and 3 + 5.
    np.testing.assert_array_equal(batch.loss_weights, [[0.25] * 3 + [1.0] * 2 + [0.0] * 3, [0.25] * 3 + [1.0] * 5])
    np.testing.assert_array_equal(batch.mask, batch.loss_weights > 0)
    for row, (prompt, target) in enumerate(PAIRS[:2]):
        ids = tokenizer.encode(f"{prompt} {target}")
        np.testing.assert_array_equal(batch.tokens[row, : len(ids)], ids)
    np.testing.assert_array_equal(encode_pairs(tokenizer, PAIRS[:1], 0.0, 4).loss_weights, [[0, 0, 0, 1, 1, 0, 0, 0]])


def test_a_beginning_token_is_not_put_between_prompt_and_completion(tokenizer):
    """As many real tokenizers do, this one adds it to every text that it encodes."""
    backend = type(tokenizer.backend).from_str(tokenizer.backend.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="one $A", pair="one $A $B", special_tokens=[("one", backend.token_to_id("one"))]
    )
    with_start = Tokenizer(backend, pad_token="[PAD]", bos_token="one", eos_token="[END]")
    batch = encode_pairs(with_start, [("two #BEGIN_ACTION", "four #END_ACTION")], 0.0, 1)
    words = ["one", "two", "#BEGIN_ACTION", "four", "#END_ACTION"]
    assert batch.tokens.tolist() == [[with_start.token_id(word) for word in words]]
    assert batch.loss_weights.tolist() == [[0, 0, 0, 1, 1]]


def weighted_nll(config, params, ids, weights):
    """sum_t w_t * -log p(token t) of one sequence, without padding, by the sampler's scoring."""
    scores = token_log_probs(config, params, ids[None], jnp.ones((1, len(ids)), bool), 1.0)
    return -jnp.sum(weights[1:] * scores[0])


def test_a_step_over_several_batches_is_a_step_over_their_union(model, tokenizer):
    config, params = model.config, model.params
    batches = (encode_pairs(tokenizer, PAIRS[:2], 0.5, 8), encode_pairs(tokenizer, PAIRS[2:], 0.5, 16))
    total, loss = 0.0, 0.0
    gradient = jax.tree.map(lambda leaf: np.zeros(leaf.shape), params)
    value_and_grad = jax.jit(jax.value_and_grad(weighted_nll, argnums=1), static_argnums=0)
    for prompt, target in PAIRS:
        prompt_ids, target_ids = tokenizer.encode(prompt), tokenizer.encode(target)
        weights = np.array([0.5] * len(prompt_ids) + [1.0] * len(target_ids), np.float32)
        value, of_row = value_and_grad(config, params, np.array(prompt_ids + target_ids), weights)
        loss += float(value)
        gradient = jax.tree.map(lambda sum_, g: sum_ + np.float64(g), gradient, of_row)
        total += sum(weights[1:])
    gradient = jax.tree.map(lambda g: g / total, gradient)

    state, metrics = next_token_step(config, SETTINGS, {}, init_training(params, SETTINGS), batches)
    np.testing.assert_allclose(metrics["loss"], loss / total, rtol=1e-5)
    norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-4)
    # Adam's first moment after one step is a tenth of the gradient; nothing was clipped.
    moment = optax.tree_utils.tree_get(state.optimizer_state, "mu")
    chex.assert_trees_all_close(moment, jax.tree.map(lambda g: np.float32(0.1 * g), gradient), atol=2e-6, rtol=1e-3)
    # Adam's first update is g / (|g| + eps); matrices decay, vectors (norms) do not.
    expected = jax.tree.map(
        lambda p, g: p - 0.02 * (g / (np.abs(g) + 1e-8) + (0.1 * p if p.ndim > 1 else 0.0)),
        jax.tree.map(np.float64, params),
        gradient,
    )
    for ours, theirs, g in zip(*map(jax.tree.leaves, (state.trainable, expected, gradient)), strict=True):
        sure = np.abs(g) > 1e-4  # where the sign of the gradient is not a matter of rounding
        assert sure.mean() > 0.5 or g.size < 20
        np.testing.assert_allclose(np.asarray(ours)[sure], theirs[sure], atol=2e-5)
    assert int(state.step) == 1


def test_the_rate_warms_up_and_falls_to_a_tenth_and_vectors_do_not_decay():
    settings = dataclasses.replace(SETTINGS, warmup_steps=4, num_steps=10)
    params = {"matrix": jnp.ones((2, 2)), "vector": jnp.ones(3)}
    optimizer = next_token_optimizer(settings)
    state, nothing, rates = optimizer.init(params), jax.tree.map(jnp.zeros_like, params), []
    for _ in range(11):  # without a gradient an update is -rate * weight_decay * parameter
        updates, state = optimizer.update(nothing, state, params)
        np.testing.assert_array_equal(updates["vector"], 0.0)
        rates.append(-float(updates["matrix"][0, 0]) / settings.weight_decay)
    middle = 0.02 * (0.1 + 0.9 * (1 + np.cos(np.pi / 2)) / 2)  # half-way from step 4 to step 10
    np.testing.assert_allclose(
        [rates[0], rates[2], rates[4], rates[7], rates[10]], [0.0, 0.01, 0.02, middle, 0.002], rtol=1e-5, atol=1e-9
    )


def test_it_learns_resumes_bit_equal_and_asks_for_each_step_once(train, model, tmp_path):
    whole = jax.device_get(train("whole"))
    assert train.asked == list(range(NUM_STEPS))
    rows = read_metrics(tmp_path / "whole/metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, NUM_STEPS + 1))
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model.params))  # not donated
    assert saved_steps(tmp_path / "whole") == [8, 12]

    def interrupt(step, batches):
        if step == 6:
            raise Interrupted
        return batches

    with pytest.raises(Interrupted):
        train("cut", interrupt)
    assert train.asked == [0, 1, 2, 3, 4, 5, 6]
    resumed = jax.device_get(train("cut"))
    assert train.asked == list(range(4, NUM_STEPS))  # from the checkpoint of step 4
    chex.assert_trees_all_equal(resumed, whole)
    metrics = (tmp_path / "cut/metrics.jsonl").read_text()
    assert metrics == (tmp_path / "whole/metrics.jsonl").read_text()
    again = jax.device_get(train("cut"))  # nothing left to do
    assert train.asked == []
    chex.assert_trees_all_equal(again, whole)


def test_a_loss_that_is_not_finite_stops_at_its_step(train, tmp_path):
    """Also where it is not logged: the step is named, and no checkpoint after it is kept."""

    def spoil(step, batches):
        if step == 6:  # the seventh
            nan = np.full_like(batches[0].loss_weights, np.nan)
            return (batches[0]._replace(loss_weights=nan), batches[1])
        return batches

    settings = dataclasses.replace(SETTINGS, log_every=5)
    with pytest.raises(NonFiniteError, match=r"step 7: (loss|gradient_norm) is nan"):
        train(spoil=spoil, settings=settings)
    assert saved_steps(tmp_path / "run") == [4]
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [row["step"] for row in rows] == [5]
