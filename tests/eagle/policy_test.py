"""The policy's arrays, against the tokenizer and the sampler."""

import dataclasses

import numpy as np
import pytest

from eagle_jax.eagle.policy import encode_policy_batch
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.log_probs import score_tokens
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.learning.policy_batch import read_policy_batch

TEMPERATURE = 0.7  # of the episodes that `played` gives


def test_prompts_end_where_actions_begin(toy, played):
    prompts, generations, batch = played
    encode = toy.tokenizer.encode
    longest = max(len(encode(prompt.text)) for prompt in prompts)
    width = batch.tokens.shape[1] - 4
    assert width % 8 == 0 and longest <= width < longest + 8
    assert batch.tokens.shape == batch.mask.shape == (6, width + 4)
    assert batch.action_mask.shape == (6, 4)
    for row, (prompt, generation) in enumerate(zip(prompts, generations, strict=True)):
        length = len(encode(prompt.text))
        assert not batch.mask[row, : width - length].any()
        assert batch.mask[row, width - length : width].all()
        ids = encode(prompt.text)
        np.testing.assert_array_equal(batch.tokens[row, width - length : width], ids)
        written = len(generation.token_ids)
        np.testing.assert_array_equal(batch.tokens[row, width:][:written], generation.token_ids)
        np.testing.assert_array_equal(batch.action_mask[row], np.arange(4) < written)
        np.testing.assert_array_equal(batch.mask[row, width:], batch.action_mask[row])
        if generation.stop_reason == "stop":
            assert generation.token_ids[-1] == toy.tokenizer.token_id("#END_ACTION")


def test_teacher_forced_log_probs_equal_the_sampled_ones(toy, played):
    _, generations, batch = played
    scores = score_tokens(*read_policy_batch(toy.config, toy.params, batch), TEMPERATURE)
    sampled = np.concatenate([generation.log_probs for generation in generations])
    np.testing.assert_allclose(scores.log_probs[batch.action_mask], sampled, atol=1e-4)


def test_no_gradient_reaches_what_comes_after_the_action(toy, played):
    """Tokens of padding, left and right, move no action's scores."""
    _, _, batch = played
    other = batch._replace(tokens=np.where(batch.mask, batch.tokens, 5).astype(np.int32))
    config, params = toy.config, toy.params
    scores, changed = (score_tokens(*read_policy_batch(config, params, rows)) for rows in (batch, other))
    for one, of_other in zip(scores[:2], changed[:2], strict=True):
        np.testing.assert_array_equal(one[batch.action_mask], of_other[batch.action_mask])


def test_remote_and_overlong_generations_are_refused(toy, played):
    for token_ids, message in ((None, "token ids"), ((1,) * 5, "5 tokens, room is for 4")):
        generation = dataclasses.replace(played[1][0], token_ids=token_ids)
        with pytest.raises(ValueError, match=message):
            encode_policy_batch(toy.tokenizer, [generation], 4)


def test_a_prompt_that_was_cut_is_cut_where_it_is_trained_on(toy, played):
    prompts, generations, batch = played
    encode = toy.tokenizer.encode
    positions = len(encode(prompts[0].text)) + 4 - 2  # two fewer than there should be
    config = dataclasses.replace(toy.config, max_position_embeddings=positions)
    generator = LocalGenerator(dataclasses.replace(toy, config=config), 8, 32)
    sampling = SamplingSettings(temperature=0.7, top_k=0, top_p=1.0, max_new_tokens=4)
    cut = generator.generate(prompts[:1], sampling, 0)
    again = encode_policy_batch(toy.tokenizer, cut, 4)
    kept = again.tokens[0][again.mask[0]].tolist()
    # NOTE is the longest block: its last two words go.
    whole, place = encode(prompts[0].text), len(encode(prompts[0].text.split("#END_NOTE")[0])) - 2
    assert kept == [*whole[:place], *whole[place + 2 :], *cut[0].token_ids]
