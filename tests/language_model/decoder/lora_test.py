"""Low-rank updates: laws of adding, their gradients, and a step of training in PEFT."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.language_model.checkpoints.peft_adapters import load_peft_adapter
from eagle_jax.language_model.decoder.config import LoRA
from eagle_jax.language_model.decoder.lora import LORA_LEAVES, LoRAError, add_lora
from eagle_jax.language_model.decoder.transformer import init_params
from eagle_jax.language_model.log_probs import read_text
from eagle_jax.language_model.sharding import MeshSettings, make_mesh, tree_shardings
from eagle_jax.learning.losses import next_token_loss
from tests.language_model.small_checkpoints import config_of

LOW_RANK = LoRA(rank=3, alpha=12.0, targets="attention/(query|output)$|feed_forward/down$")
TOKENS = np.random.default_rng(0).integers(4, 94, (3, 11))
MASK = np.arange(11)[None] < np.array([[11], [7], [9]])


def make_decoder(name, dtype=jnp.float32):
    config = config_of(name)
    params = init_params(config, jax.random.key(0))
    return config, jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def randomised(params):
    """Both halves of every update random: a fresh one is zero."""
    rng = np.random.default_rng(1)

    def leaf(path, old):
        is_low_rank = path[-1].key in LORA_LEAVES
        return jnp.asarray(rng.normal(0, 0.2, old.shape), jnp.float32) if is_low_rank else old

    return jax.tree_util.tree_map_with_path(leaf, params)


@functools.partial(jax.jit, static_argnums=0)
def loss(config, params):
    read = read_text(config, params, TOKENS, MASK)
    return next_token_loss(read, TOKENS, MASK.astype(np.float32))


def test_updates_stand_beside_the_same_arrays_and_change_nothing_yet():
    config, params = make_decoder("llama_biases", jnp.bfloat16)
    adapted_config, adapted = add_lora(config, params, LOW_RANK, jax.random.key(1))
    assert adapted_config == dataclasses.replace(config, lora=LOW_RANK)
    before, after = flatten_dict(params, sep="/"), flatten_dict(adapted, sep="/")
    assert all(after[path] is leaf for path, leaf in before.items())
    new = {path: leaf for path, leaf in after.items() if path not in before}
    assert len(new) == 2 * 2 * 3  # layers, leaves, targets
    assert {leaf.dtype for leaf in new.values()} == {jnp.dtype(jnp.float32)}
    down, up = (new[f"layers/1/feed_forward/down/{leaf}"] for leaf in LORA_LEAVES)
    assert (down.shape, up.shape) == ((72, 3), (3, 48))
    assert not up.any() and 0.9 * 72**-0.5 < jnp.abs(down).max() <= 72**-0.5
    assert jnp.abs(down - new["layers/0/feed_forward/down/lora_down"]).max() > 0.01


def test_gradients_of_an_update_are_projections_of_the_matrix_gradient():
    """W + s A B: dL/dB = s A' dL/dW and dL/dA = s dL/dW B', with dL/dW that of the merged one."""
    config, params = make_decoder("gemma2")
    adapted_config, adapted = add_lora(config, params, LOW_RANK, jax.random.key(1))
    adapted = randomised(adapted)
    low_rank = flatten_dict(jax.grad(loss, argnums=1)(adapted_config, adapted), sep="/")
    values, merged = flatten_dict(adapted, sep="/"), flatten_dict(params, sep="/")
    paths = [path.removesuffix("/lora_up") for path in values if path.endswith("/lora_up")]
    for path in paths:
        merged[f"{path}/kernel"] += 4.0 * values[f"{path}/lora_down"] @ values[f"{path}/lora_up"]
    full = flatten_dict(jax.grad(loss, argnums=1)(config, unflatten_dict(merged, sep="/")), sep="/")
    for path in paths:
        gradient = np.float64(full[f"{path}/kernel"])
        down, up = (np.float64(values[f"{path}/{leaf}"]) for leaf in LORA_LEAVES)
        for leaf, expected in (("down", 4 * gradient @ up.T), ("up", 4 * down.T @ gradient)):
            size = np.abs(expected).max()
            assert size > 1e-4
            np.testing.assert_allclose(low_rank[f"{path}/lora_{leaf}"], expected, atol=1e-4 * size, rtol=1e-4)


@pytest.mark.parametrize("checkpoint", ["llama_biases"], indirect=True)
def test_steps_of_training_are_those_of_peft(checkpoint, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    folder, _ = checkpoint
    theirs = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        peft.LoraConfig(
            r=3, lora_alpha=12, lora_dropout=0.0, target_modules=["q_proj", "down_proj"], init_lora_weights="gaussian"
        ),
    )
    theirs.save_pretrained(tmp_path / "before")
    ours = load_peft_adapter(load_language_model(folder), tmp_path / "before")
    params = ours.params
    optimizer = torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], lr=0.2)
    labels = torch.tensor(np.where(MASK, TOKENS, -100))
    gradient_fn = jax.jit(jax.value_and_grad(loss, argnums=1), static_argnums=0)
    for _ in range(3):
        optimizer.zero_grad()
        their_loss = theirs(
            input_ids=torch.tensor(TOKENS), attention_mask=torch.tensor(MASK.astype(int)), labels=labels
        ).loss
        their_loss.backward()
        optimizer.step()
        our_loss, gradients = gradient_fn(ours.config, params)
        np.testing.assert_allclose(our_loss, their_loss.item(), rtol=1e-5)
        params = jax.tree_util.tree_map_with_path(
            lambda path, p, g: p - 0.2 * g if path[-1].key in LORA_LEAVES else p, params, gradients
        )
    theirs.save_pretrained(tmp_path / "after")
    after = load_peft_adapter(load_language_model(folder), tmp_path / "after").params
    moved = 0.0
    for start, mine, other in zip(*map(jax.tree.leaves, (ours.params, params, after)), strict=True):
        moved = max(moved, float(jnp.abs(other - start).max()))
        np.testing.assert_allclose(mine, other, atol=2e-5)
    assert moved > 0.02


def test_updates_come_to_lie_where_the_base_does():
    config, params = make_decoder("qwen3")
    mesh = make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, first_device=0))
    placed = jax.device_put(params, tree_shardings(mesh, params))
    adapted = add_lora(config, placed, LOW_RANK, jax.random.key(1))[1]
    expected = add_lora(config, params, LOW_RANK, jax.random.key(1))[1]
    attention = adapted["layers"]["0"]["attention"]
    assert {s.data.shape for s in attention["query"]["lora_down"].addressable_shards} == {(24, 3)}
    assert {s.data.shape for s in attention["output"]["lora_up"].addressable_shards} == {(3, 24)}
    for ours, theirs in zip(*map(jax.tree.leaves, (adapted, expected)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_updates_that_cannot_be_are_refused():
    config, params = make_decoder("qwen3")
    nowhere = dataclasses.replace(LOW_RANK, targets="q_proj")  # PyTorch's name
    with pytest.raises(LoRAError, match=r"'q_proj' .* such as .*layers/0/attention/query"):
        add_lora(config, params, nowhere, jax.random.key(1))
    twice = add_lora(config, params, LOW_RANK, jax.random.key(1))
    with pytest.raises(LoRAError, match="has LoRA already"):
        add_lora(*twice, LOW_RANK, jax.random.key(2))
    for change, message in (({"rank": 0}, "rank"), ({"targets": "("}, r"targets '\('")):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(LOW_RANK, **change)
