"""Training on pairs: what counts in a step, resuming, accumulation, meshes, and its faults."""

import copy
import dataclasses
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import processors

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.command_line import load_config
from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import NonFiniteError, read_metrics
from eagle_jax.base.settings import to_settings
from eagle_jax.data.preferences.examples import PreferencePair
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer
from eagle_jax.language_model.decoder.config import LoRA
from eagle_jax.language_model.decoder.lora import add_lora
from eagle_jax.language_model.decoder.transformer import forward, init_params
from eagle_jax.language_model.sharding import MeshSettings, fetch, make_mesh, tree_shardings
from eagle_jax.learning.loop import Records
from eagle_jax.learning.trainable import split
from eagle_jax.real.training import preference
from eagle_jax.real.training.preference import PairBatches, PreferenceSettings, log_probs_of, train_preference
from tests.language_model.small_checkpoints import word_model
from tests.same_run import Interrupted

WORDS = [f"word{letter}" for letter in "abcdefgh"]
ENDING = " #END_NOTE"
NUM_PAIRS, NUM_STEPS = 10, 9  # batches of 4, 4 and 2 in each of three epochs
SETTINGS = dataclasses.replace(
    to_settings(PreferenceSettings, load_config("experiments/configs/real_minilens.py").training),
    **{"loss": "em", "beta": 0.1, "batch_size": 4, "accumulation": 2, "num_epochs": 3, "optimizer": "rmsprop"},
    **{"learning_rate": 3e-3, "max_prompt_tokens": 8, "max_tokens": 16, "checkpoint_every": 3, "probe_every": 4},
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    sizes = {"intermediate_size": 32, "num_hidden_layers": 1, "max_position_embeddings": 32}
    words = [*WORDS, "#END_NOTE"]
    return word_model(words, tmp_path_factory.mktemp("tokenizer"), initializer_range=0.3, **sizes)


def draw_pairs():
    """Responses that say "worda" are chosen; "wordh" is in the rejected one of pair 7 only."""
    rng = np.random.default_rng(0)

    def words(low, high):
        return " ".join(rng.choice(WORDS[1:-1], int(rng.integers(low, high))))

    pairs = [
        PreferencePair(prompt=words(2, 7), chosen=f"worda {words(1, 4)}", rejected=words(2, 6))
        for _ in range(NUM_PAIRS)
    ]
    pairs[7] = dataclasses.replace(pairs[7], rejected="wordh wordb")
    return pairs


PAIRS = draw_pairs()


@pytest.fixture(scope="module")
def train(model, tmp_path_factory):
    """Trains in `train.folder / name`; the probe notes its steps."""

    def run(name, *, of=model, mode="full", settings=SETTINGS, seed=3, spoil=None):
        def probe(step, params):
            if spoil:
                spoil(step)
            run.probed.append(step)
            return {"num_leaves": len(jax.tree.leaves(params))}

        run.probed = []
        checkpoints = Checkpoints(run.folder / name / "ckpt", digest="d", max_to_keep=2)
        records = Records(checkpoints, run.folder / name, "test")
        trained = train_preference(of, mode, PAIRS, ENDING, settings, seed=seed, probe=probe, records=records)
        return SimpleNamespace(params=trained[0], history=trained[1], probed=run.probed)

    run.folder = tmp_path_factory.mktemp("runs")
    return run


@pytest.fixture(scope="module")
def whole(train):
    """An uninterrupted run on one device, in two parts a step."""
    return train("whole")


@pytest.fixture
def watched(monkeypatch):
    """The batches of the steps, which are not computed: there is no gradient, nothing changes."""
    calls = SimpleNamespace(batches=[], reference=[], num_steps=set())
    action_log_probs = preference.action_log_probs

    def step(config, settings, num_steps, frozen, state, batch):
        calls.batches.append(batch)
        calls.num_steps.add(num_steps)
        return state, {"loss": 0.0}

    def reference(*arguments):
        calls.reference.append(len(calls.batches))
        return action_log_probs(*arguments)

    monkeypatch.setattr(preference, "train_step", step)
    monkeypatch.setattr(preference, "action_log_probs", reference)
    return calls


def texts(model, batch, side):
    """(prompt, response) of each pair of a batch, as text."""
    decode = model.tokenizer.decode
    tokens, mask, action_mask = (leaf[batch.is_pair, side] for leaf in batch.responses)
    split_at = tokens.shape[1] - action_mask.shape[1]
    return [
        (decode(row[:split_at][real[:split_at]]), decode(row[split_at:][real[split_at:]]))
        for row, real in zip(tokens, mask, strict=True)
    ]


def test_each_epoch_has_every_pair_once_with_both_sides_in_one_row(train, model, watched):
    result = train("watched")
    assert watched.num_steps == {NUM_STEPS} and len(watched.batches) == NUM_STEPS
    assert watched.reference == [0] * 5  # 20 responses, 4 at a time, before the first step
    epochs = [watched.batches[i : i + 3] for i in (0, 3, 6)]
    orders = [np.concatenate([b.pairs[b.is_pair] for b in epoch]).tolist() for epoch in epochs]
    for order in orders:
        assert sorted(order) == list(range(NUM_PAIRS))
    assert orders[0] != orders[1] != orders[2] != orders[0]
    prompts = [pair.prompt for pair in PAIRS]
    wanted = {
        side: log_probs_of(model, prompts, [getattr(pair, side) for pair in PAIRS], ENDING, SETTINGS, batch_size=4)
        for side in ("chosen", "rejected")
    }
    for batch in watched.batches:
        rows = batch.pairs[batch.is_pair]
        for side, name in enumerate(wanted):
            assert texts(model, batch, side) == [
                (PAIRS[row].prompt, getattr(PAIRS[row], name) + ENDING) for row in rows
            ]
            reference = batch.reference_log_probs[batch.is_pair, side]
            np.testing.assert_allclose(reference, wanted[name][rows], atol=1e-4)
        assert (batch.pairs[~batch.is_pair] == NUM_PAIRS).all()
        assert not batch.responses.mask[~batch.is_pair].any()
        assert len(batch.is_pair) == 4
    assert [b.is_pair.sum() for b in epochs[0]] == [4, 4, 2]

    seen = [batch.pairs.tolist() for batch in watched.batches]
    for seed, is_same in ((3, True), (4, False)):
        watched.batches.clear()
        again = train(f"again{seed}", seed=seed)
        assert ([batch.pairs.tolist() for batch in watched.batches] == seen) == is_same
    chex.assert_trees_all_equal(again.params, result.params)


def test_it_learns_and_leaves_the_reference_alone(train, model, whole):
    assert whole.probed == [0, 4, 8, 9]
    # The fixture's values were drawn from this key; training has not touched them.
    chex.assert_trees_all_equal(model.params, init_params(model.config, jax.random.key(0)))
    rows = whole.history
    assert rows == read_metrics(train.folder / "whole/metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(NUM_STEPS + 1))
    assert set(rows[0]) == {"step", "probe/num_leaves"}
    assert [row["step"] for row in rows if "probe/num_leaves" in row] == whole.probed
    np.testing.assert_allclose(rows[1]["loss"], np.log(2), rtol=1e-6)  # policy is the reference
    np.testing.assert_allclose(rows[1]["rewards/margin"], 0.0, atol=1e-6)
    np.testing.assert_allclose(rows[1]["em/error_rate"], 0.2, rtol=1e-6)
    assert rows[-1]["loss"] < 0.6 and rows[-1]["rewards/margin"] > 0.2
    assert rows[-1]["rewards/accuracy"] == 1.0
    assert rows[-1]["em/error_rate"] < 0.18  # no label is wrong
    for row in rows[1:]:
        margin = row["rewards/chosen"] - row["rewards/rejected"]
        np.testing.assert_allclose(row["rewards/margin"], margin, atol=1e-6)
    # Up in two steps, down along a cosine to a tenth after the ninth step.
    falling = [0.1 + 0.45 * (1 + np.cos(np.pi * k / 7)) for k in range(7)]
    rates = [row["learning_rate"] / SETTINGS.learning_rate for row in rows[1:]]
    np.testing.assert_allclose(rates, [0.0, 0.5, *falling], rtol=1e-5)


def test_an_interrupted_run_goes_on_bit_equal(train, whole):
    def interrupt(step):
        if step == 8:
            raise Interrupted

    with pytest.raises(Interrupted):
        train("cut", spoil=interrupt)
    for probed in ([8, 9], []):  # from the checkpoint of step 6; then nothing is left to do
        resumed = train("cut")
        assert resumed.probed == probed
        chex.assert_trees_all_equal(resumed.params, whole.params)
        assert resumed.history == whole.history


def assert_same_run(found, wanted):
    chex.assert_trees_all_close(fetch(found.params), fetch(wanted.params), atol=1e-4)
    for ours, theirs in zip(found.history, wanted.history, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, atol=2e-4, rtol=2e-4, err_msg=name)


def test_whole_steps_on_eight_devices_are_what_one_does_in_parts(train, model, whole):
    mesh = make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, first_device=0))
    params = jax.device_put(model.params, tree_shardings(mesh, model.params))
    settings = dataclasses.replace(SETTINGS, accumulation=1, checkpoint_every=NUM_STEPS)
    found = train("mesh", of=dataclasses.replace(model, params=params), settings=settings)
    assert_same_run(found, whole)
    shardings = jax.tree.leaves(tree_shardings(mesh, params))
    for leaf, wanted in zip(jax.tree.leaves(found.params), shardings, strict=True):
        assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)


