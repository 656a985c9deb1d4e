"""Preference losses, their metrics, log-probs and gradients against TRL's DPOTrainer itself.

Both sides read the same two checkpoints and the same texts; TRL tokenizes, pads, and computes.
"""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.settings import to_settings
from eagle_jax.data.preferences.examples import PreferencePair
from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.real.training.losses import PairValues, dpo_loss, reward_margins
from eagle_jax.real.training.preference import PairBatches, log_probs_of
from eagle_jax.real.training.step import PreferenceSettings, init_preference, pair_losses, train_step
from tests.language_model.small_checkpoints import make_checkpoint

PAIRS = [
    PreferencePair(prompt="w1 w2 w3", chosen=" w4 w5 [EOS]", rejected=" w6 [EOS] [EOS]"),
    PreferencePair(prompt="w9", chosen=" w8 w3 w4 w2", rejected=" w7 [EOS]"),
    PreferencePair(prompt="w20 w21 w22 w23 w1", chosen=" w30 w31 w2 w2", rejected=" w2 w2 w50"),
]
SETTINGS = dataclasses.replace(
    to_settings(PreferenceSettings, load_config("experiments/configs/real_minilens.py").training),
    **{"beta": 0.3, "batch_size": 3, "warmup_steps": 0, "max_prompt_tokens": 16, "max_tokens": 32},
)


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """TRL's trainer with its batch of PAIRS, and our models of the same checkpoints."""
    torch = pytest.importorskip("torch")
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    transformers = pytest.importorskip("transformers")
    folders = {name: tmp_path_factory.mktemp(name) for name in ("policy", "reference")}
    _, reference = make_checkpoint("llama", folders["reference"])
    _, policy = make_checkpoint("llama", folders["policy"])
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    policy.save_pretrained(folders["policy"])
    tokens = {"pad_token": "[PAD]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    file = str(folders["policy"] / "tokenizer.json")
    folder = str(tmp_path_factory.mktemp("trl"))
    settings = {"report_to": "none", "use_cpu": True, "bf16": False}
    args = trl.DPOConfig(folder, beta=SETTINGS.beta, max_length=SETTINGS.max_tokens, **settings)
    trainer = trl.DPOTrainer(
        policy,
        ref_model=reference,
        args=args,
        train_dataset=datasets.Dataset.from_list([dataclasses.asdict(pair) for pair in PAIRS]),
        processing_class=transformers.PreTrainedTokenizerFast(tokenizer_file=file, **tokens),
    )
    trainer.model.eval()
    return SimpleNamespace(
        trainer=trainer,
        inputs=trainer.data_collator(list(trainer.train_dataset)),
        **{name: load_language_model(folder) for name, folder in folders.items()},
    )


def trl_loss(peer, loss_type, inputs=None, **attributes):
    """(loss, metrics by name) of TRL's own code."""
    trainer = peer.trainer
    trainer.loss_types = [loss_type]
    for name, value in attributes.items():
        setattr(trainer, name, value)
    trainer._metrics["eval"].clear()
    loss = trainer._compute_loss(trainer.model, inputs or peer.inputs, return_outputs=False)
    metrics = {name: values[0] for name, values in trainer._metrics["eval"].items()}
    return loss, metrics


def our_log_probs(model):
    prompts = [pair.prompt for pair in PAIRS]
    sides = ([getattr(pair, side) for pair in PAIRS] for side in PairValues._fields)
    return PairValues(*(log_probs_of(model, prompts, texts, None, SETTINGS, batch_size=4) for texts in sides))


@pytest.fixture(scope="module")
def ours(peer):
    return SimpleNamespace(
        policy=our_log_probs(peer.policy),
        reference=our_log_probs(peer.reference),
        num_tokens=PairValues(np.array([3, 5, 5]), np.array([3, 2, 4])),
    )


def first_batch(peer, batch_size):
    settings = dataclasses.replace(SETTINGS, batch_size=batch_size)
    model = dataclasses.replace(peer.policy, params=peer.reference.params)
    return PairBatches(model, PAIRS, None, settings, 0).of_step(0)


def test_texts_become_the_same_tokens(peer, ours):
    """An end token that a response has already is not doubled."""
    batch = first_batch(peer, 3)
    assert sorted(batch.pairs) == [0, 1, 2]
    tokens, mask, action_mask = batch.responses
    for row, pair in enumerate(batch.pairs):
        for side in range(2):
            there = 3 * side + pair
            is_real = peer.inputs["attention_mask"][there].numpy().astype(bool)
            np.testing.assert_array_equal(tokens[row, side][mask[row, side]], peer.inputs["input_ids"][there][is_real])
            count = int(peer.inputs["completion_mask"][there].sum())
            assert action_mask[row, side].sum() == count == ours.num_tokens[side][pair]


def test_log_probs_of_each_response(peer, ours):
    reference = peer.trainer.compute_ref_log_probs(peer.trainer.ref_model, peer.inputs)
    for side, found in zip(reference, ours.reference, strict=True):
        np.testing.assert_allclose(found, side.numpy(), atol=1e-5, rtol=1e-5)
    _, metrics = trl_loss(peer, "sigmoid")
    for side in PairValues._fields:
        mean = getattr(ours.policy, side).mean()
        np.testing.assert_allclose(mean, metrics[f"logps/{side}"], atol=1e-5, rtol=1e-5)
    assert np.abs(ours.policy.chosen - ours.reference.chosen).max() > 0.1


@pytest.mark.parametrize("beta", [0.05, 0.3, 2.0])
@pytest.mark.parametrize(("loss", "theirs"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_losses(peer, ours, loss, theirs, beta):
    settings = dataclasses.replace(SETTINGS, loss=loss, beta=beta)
    wanted, _ = trl_loss(peer, theirs, beta=beta)
    found = pair_losses(settings, ours.policy, ours.reference, ours.num_tokens, 0.0)
    assert found.shape == (len(PAIRS),)
    np.testing.assert_allclose(found.mean(), wanted.item(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.1, 0.4])
def test_label_smoothing(peer, ours, smoothing):
    """TRL 1.16 smooths no sigmoid loss. Its "aot" of a single pair, which needs no sorting, is one;
    and the smoothed mean is the mix of its losses of the labels and of their opposites."""
    margins = jnp.asarray(reward_margins(ours.policy, ours.reference, SETTINGS.beta))
    found = dpo_loss(margins, smoothing)
    for row in range(len(PAIRS)):
        one = {name: rows[[row, 3 + row]] for name, rows in peer.inputs.items()}
        wanted, _ = trl_loss(peer, "aot", one, beta=SETTINGS.beta, label_smoothing=smoothing)
        np.testing.assert_allclose(found[row], wanted.item(), atol=1e-5, rtol=1e-5)
    right, _ = trl_loss(peer, "sigmoid")
    swapped = {name: rows.roll(len(PAIRS), dims=0) for name, rows in peer.inputs.items()}
    wrong, _ = trl_loss(peer, "sigmoid", swapped)
    mixed = (1 - smoothing) * right.item() + smoothing * wrong.item()
    np.testing.assert_allclose(found.mean(), mixed, atol=1e-5, rtol=1e-5)


def test_a_step_has_trls_metrics_and_gradient(peer):
    """With a row of padding, which counts nothing."""
    settings = dataclasses.replace(SETTINGS, batch_size=4)
    batch = first_batch(peer, 4)
    assert batch.is_pair.tolist() == [True, True, True, False]
    peer.trainer.model.zero_grad()
    wanted_loss, wanted = trl_loss(peer, "sigmoid", beta=SETTINGS.beta)
    wanted_loss.backward()
    gradients = [p.grad.norm().item() for p in peer.trainer.model.parameters()]

    state = init_preference(peer.policy.params, settings, len(PAIRS), 1)
    _, found = train_step(peer.policy.config, settings, 1, {}, state, batch)
    np.testing.assert_allclose(found["loss"], wanted_loss.item(), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(found["gradient_norm"], np.linalg.norm(gradients), rtol=1e-4)
    names = {"margin": "margins", "accuracy": "accuracies"}
    for name in ("chosen", "rejected", "margin", "accuracy"):
        theirs = wanted[f"rewards/{names.get(name, name)}"]
        np.testing.assert_allclose(found[f"rewards/{name}"], theirs, atol=1e-5, rtol=1e-5)
    for name in ("logps/chosen", "logps/rejected"):
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5, rtol=1e-5)
    assert 0 < wanted["rewards/accuracies"] < 1
