"""Batches that share beginnings against the same batches read row by row."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel, save_language_model
from eagle_jax.language_model.checkpoints.tokenizer import load_tokenizer
from eagle_jax.language_model.decoder.transformer import init_params
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.sampling import batch as batch_sampling
from eagle_jax.language_model.sampling.batch import _few_sizes, sample_batch
from eagle_jax.language_model.sampling.shared_prefixes import split_prompts
from eagle_jax.language_model.sampling.token_drawing import drawing_of
from eagle_jax.language_model.sharding import MeshSettings, make_mesh, tree_shardings
from tests.language_model.forced import token_log_probs
from tests.language_model.small_checkpoints import config_of, load_in_torch

SAMPLING = SamplingSettings(temperature=0.8, top_k=0, top_p=0.95, max_new_tokens=9)
VECTORS = np.random.default_rng(7).normal(size=(2, 48)).astype(np.float32)
SOFT = 100  # the vocabulary's size: the token that stands for VECTORS[0]


@pytest.fixture(scope="module")
def make_model(tmp_path_factory, tokenizer_writer):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer_writer(folder, with_bos=False)

    def make(name):
        config = config_of(name)
        return LanguageModel(name, config, init_params(config, jax.random.key(0)), load_tokenizer(folder))

    return make


def prompts(num_beginnings=2):
    """Long beginnings with an embedding each, of different lengths, and different ends.

    With windows of five tokens, the ends' first tokens look across the padding before them.
    """
    rng = np.random.default_rng(0)
    first, second = rng.integers(4, 94, 18).tolist(), rng.integers(4, 94, 13).tolist()
    first[3], second[12] = SOFT, SOFT + 1
    ends = [rng.integers(4, 94, length).tolist() for length in (1, 4, 3, 6, 2, 1, 4, 2)]
    ends[2][1] = SOFT
    return [(second, first)[row % num_beginnings] + end for row, end in enumerate(ends)]


def run(model, rows, vectors=VECTORS, sampling=SAMPLING, stop=(2,)):
    keys = jax.random.split(jax.random.key(5), 12)  # four rows of padding
    return sample_batch(model, rows, vectors, keys, sampling, stop, None, 8)


@pytest.mark.parametrize(
    ("name", "num_beginnings", "num_read"), [("llama", 1, 1), ("llama", 2, 4), ("qwen3", 2, 4), ("gemma3", 2, 4)]
)
def test_shared_beginnings_change_no_token(make_model, monkeypatch, name, num_beginnings, num_read):
    model, splits = make_model(name), []

    def splitting(rows, multiple):
        splits.append(split_prompts(rows, multiple))
        return splits[-1]

    monkeypatch.setattr(batch_sampling, "split_prompts", splitting)
    rows = prompts(num_beginnings)
    shared = run(model, rows)
    assert (len(splits[0].prefixes), splits[0].suffix_length) == (num_read, 8)
    monkeypatch.setattr(batch_sampling, "split_prompts", lambda rows, multiple: None)
    alone = run(model, rows)
    np.testing.assert_array_equal(shared.tokens, alone.tokens)
    np.testing.assert_array_equal(shared.mask, alone.mask)
    np.testing.assert_allclose(shared.log_probs, alone.log_probs, atol=1e-4)
    assert alone.mask[:8].sum() > 40
    assert not alone.mask[8:].any()


def test_repeated_tokens_are_penalised_as_in_transformers_and_shared_beginnings_count(
    make_model, monkeypatch, tmp_path
):
    torch = pytest.importorskip("torch")
    model = make_model("llama")
    save_language_model(model, tmp_path, "float32")
    rows = [[*range(10, 25), *end] for end in ([30, 31], [40, 41], [50, 31], [30, 60])]
    expected = load_in_torch(tmp_path).generate(
        input_ids=torch.tensor(rows),
        attention_mask=torch.ones(4, 17, dtype=int),
        do_sample=False,
        repetition_penalty=1.8,
        max_new_tokens=9,
        eos_token_id=[],
        pad_token_id=0,
    )[:, 17:]
    greedy = dataclasses.replace(SAMPLING, temperature=0.0)
    penalised = run(model, rows, sampling=dataclasses.replace(greedy, repetition_penalty=1.8), stop=[])
    np.testing.assert_array_equal(penalised.tokens[:4], expected)
    assert (penalised.tokens != run(model, rows, sampling=greedy, stop=[]).tokens).any()
    assert split_prompts(rows, 8) is not None


@pytest.mark.parametrize("num_beginnings", [1, 2])
def test_shared_beginnings_on_a_mesh(make_model, num_beginnings):
    model, rows = make_model("gemma3"), prompts(num_beginnings)
    mesh = make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, first_device=0))
    params = jax.device_put(model.params, tree_shardings(mesh, model.params))
    on_mesh = run(dataclasses.replace(model, params=params), rows)
    alone = run(model, rows)
    np.testing.assert_array_equal(on_mesh.tokens, alone.tokens)
    np.testing.assert_allclose(on_mesh.log_probs, alone.log_probs, atol=1e-4)


def test_embeddings_tell_beginnings_apart(make_model):
    model = make_model("llama")
    one, other = [[*range(10, 20), SOFT + index, 30, 31] for index in (0, 1)]
    output = run(model, [one, other] * 4)
    same = run(model, [one, other] * 4, VECTORS[[0, 0]])
    assert (output.log_probs[0::2][:4] == same.log_probs[0::2][:4]).all()
    assert (output.log_probs[1::2][:4, 0] != same.log_probs[1::2][:4, 0]).all()


def test_bfloat16_parameters_have_bfloat16_caches_and_float32_log_probs(make_model):
    model = make_model("qwen3")
    params = jax.tree.map(lambda leaf: np.asarray(leaf).astype(jnp.bfloat16), model.params)
    model = dataclasses.replace(model, params=params)
    rows = [[*range(10, 25), end] for end in range(30, 38)]
    shared = split_prompts(rows, 8)
    assert shared is not None
    output = run(model, rows, np.zeros((0, 0)))
    assert output.log_probs.dtype == np.float32
    # Teacher forcing with the same rounded parameters: 8 bits of mantissa.
    whole = np.concatenate([np.array(rows), output.tokens[:8]], axis=1)
    mask = np.concatenate([np.ones((8, 16), bool), output.mask[:8]], axis=1)
    forced = np.asarray(token_log_probs(model.config, params, whole, mask, 0.8))[:, -9:]
    np.testing.assert_allclose(forced, output.log_probs[:8], atol=0.1)
    state, shared = batch_sampling._start(
        model, rows, np.zeros((0, 0)), jax.random.split(jax.random.key(0), 8), drawing_of(SAMPLING, [2]), None, 9, 8
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((state.caches, shared))} == {jnp.dtype(jnp.bfloat16)}


def test_one_beginning_is_kept_once_for_all_rows(make_model):
    model = make_model("llama")
    rows = prompts(1)
    state, shared = batch_sampling._start(
        model, rows, VECTORS, jax.random.split(jax.random.key(0), 8), drawing_of(SAMPLING, [2]), None, 9, 8
    )
    assert {kv.keys.shape[0] for kv in shared} == {1}
    assert {kv.keys.shape[::3] for kv in state.caches} == {(8, state.prompt_mask.shape[1] - shared[0].keys.shape[3])}


def test_a_range_of_lengths_has_few_sizes():
    needed = np.arange(1, 4097)
    given = np.array([_few_sizes(int(count)) for count in needed])
    assert (needed <= given).all() and (given <= 1.25 * needed + 1).all()
    assert len(np.unique(given[512:])) == 4 * 3  # four sizes of each power of two
