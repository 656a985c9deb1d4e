"""The local generator and features: text in, text and arrays out."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.prompts import Prompt
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.hf_checkpoints import LanguageModel
from eagle_jax.language_model.hf_config import decoder_config_from_hf
from eagle_jax.language_model.local import LocalFeatures, LocalGenerator, PromptTooLongError
from eagle_jax.language_model.sampling import (
    continue_sampling,
    start_sampling,
    token_log_probs,
)
from eagle_jax.language_model.tokenizer import load_tokenizer
from eagle_jax.language_model.transformer import forward, init_params

SAMPLING = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=12)


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer_writer):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer_writer(folder, with_bos=True)
    config = decoder_config_from_hf(
        {
            "model_type": "llama",
            "vocab_size": 95,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 40,
            "initializer_range": 0.4,
        }
    )
    return LanguageModel(
        "tiny", config, init_params(config, jax.random.key(0)), load_tokenizer(folder)
    )


def prompts(texts, stop=()):
    return [Prompt(text=text, stop=stop, opening="w0") for text in texts]


TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10", "w11 w12", "w2 w2 w2"]


def test_log_probs_and_ids_are_those_of_the_text(model):
    generator = LocalGenerator(model, batch_size=4, length_multiple=8)
    for text, generation in zip(
        TEXTS, generator.generate(prompts(TEXTS), SAMPLING, 7), strict=True
    ):
        ids = model.tokenizer.encode(text) + list(generation.token_ids)
        forced = token_log_probs(
            model.config, model.params, np.array([ids]), np.ones((1, len(ids)), bool), 1.0
        )
        count = len(generation.token_ids)
        np.testing.assert_allclose(forced[0, -count:], generation.log_probs, atol=1e-5)
        assert model.tokenizer.decode(generation.token_ids) == generation.text
        ended = generation.token_ids[-1] == model.tokenizer.eos_id
        assert generation.stop_reason == ("stop" if ended else "length")
        assert ended or count == 12


def test_a_row_depends_on_its_prompt_seed_and_number_only(model):
    generator = LocalGenerator(model, batch_size=4, length_multiple=8)
    whole = generator.generate(prompts(TEXTS), SAMPLING, 7)
    small = LocalGenerator(model, batch_size=2, length_multiple=16)
    for one, other in zip(whole, small.generate(prompts(TEXTS), SAMPLING, 7), strict=True):
        assert one.token_ids == other.token_ids
    swapped = generator.generate(prompts(["w80", *TEXTS[1:]]), SAMPLING, 7)
    assert [g.token_ids for g in swapped[1:]] == [g.token_ids for g in whole[1:]]
    reseeded = generator.generate(prompts(TEXTS), SAMPLING, 8)
    assert [g.token_ids for g in reseeded] != [g.token_ids for g in whole]


def test_a_one_token_stop_string_ends_the_row(model):
    generator = LocalGenerator(model, batch_size=8, length_multiple=8)
    free = generator.generate(prompts(TEXTS), SAMPLING, 7)
    stop = model.tokenizer.decode(free[2].token_ids[3:4])
    mixed = prompts(TEXTS[:2], ("#END_PLOT",)) + prompts(TEXTS[2:], (stop,))
    stopped = generator.generate(mixed, SAMPLING, 7)[2]
    first = free[2].token_ids.index(model.tokenizer.token_id(stop))
    assert stopped.token_ids == free[2].token_ids[: first + 1]  # the stop token is included
    assert len(stopped.log_probs) == first + 1
    assert stop not in stopped.text.split()
    assert stopped.text.split() == free[2].text.split()[:first]
    assert stopped.stop_reason == "stop"


def test_a_stop_string_of_several_tokens_cuts_text_and_ids(model):
    generator = LocalGenerator(model, batch_size=8, length_multiple=8)
    free = generator.generate(prompts(TEXTS), SAMPLING, 7)[2]
    stop = model.tokenizer.decode(free.token_ids[2:4])
    assert model.tokenizer.token_id(stop) is None
    stopped = generator.generate(prompts(TEXTS, (stop,)), SAMPLING, 7)[2]
    assert stopped.token_ids == free.token_ids[:4]
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.stop_reason == "stop"


def test_a_prompt_beyond_the_positions_is_refused_with_its_lengths(model):
    generator = LocalGenerator(model, batch_size=4, length_multiple=8)
    # 40 positions: a beginning token and 27 words leave room for 12 new tokens, one more does not.
    generator.generate(prompts([" ".join(["w1"] * 27)]), SAMPLING, 0)
    with pytest.raises(PromptTooLongError, match="prompt 1 has 29 tokens; with 12 .* 40 positions"):
        generator.generate(prompts(["w1", " ".join(["w1"] * 28)]), SAMPLING, 0)


def test_few_shapes_are_compiled(model):
    start_sampling.clear_cache()
    continue_sampling.clear_cache()
    generator = LocalGenerator(model, batch_size=8, length_multiple=16)
    for count in (5, 6, 7, 8, 11):  # 11 = 8 + 3: the rest is padded to 4
        generator.generate(prompts((TEXTS * 3)[:count]), SAMPLING, count)
    other = generator.with_params(jax.tree.map(lambda leaf: leaf * 1.1, model.params))
    other.generate(prompts(TEXTS), SAMPLING, 0)
    assert start_sampling._cache_size() == 2
    assert continue_sampling._cache_size() == 2


def test_names_tell_weights_apart(model):
    generator = LocalGenerator(model, batch_size=8, length_multiple=16)
    other = generator.with_params(jax.tree.map(lambda leaf: leaf * 1.1, model.params))
    assert generator.name.startswith("tiny@")
    assert generator.name == LocalGenerator(model, 4, 8).name
    assert generator.name != other.name


def test_no_prompts_no_generations(model):
    assert LocalGenerator(model, 4, 8).generate([], SAMPLING, 0) == []


def test_features_are_means_of_hidden_states(model):
    features = LocalFeatures(model, batch_size=4)(TEXTS)
    for text, row in zip(TEXTS, features, strict=True):
        ids = np.array([model.tokenizer.encode(text)])
        states = forward(model.config, model.params, ids, np.ones_like(ids, bool)).hidden_states
        expected = np.concatenate([np.asarray(states)[layer, 0].mean(axis=0) for layer in range(3)])
        np.testing.assert_allclose(row, expected, atol=1e-5)
    assert features.dtype == np.float32


def test_texts_beyond_the_positions_are_cut_and_counted(model, caplog):
    features = LocalFeatures(model, batch_size=4)
    cut, whole = " ".join(["w3"] * 39), " ".join(["w3"] * 60)
    with caplog.at_level("WARNING", logger="absl"):
        both = features([cut, whole])
    np.testing.assert_allclose(both[0], both[1], atol=1e-6)
    assert "1 of 2 texts" in caplog.text


def test_what_has_no_tokens_is_refused(model, tmp_path, tokenizer_writer):
    tokenizer_writer(tmp_path, with_bos=False)
    bare = dataclasses.replace(model, tokenizer=load_tokenizer(tmp_path))
    with pytest.raises(UserError, match="prompt 1 has no tokens"):
        LocalGenerator(bare, 4, 8).generate(prompts(["w1", ""]), SAMPLING, 0)
    with pytest.raises(UserError, match="text 0 has no tokens"):
        LocalFeatures(bare, 4)([""])