def test_low_rank_updates_learn_beside_the_same_frozen_arrays(train, model):
    low_rank = LoRA(rank=2, alpha=8.0, targets="feed_forward/down")
    config, params = add_lora(model.config, model.params, low_rank, jax.random.key(1))
    of = dataclasses.replace(model, config=config, params=params)
    settings = dataclasses.replace(SETTINGS, loss="dpo", learning_rate=0.02, checkpoint_every=NUM_STEPS)
    found = train("lora", of=of, mode="lora", settings=settings)
    frozen = [jax.tree.leaves(split(tree, "lora")[1]) for tree in (found.params, params)]
    for ours, theirs in zip(*frozen, strict=True):
        assert ours is theirs
    assert found.history[-1]["rewards/margin"] > 0.2


def test_a_log_prob_of_the_reference_that_is_nan_is_named(train, model):
    place = model.tokenizer.token_id("wordh")
    table = model.params["token_embedding"].at[place].set(jnp.nan)
    broken = dataclasses.replace(model, params=model.params | {"token_embedding": table})
    with pytest.raises(NonFiniteError, match=r"pair 7 of 10 .* its rejected response is nan"):
        train("broken", of=broken)


def test_settings_and_runs_that_cannot_be_are_refused(train, model):
    for changes, said in (
        ({"accumulation": 3}, "accumulation must be .*, got 3"),
        ({"max_tokens": 8}, "max_tokens must be above max_prompt_tokens 8, got 8"),
        ({"loss": "ipo", "label_smoothing": 0.2}, "label_smoothing must be 0 where loss is 'ipo'"),
        ({"warmup_steps": 9}, "warmup_steps is 9, but 10 pairs .* of 4 are 9 steps"),
        ({"max_tokens": 33}, "max_tokens is 33, but toy has 32 positions"),
    ):
        with pytest.raises(ValueError, match=said):
            train("refused", settings=dataclasses.replace(SETTINGS, **changes))
    endless = Tokenizer(model.tokenizer.backend, pad_token="[PAD]", bos_token=None, eos_token=None)
    with pytest.raises(UserError, match="names no end token"):
        log_probs_of(dataclasses.replace(model, tokenizer=endless), ["worda"], ["wordb"], None, SETTINGS, 2)
    with pytest.raises(UserError, match="the response of number 1 .* has no tokens"):
        log_probs_of(model, ["worda"] * 2, ["wordb", ""], "", SETTINGS, 2)
    pairs = [*PAIRS, PreferencePair(prompt="worda", chosen="wordb wordc", rejected="wordb wordd")]
    short = dataclasses.replace(SETTINGS, max_prompt_tokens=1, max_tokens=2)
    with pytest.raises(UserError, match=r"pair 10 of 11 .* within 2 tokens both .* are the same"):
        PairBatches(model, pairs, ENDING, short, 0).of_step(0)


