"""Sampling and training on a mesh, in this process or as one of two:
`python -m tests.learning.mesh_program <folder>`.

The second way restores the state that the first one saved, goes on and saves its own.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.processes import is_primary, join_others
from eagle_jax.data.prompts import Prompt
from eagle_jax.eagle.agent.policy_gradient import Experience, update_agent
from eagle_jax.eagle.agent.state import AgentState, init_agent
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.checkpoints.tokenizer import load_tokenizer
from eagle_jax.language_model.checkpoints.word_tokenizer import write_word_tokenizer
from eagle_jax.language_model.decoder.config import LoRA
from eagle_jax.language_model.decoder.transformer import forward, init_params
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.sampling.local import LocalFeatures, LocalGenerator
from eagle_jax.language_model.sharding import MeshSettings, fetch, make_mesh, mesh_of, on_mesh_of, tree_shardings
from eagle_jax.learning.policy_batch import PolicyBatch
from eagle_jax.learning.supervised import Batch, NextTokenState, init_training, next_token_step
from eagle_jax.learning.trainable import split
from tests.language_model.small_checkpoints import tiny_config
from tests.learning.next_token import next_token_settings
from tests.toy_world import eagle_settings

_SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
CONFIG = dataclasses.replace(
    tiny_config("llama", num_attention_heads=4, num_key_value_heads=2, **_SIZES),
    lora=LoRA(rank=4, alpha=8.0, targets="query|output|down"),
)
NEXT_TOKEN = next_token_settings(learning_rate=1e-3, max_gradient_norm=1.0)
EAGLE = eagle_settings(
    episodes_per_iteration=8,
    horizon=2,
    gae_lambda=0.9,
    kl_coefficient=0.1,
    policy_learning_rate=1e-3,
    value_hidden=(8,),
    value_updates=2,
    minibatch_size=8,
    policy=SamplingSettings(temperature=0.7, top_k=0, top_p=1.0, max_new_tokens=4),
)


def place(settings: MeshSettings | None) -> dict:
    """The same parameters, without a zero, on one device (None) or a mesh."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(CONFIG, jax.random.key(0)))
    host = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)
    if settings is None:
        return jax.device_put(host)
    return jax.device_put(host, tree_shardings(make_mesh(settings), shapes))


def supervised_step(params: dict, state: NextTokenState) -> tuple[NextTokenState, dict]:
    """One step of all parameters."""
    rng = np.random.default_rng(1)
    mask = np.arange(12)[None] < rng.integers(4, 13, (8, 1))
    tokens = rng.integers(2, 96, mask.shape, dtype=np.int32)
    batch = Batch(tokens, mask, mask.astype(np.float32))
    with on_mesh_of(params):
        return next_token_step(CONFIG, NEXT_TOKEN, {}, state, (batch,))


def policy_step(params: dict) -> tuple[AgentState, dict]:
    """One update of the low-rank leaves from invented episodes, in two minibatches."""
    rng = np.random.default_rng(2)
    mask = np.arange(12)[None] >= rng.integers(0, 6, (16, 1))
    tokens = rng.integers(2, 96, mask.shape, dtype=np.int32)
    batch = PolicyBatch(tokens, mask, np.ones((16, 4), bool))
    features, rewards = rng.normal(size=(8, 2, 3)), rng.normal(size=8)
    experience = Experience(batch, features.astype(np.float32), rewards.astype(np.float32))
    trainable, frozen = split(params, "lora")
    reference = jax.tree.map(lambda leaf: leaf * 0.5, trainable)
    with on_mesh_of(params):
        state = init_agent(trainable, 3, EAGLE, jax.random.key(4))
        return update_agent(CONFIG, EAGLE, frozen, reference, state, experience)


def logits(params: dict) -> jax.Array:
    tokens = np.random.default_rng(3).integers(2, 96, (8, 10), dtype=np.int32)
    with on_mesh_of(params):
        return forward(CONFIG, params, tokens, np.ones((8, 10), bool)).logits


def write_tokenizer(folder: Path) -> None:
    """One that has a few words of the vocabulary."""
    write_word_tokenizer([f"w{index}" for index in range(60)], folder)


def generated(params: dict, tokenizer: Path) -> dict[str, np.ndarray]:
    """Tokens [texts, N] that a generator writes after prompts with a beginning in common, and
    features of texts."""
    model = LanguageModel("small", CONFIG, params, load_tokenizer(tokenizer))
    texts = ["w1 w2 w3 w4 w5 " * 2 + f"w{row}" for row in range(6)]
    prompts = [Prompt(text=text, opening="", stop=("w7",)) for text in texts]
    sampling = SamplingSettings(temperature=0.7, top_k=0, top_p=0.9, max_new_tokens=6)
    made = LocalGenerator(model, 8, 8).generate(prompts, sampling, seed=5)
    rows = [[*text.token_ids, *[-1] * 6][:6] for text in made]
    features = LocalFeatures(model, 8)(texts)
    return {"tokens": np.array(rows), "features": features}


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """Whole arrays by path, in every process."""
    flat = jax.tree_util.tree_leaves_with_path(fetch(tree))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def assert_stored_in_parts(tree: Any, mesh: Mesh) -> None:
    """Every leaf lies as the table says: the matrices in parts."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    for (path, leaf), wanted in zip(flat, jax.tree.leaves(tree_shardings(mesh, tree)), strict=True):
        assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim), path
        part = leaf.addressable_shards[0].data
        if leaf.ndim == 2 and min(leaf.shape) >= mesh.size:
            assert part.size * mesh.shape["fsdp"] * mesh.shape["tensor"] == leaf.size, path


def main(folder: Path) -> None:
    join_others()
    params = place(MeshSettings(data=2, fsdp=2, tensor=2, first_device=0))
    results = {"logits": logits(params), "policy": policy_step(params)}
    results["generated"] = generated(params, folder / "tokenizer")
    saved = Checkpoints(folder / "from_one", digest="abc", max_to_keep=1)
    _, state = saved.restore_latest(init_training(params, NEXT_TOKEN))
    results["next_token"] = supervised_step(params, state)
    assert_stored_in_parts(results["next_token"][0], mesh_of(params))
    Checkpoints(folder / "from_two", digest="abc", max_to_keep=1).save(2, results["next_token"][0])
    whole = leaves(results)
    if is_primary():
        np.savez(folder / "whole.npz", allow_pickle=False, **whole)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
