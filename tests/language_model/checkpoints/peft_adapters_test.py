"""Low-rank updates travel to PyTorch and back: merged, and as adapters of PEFT."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from eagle_jax.base.tensor_files import CheckpointError
from eagle_jax.language_model.checkpoints.hf_checkpoints import (
    load_language_model,
    parameter_shapes,
    save_language_model,
)
from eagle_jax.language_model.checkpoints.peft_adapters import load_peft_adapter, save_peft_adapter
from eagle_jax.language_model.decoder.config import LoRA
from eagle_jax.language_model.sharding import MeshSettings, make_mesh
from tests.language_model.small_checkpoints import load_in_torch, our_logits, their_logits

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
# What is tested here does not depend on the family; biases stand beside the updates.
pytestmark = pytest.mark.parametrize("checkpoint", ["llama_biases"], indirect=True, scope="session")


def flat(model):
    return flatten_dict(model.params, sep="/")


def adapted(model, lora):
    """The model with random low-rank updates, both of whose halves matter."""
    config = dataclasses.replace(model.config, lora=lora)
    rng = np.random.default_rng(3)
    params = {
        path: rng.normal(0.0, 0.3, leaf.shape).astype(np.float32) for path, leaf in parameter_shapes(config).items()
    } | flat(model)
    return dataclasses.replace(model, config=config, params=unflatten_dict(params, sep="/"))


EVERYWHERE = LoRA(rank=3, alpha=7.0, targets="layers/")
SOME = LoRA(rank=2, alpha=4.0, targets=r"layers/1/attention/(query|output)$|layers/0/feed_forward/down")
QUERY_VALUE = LoRA(rank=4, alpha=8.0, targets="attention/(query|value)$")


@pytest.mark.parametrize("lora", [EVERYWHERE, SOME], ids=["everywhere", "some"])
def test_transformers_reads_the_merged_model(checkpoint, tmp_path, lora):
    model = adapted(load_language_model(checkpoint[0]), lora)
    save_language_model(model, tmp_path, "float32")
    expected = our_logits(model)
    assert np.abs(expected - our_logits(load_language_model(checkpoint[0]))).max() > 0.1
    np.testing.assert_allclose(their_logits(tmp_path), expected, atol=1e-4)
    again = load_language_model(tmp_path)
    assert again.config == dataclasses.replace(model.config, lora=None)
    np.testing.assert_allclose(our_logits(again), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("lora", "targets"),
    [
        (QUERY_VALUE, ["q_proj", "v_proj"]),
        (SOME, ["model.layers.0.mlp.down_proj", "model.layers.1.self_attn.o_proj", "model.layers.1.self_attn.q_proj"]),
    ],
    ids=["query_value", "some"],
)
def test_peft_loads_the_adapter_and_so_do_we(checkpoint, tmp_path, lora, targets):
    base = load_language_model(checkpoint[0])
    model = adapted(base, lora)
    save_peft_adapter(model, tmp_path, base=str(checkpoint[0]))
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == targets
    theirs = peft.PeftModel.from_pretrained(load_in_torch(checkpoint[0]), tmp_path).eval()
    np.testing.assert_allclose(their_logits(theirs), our_logits(model), atol=1e-4)
    by_itself = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path)
    np.testing.assert_allclose(their_logits(by_itself), our_logits(model), atol=1e-4)

    again = load_peft_adapter(base, tmp_path)
    assert (again.config.lora.rank, again.config.lora.alpha) == (lora.rank, lora.alpha)
    ours, theirs = flat(model), flat(again)
    assert ours.keys() == theirs.keys()
    for path, leaf in theirs.items():
        np.testing.assert_array_equal(leaf, ours[path])
    # The base is shared, not copied.
    assert again.params["token_embedding"] is base.params["token_embedding"]
    with pytest.raises(ValueError, match="already"):
        load_peft_adapter(again, tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "gate_proj"]},
        {"target_modules": "all-linear", "use_rslora": True},
        {"target_modules": ["o_proj"], "layers_to_transform": [1]},
        {"target_modules": r".*\.1\.mlp\.(up|down)_proj", "init_lora_weights": "gaussian"},
    ],
    ids=["names", "rslora", "one_layer", "pattern"],
)
def test_an_adapter_written_by_peft_is_read(checkpoint, tmp_path, settings):
    config = peft.LoraConfig(r=5, lora_alpha=11, task_type="CAUSAL_LM", **settings)
    torch.manual_seed(1)
    theirs = peft.get_peft_model(load_in_torch(checkpoint[0]), config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.3)
    theirs.save_pretrained(tmp_path)
    base = load_language_model(checkpoint[0])
    ours = load_peft_adapter(base, tmp_path)
    assert np.abs(our_logits(ours) - our_logits(base)).max() > 0.1
    np.testing.assert_allclose(our_logits(ours), their_logits(theirs), atol=1e-4)
    # Merging there and here gives the same checkpoint.
    save_language_model(ours, tmp_path / "merged", "float32")
    merged = {name: value.detach().numpy() for name, value in theirs.merge_and_unload().named_parameters()}
    stored = safetensors.numpy.load_file(tmp_path / "merged" / "model.safetensors")
    assert stored.keys() == merged.keys()
    for name, value in stored.items():
        np.testing.assert_allclose(value, merged[name], atol=1e-6, err_msg=name)


def test_an_adapter_comes_to_lie_where_its_base_does(checkpoint, tmp_path):
    model = adapted(load_language_model(checkpoint[0]), QUERY_VALUE)
    save_peft_adapter(model, tmp_path, base=str(checkpoint[0]))
    mesh = make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, first_device=0))
    ours = load_peft_adapter(load_language_model(checkpoint[0], mesh=mesh), tmp_path)
    query = ours.params["layers"]["0"]["attention"]["query"]
    assert query["lora_down"].sharding.mesh == query["kernel"].sharding.mesh == mesh
    assert {shard.data.shape for shard in query["lora_down"].addressable_shards} == {(24, 4)}
    np.testing.assert_array_equal(query["lora_down"], model.params["layers"]["0"]["attention"]["query"]["lora_down"])


@pytest.fixture(scope="module")
def saved(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    base = load_language_model(checkpoint[0])
    save_peft_adapter(adapted(base, QUERY_VALUE), folder, base=str(checkpoint[0]))
    return base, folder


def damaged(folder, target, config=None, tensors=None):
    """A copy of an adapter with other values of the config or other tensors (None: taken out)."""
    config_json = json.loads((folder / "adapter_config.json").read_text()) | (config or {})
    config_json = {key: value for key, value in config_json.items() if value != "absent"}
    (target / "adapter_config.json").write_text(json.dumps(config_json))
    stored = safetensors.numpy.load_file(folder / "adapter_model.safetensors") | (tensors or {})
    kept = {name: value for name, value in stored.items() if value is not None}
    safetensors.numpy.save_file(kept, target / "adapter_model.safetensors")
    return target


QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"use_dora": True}, {}, "adapter_config.json: use_dora = True is not supported"),
        ({"peft_type": "IA3"}, {}, "adapter_config.json: peft_type = 'IA3'"),
        ({"bias": "all"}, {}, "adapter_config.json: bias = 'all'"),
        ({"init_lora_weights": "pissa"}, {}, "init_lora_weights = 'pissa'"),
        ({"rank_pattern": {"q_proj": 3}}, {}, "rank_pattern = {'q_proj': 3}"),
        ({"r": "absent"}, {}, "adapter_config.json: r must be"),
        ({"r": 5}, {}, rf"adapter_model.safetensors: tensor {QUERY}.lora_A.weight has shape"),
        ({}, {f"{QUERY}.lora_B.weight": None}, f"tensor {QUERY}.lora_B.weight is missing"),
        (
            {},
            {"base_model.model.lm_head.lora_A.weight": np.ones((4, 48), np.float32)},
            "adapter_model.safetensors: tensor base_model.model.lm_head.lora_A.weight is no low",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused(saved, tmp_path, config, tensors, message):
    base, folder = saved
    with pytest.raises(CheckpointError, match=message):
        load_peft_adapter(base, damaged(folder, tmp_path, config, tensors))


def test_files_that_are_not_there_are_named(saved, tmp_path):
    base, folder = saved
    with pytest.raises(ValueError, match="no low-rank updates to save"):
        save_peft_adapter(base, tmp_path, base="base")
    assert not list(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match="adapter_config.json: not found"):
        load_peft_adapter(base, tmp_path)
    damaged(folder, tmp_path)
    safetensors.numpy.save_file({}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="has no low-rank updates"):
        load_peft_adapter(base, tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="adapter_model.safetensors: not found"):
        load_peft_adapter(base, tmp_path)