def test_long_prompts_lose_their_beginning_and_long_responses_their_end(model, caplog):
    backend = copy.deepcopy(model.tokenizer.backend)
    backend.post_processor = processors.TemplateProcessing(
        single="worda $A", pair="worda $A $B", special_tokens=[("worda", 3)]
    )
    tokenizer = Tokenizer(backend, pad_token="[PAD]", bos_token="worda", eos_token="[END]")
    settings = dataclasses.replace(SETTINGS, max_prompt_tokens=3, max_tokens=5)
    pairs = [
        PreferencePair(prompt="wordb wordc wordd worde", chosen=" wordf wordg wordh", rejected=" wordh"),
        PreferencePair(prompt="wordb", chosen=" wordf", rejected=" wordh"),
    ]
    model = dataclasses.replace(model, tokenizer=tokenizer)
    long, _, short, _ = PairBatches(model, pairs, None, settings, 0).rows
    ids = [
        backend.encode(text, add_special_tokens=False).ids
        for text in ("worda wordd worde", "wordf wordg", "worda wordb", "wordf")
    ]
    assert long == (ids[0], ids[1])
    assert short == (ids[2], [*ids[3], tokenizer.eos_id])
    assert "of 4 responses 2 have a prompt of more than 3 tokens" in caplog.text
    assert "1 lose their end" in caplog.text


def test_log_probs_are_sums_over_the_response_whatever_the_batch(model):
    prompts = [pair.prompt for pair in PAIRS]
    chosen = [pair.chosen for pair in PAIRS]
    found = [log_probs_of(model, prompts, chosen, ENDING, SETTINGS, size) for size in (4, 7)]
    np.testing.assert_allclose(*found, atol=1e-5)
    for row in (0, 5):
        before, after = model.tokenizer.encode_response(prompts[row], chosen[row] + ENDING)
        ids = np.array([before + after])
        logits = forward(model.config, model.params, ids, np.ones(ids.shape, bool)).logits
        scores = jax.nn.log_softmax(np.asarray(logits)[0])
        wanted = sum(scores[len(before) + i - 1, token] for i, token in enumerate(after))
        np.testing.assert_allclose(found[0][row], wanted, rtol=1e-5)
