"""Sampling against teacher forcing and `transformers`; its laws."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.language_model.decoder.transformer import forward, init_params
from eagle_jax.language_model.sampling.sampling import continue_sampling, read_prompts, sample, sampled, start_sampling
from eagle_jax.language_model.sampling.token_drawing import Drawing
from tests.language_model.forced import token_log_probs
from tests.language_model.small_checkpoints import tiny_config

CONFIG = tiny_config("qwen3", vocab_size=50, num_key_value_heads=1, head_dim=8, initializer_range=0.5)
NO_STOP = jnp.array([-1])
# Every kind of position, window, head and block; what else families differ in does not reach a cache.
CACHED_OTHERWISE = ("gemma2", "gemma3", "gpt2", "gpt_neox", "granite", "llama3_2", "olmo2", "phi", "phi3")
CACHED_OTHERWISE += ("qwen2_window", "smollm3")


@pytest.fixture(scope="module")
def params():
    return init_params(CONFIG, jax.random.key(0))


def prompts(lengths=(5, 2, 7, 4), width=7, seed=0):
    rng = np.random.default_rng(seed)
    tokens = np.zeros((len(lengths), width), np.int32)
    mask = np.zeros((len(lengths), width), bool)
    for row, length in enumerate(lengths):
        tokens[row, width - length :] = rng.integers(0, 50, length)
        mask[row, width - length :] = True
    return tokens, mask


def row_keys(seed, count):
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(count))


def drawing(temperature=0.7, top_k=0, top_p=1.0, stop=NO_STOP):
    return Drawing(jnp.float32(temperature), jnp.int32(top_k), jnp.float32(top_p), stop)


def draw(params, tokens, mask, seed=1, *, config=CONFIG, new=9, **settings):
    keys = row_keys(seed, len(tokens))
    return sample(config, params, tokens, mask, keys, drawing(**settings), max_new_tokens=new)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(0.7, 0, 1.0), (1.3, 0, 0.6), (1.3, 4, 0.9), (0.0, 0, 1.0)]
)
def test_log_probs_are_those_of_teacher_forcing(params, temperature, top_k, top_p):
    tokens, mask = prompts()
    output = draw(params, tokens, mask, temperature=temperature, top_k=top_k, top_p=top_p)
    whole = jnp.concatenate([tokens, output.tokens], axis=1)
    whole_mask = jnp.concatenate([mask, output.mask], axis=1)
    forced = token_log_probs(CONFIG, params, whole, whole_mask, temperature)
    np.testing.assert_allclose(forced[:, -9:], output.log_probs, atol=1e-5)
    # Padding and the first real token have nothing before them.
    assert np.all(np.asarray(forced)[0, :2] == 0)


def test_a_row_does_not_depend_on_its_batch_or_padding(params):
    tokens, mask = prompts()
    together = draw(params, tokens, mask, top_p=0.8)
    wider = draw(params, np.pad(tokens, ((0, 3), (5, 0))), np.pad(mask, ((0, 3), (5, 0))), top_p=0.8)
    np.testing.assert_array_equal(together.tokens, wider.tokens[:4])
    np.testing.assert_allclose(together.log_probs, wider.log_probs[:4], atol=1e-5)
    assert not wider.mask[4:].any()
    assert not wider.stopped[4:].any()


def test_frequencies_of_first_tokens_are_the_probabilities(params):
    # 2,000 rows of one prompt; Pearson's statistic against the exact distribution. With a fixed
    # seed it either passes or not; the bar is the 0.999 quantile of chi-square.
    stats = pytest.importorskip("scipy.stats")
    tokens, mask = prompts((6,), 6)
    count = 2000
    output = draw(params, np.repeat(tokens, count, 0), np.repeat(mask, count, 0), temperature=1.5, new=1)
    whole = np.concatenate([np.repeat(tokens, 50, 0), np.arange(50)[:, None]], axis=1)
    probs = np.exp(token_log_probs(CONFIG, params, whole, np.ones_like(whole, bool), 1.5)[:, -1])
    assert probs.sum() == pytest.approx(1, abs=1e-4)
    observed = np.bincount(np.asarray(output.tokens)[:, 0], minlength=50)
    common = probs * count >= 5
    observed = np.append(observed[common], observed[~common].sum())
    expected = np.append(probs[common], probs[~common].sum()) * count
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert statistic < stats.chi2.ppf(0.999, len(expected) - 1)


@pytest.mark.parametrize("family_checkpoint", CACHED_OTHERWISE, indirect=True)
def test_greedy_is_generate_of_transformers(family_checkpoint):
    import torch

    folder, theirs = family_checkpoint
    ours = load_language_model(folder)
    rng = np.random.default_rng(3)
    tokens, mask = rng.integers(4, 94, (3, 9)), np.ones((3, 9), bool)
    mask[1, :4] = mask[2, :7] = False
    expected = theirs.generate(
        input_ids=torch.tensor(tokens),
        attention_mask=torch.tensor(mask.astype(int)),
        do_sample=False,
        max_new_tokens=10,
        eos_token_id=[],
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    output = draw(ours.params, tokens, mask, temperature=0.0, new=10, config=ours.config)
    np.testing.assert_array_equal(output.tokens, expected.sequences[:, 9:])
    log_probs = torch.stack(expected.logits, dim=1).log_softmax(dim=-1).amax(dim=-1)
    np.testing.assert_allclose(output.log_probs, log_probs, atol=1e-4)


def test_a_real_checkpoint_gives_its_stored_reference(eagle_data):
    folder = eagle_data / "lm" / "tinystories-656k"
    reference = json.loads((folder / "reference.json").read_text())
    model = load_language_model(folder)
    assert model.tokenizer.encode(reference["text"]) == reference["ids"]
    tokens, mask = model.tokenizer.left_pad([reference["ids"]], 16)
    last = np.asarray(forward(model.config, model.params, tokens, mask).logits[0, -1])
    assert last.argmax() == reference["last_logits_argmax"]
    np.testing.assert_allclose(last[:8], reference["last_logits_first8"], atol=1e-4)
    np.testing.assert_allclose(last.mean(), reference["last_logits_mean"], atol=1e-4)
    np.testing.assert_allclose(last.std(), reference["last_logits_std"], atol=1e-4)
    output = draw(model.params, tokens, mask, temperature=0.0, new=24, config=model.config)
    assert output.tokens[0].tolist() == reference["greedy24"]


def test_stop_tokens_end_rows_and_the_loop(params):
    tokens, mask = prompts()
    free = draw(params, tokens, mask)
    stop = jnp.array([int(free.tokens[0, 2]), int(free.tokens[1, 4])])
    output = draw(params, tokens, mask, stop=stop)
    for row in range(4):
        hits = np.isin(free.tokens[row], stop)
        length = int(hits.argmax()) + 1 if hits.any() else 9
        assert bool(output.stopped[row]) == bool(hits.any())
        np.testing.assert_array_equal(output.mask[row], np.arange(9) < length)
        np.testing.assert_array_equal(output.tokens[row, :length], free.tokens[row, :length])
        assert not output.tokens[row, length:].any()
        assert not output.log_probs[row, length:].any()


def test_the_loop_ends_with_its_last_row(params):
    tokens, mask = prompts()
    for stop, steps in ((jnp.arange(50), 1), (jnp.full((50,), -1), 9)):
        keys = row_keys(0, 4)
        state = start_sampling(
            CONFIG, params, tokens, mask, None, keys, drawing(stop=stop), None, None, max_new_tokens=9
        )
        assert continue_sampling(CONFIG, params, state, keys, drawing(stop=stop), 9).step == steps


def test_what_is_drawn_does_not_depend_on_where_calls_are_split(params):
    tokens, mask = prompts()
    whole = draw(params, tokens, mask, seed=3, top_k=20, top_p=0.9)
    settings = drawing(top_k=20, top_p=0.9)
    keys = row_keys(3, 4)
    state = start_sampling(CONFIG, params, tokens, mask, None, keys, settings, None, None, max_new_tokens=9)
    for count in (1, 3, 4, 9, 9):
        state = continue_sampling(CONFIG, params, state, keys, settings, count)
    chex.assert_trees_all_equal(whole, sampled(state))


def test_slots_that_nobody_needs_change_no_token(params):
    tokens, mask = prompts()
    keys = row_keys(3, 4)
    made = []
    for room in (9, 9 + 7):
        state = start_sampling(
            CONFIG, params, tokens, mask, None, keys, drawing(), None, None, max_new_tokens=9, room=room
        )
        made.append(sampled(continue_sampling(CONFIG, params, state, keys, drawing(), 9)))
    chex.assert_trees_all_close(*made, atol=1e-5)
    assert (made[0].tokens == made[1].tokens).all() and made[0].mask.sum() > 20


def test_settings_stop_tokens_and_seed_share_one_compilation(params):
    read_prompts.clear_cache()
    continue_sampling.clear_cache()
    tokens, mask = prompts()
    for seed, temperature, top_k, top_p in ((0, 0.5, 0, 1.0), (1, 0.0, 7, 0.9), (2, 1.0, 3, 0.5)):
        stop = jnp.array([seed])
        draw(params, tokens, mask, seed, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop)
    assert read_prompts._cache_size() == 1
    assert continue_sampling._cache_size() == 1
