"""The local generator and features: text in, text and arrays out."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import Prompt
from eagle_jax.language_model.checkpoints.chat_template import ChatTemplate
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.checkpoints.tokenizer import load_tokenizer
from eagle_jax.language_model.decoder.transformer import forward, init_params
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.sampling import batch as batch_sampling
from eagle_jax.language_model.sampling import local
from eagle_jax.language_model.sampling.local import LocalFeatures, LocalGenerator, PromptTooLongError
from eagle_jax.language_model.sampling.sampling import continue_sampling, read_prompts
from tests.language_model.forced import token_log_probs
from tests.language_model.small_checkpoints import tiny_config

SAMPLING = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=12)


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer_writer):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer_writer(folder, with_bos=True)
    config = tiny_config("llama", vocab_size=95, max_position_embeddings=40, initializer_range=0.4)
    return LanguageModel("tiny", config, init_params(config, jax.random.key(0)), load_tokenizer(folder))


def prompts(texts, stop=()):
    return [Prompt(text=text, stop=stop, opening="w0") for text in texts]


TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10", "w11 w12", "w2 w2 w2"]


@pytest.fixture(scope="module")
def generator(model):
    return LocalGenerator(model, batch_size=4, length_multiple=8)


@pytest.fixture(scope="module")
def free(generator):
    """What is written of TEXTS where nothing stops it."""
    return generator.generate(prompts(TEXTS), SAMPLING, 7)


def test_log_probs_and_ids_are_those_of_the_text(model, free):
    tokenizer = model.tokenizer
    starts = [tokenizer.encode(text) for text in TEXTS]
    tokens, mask = tokenizer.right_pad([ids + list(made.token_ids) for ids, made in zip(starts, free, strict=True)], 32)
    forced = token_log_probs(model.config, model.params, tokens, mask, 1.0)
    for row, (start, generation) in enumerate(zip(starts, free, strict=True)):
        count = len(generation.token_ids)
        drawn = forced[row, len(start) - 1 : len(start) - 1 + count]
        np.testing.assert_allclose(drawn, generation.log_probs, atol=3e-5)
        assert tokenizer.decode(generation.token_ids) == generation.text
        ended = generation.token_ids[-1] == tokenizer.eos_id
        assert generation.stop_reason == ("stop" if ended else "length")
        assert ended or count == 12


def test_an_answer_goes_on_from_its_start_and_has_it(model, generator):
    begun = [dataclasses.replace(prompt, answer_start=" w11 w12") for prompt in prompts(TEXTS)]
    longer = generator.generate(prompts([f"{text} w11 w12" for text in TEXTS]), SAMPLING, 7)
    for made, whole in zip(generator.generate(begun, SAMPLING, 7), longer, strict=True):
        assert (made.token_ids, made.prompt_token_ids) == (whole.token_ids, whole.prompt_token_ids)
        assert made.text == f"w11 w12{whole.text}"


def test_a_row_depends_on_its_prompt_seed_and_number_only(model, generator, free):
    small = LocalGenerator(model, batch_size=2, length_multiple=16)
    for one, other in zip(free, small.generate(prompts(TEXTS), SAMPLING, 7), strict=True):
        assert one.token_ids == other.token_ids
    swapped = generator.generate(prompts(["w80", *TEXTS[1:]]), SAMPLING, 7)
    assert [g.token_ids for g in swapped[1:]] == [g.token_ids for g in free[1:]]
    reseeded = generator.generate(prompts(TEXTS), SAMPLING, 8)
    assert [g.token_ids for g in reseeded] != [g.token_ids for g in free]


def test_a_one_token_stop_string_ends_the_row(model, generator, free):
    stop = model.tokenizer.decode(free[2].token_ids[3:4])
    mixed = prompts(TEXTS[:2], ("#END_PLOT",)) + prompts(TEXTS[2:], (stop,))
    stopped = generator.generate(mixed, SAMPLING, 7)[2]
    first = free[2].token_ids.index(model.tokenizer.token_id(stop))
    assert stopped.token_ids == free[2].token_ids[: first + 1]  # the stop token is included
    assert len(stopped.log_probs) == first + 1
    assert stop not in stopped.text.split()
    assert stopped.text.split() == free[2].text.split()[:first]
    assert stopped.stop_reason == "stop"


class WithoutHash:
    """A tokenizer whose vocabulary has no #: it reads and writes everything without."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def encode(self, text):
        return self.tokenizer.encode(text.replace("#", ""))

    def encode_prompt(self, text):
        return self.tokenizer.encode_prompt(text.replace("#", ""))


def test_a_stop_string_that_the_vocabulary_lacks_is_looked_for_as_it_is_written(model, generator, free):
    stop = model.tokenizer.decode(free[2].token_ids[2:4])
    blind = dataclasses.replace(generator, model=dataclasses.replace(model, tokenizer=WithoutHash(model.tokenizer)))
    known = generator.generate(prompts(TEXTS, (stop,)), SAMPLING, 7)
    assert blind.generate(prompts(TEXTS, (f"#{stop}",)), SAMPLING, 7) == known
    assert known[2].stop_reason == "stop" and generator.generate(prompts(TEXTS, (f"#{stop}",)), SAMPLING, 7) != known


def test_a_stop_string_of_several_tokens_cuts_text_and_ids(model, generator, free):
    stop = model.tokenizer.decode(free[2].token_ids[2:4])
    assert model.tokenizer.token_id(stop) is None
    stopped = generator.generate(prompts(TEXTS, (stop,)), SAMPLING, 7)[2]
    assert stopped.token_ids == free[2].token_ids[:4]
    assert stopped.text == free[2].text[: free[2].text.index(stop)]
    assert stopped.stop_reason == "stop"


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_stop_strings_of_several_tokens_end_the_loop(model, generator, monkeypatch, chunk):
    # Greedy rows of one prompt are alike: all stop at the same token, and the loop soon after.
    greedy = SamplingSettings(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=24)
    free = generator.generate(prompts(TEXTS[:1] * 3), greedy, 7)[0]
    stop = model.tokenizer.decode(free.token_ids[4:6])
    needed = next(n for n in range(1, 7) if stop in model.tokenizer.decode(free.token_ids[:n]))
    num_drawn = []

    def spying(*arguments):
        state = continue_sampling(*arguments)
        num_drawn.append(int(state.step))
        return state

    monkeypatch.setattr(batch_sampling, "continue_sampling", spying)
    monkeypatch.setattr(batch_sampling, "_CHUNK", chunk)
    for generation in generator.generate(prompts(TEXTS[:1] * 3, (stop,)), greedy, 7):
        assert generation.token_ids == free.token_ids[:needed]
        assert generation.stop_reason == "stop"
    assert num_drawn[-1] == min(len(free.token_ids), -(-needed // chunk) * chunk)


def test_what_is_cut_from_a_prompt_is_counted(model, generator, caplog):
    # 40 positions, 12 new tokens: a beginning token and 27 words; 32 words are five too many.
    def prompt(words):
        liked = " ".join(f"w{word}" for word in range(words))
        return Prompt(f"w80 #BEGIN_LIKED {liked} #END_LIKED w81", (), "w0", ("LIKED",))

    with caplog.at_level("WARNING", logger="absl"):
        long, short = generator.generate([prompt(28), prompt(3)], SAMPLING, 7)
    assert "1 of 2 prompts are too long for the 40 positions of tiny" in caplog.text
    assert "5 tokens are cut" in caplog.text
    fitting, _ = generator.generate([prompt(23), prompt(3)], SAMPLING, 7)
    encode = model.tokenizer.encode_prompt
    assert long.prompt_token_ids == fitting.prompt_token_ids == tuple(encode(prompt(23).text))
    assert short.prompt_token_ids == tuple(encode(prompt(3).text))
    assert long.token_ids == fitting.token_ids
    assert long.log_probs == fitting.log_probs


def test_embeddings_stand_where_placeholders_are(model, generator):
    plain = generator.generate(prompts(["w1 w2 w3 w2", "w4", "w5 w6"]), SAMPLING, 7)
    table = np.asarray(model.params["token_embedding"])
    rows = [model.tokenizer.encode(text)[1:] for text in ("w1 w3", "", "w6")]
    texts = ["w89 w2 w89 w2", "w4", "w5 w89"]
    spliced = generator.generate_spliced(prompts(texts), [table[row] for row in rows], "w89", SAMPLING, 7)
    assert [g.token_ids for g in spliced] == [g.token_ids for g in plain]
    for one, other in zip(spliced, plain, strict=True):
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-6)
    with pytest.raises(UserError, match="prompt 1 has 0 placeholders and 1 embeddings"):
        generator.generate_spliced(prompts(texts), [table[:2], table[:1], table[:1]], "w89", SAMPLING, 7)
    with pytest.raises(UserError, match=r"prompt 0: an embedding of shape \(3,\), .* 16 coord"):
        generator.generate_spliced(prompts(texts), [table[:2, :3], [], []], "w89", SAMPLING, 7)
    with pytest.raises(UserError, match="'w89 w89' is not one token of tiny"):
        generator.generate_spliced(prompts(texts), [], "w89 w89", SAMPLING, 7)


def test_a_chat_model_may_begin_its_turn_with_the_opening(model, tmp_path, tokenizer_writer):
    tokenizer_writer(tmp_path, with_bos=True)
    path = tmp_path / "tokenizer_config.json"
    template = {"chat_template": "{{ messages[0]['content'] }} w7"}
    path.write_text(json.dumps(json.loads(path.read_text()) | template))
    chat = dataclasses.replace(model, tokenizer=load_tokenizer(tmp_path))
    generator = LocalGenerator(chat, batch_size=4, length_multiple=8)
    (plain,) = generator.generate([Prompt(text="w1", stop=(), opening="none")], SAMPLING, 3)
    opening = plain.text.split()[0]
    (made,) = generator.generate([Prompt(text="w1", stop=(), opening=opening)], SAMPLING, 3)
    assert made == dataclasses.replace(plain, text=plain.text.removeprefix(opening))
    assert made.text != plain.text
    # Of thoughts that the template opens and nothing closes, nothing is said.
    chat.tokenizer.backend.add_special_tokens(["<think>"])
    chat.tokenizer.chat_template = ChatTemplate(tmp_path, "w1 <think>\n", {})
    (made,) = generator.generate([Prompt(text="w1", stop=(), opening="none")], SAMPLING, 3)
    assert made.text == "" and made.token_ids


def test_a_prompt_beyond_the_positions_is_refused_with_its_lengths(model, generator):
    # 40 positions: a beginning token and 27 words leave room for 12 new tokens, one more does not.
    generator.generate(prompts([" ".join(["w1"] * 27)]), SAMPLING, 0)
    with pytest.raises(PromptTooLongError, match="prompt 1 has 29 tokens; with 12 .* 40 positions"):
        generator.generate(prompts(["w1", " ".join(["w1"] * 28)]), SAMPLING, 0)


def test_few_shapes_are_compiled(model):
    read_prompts.clear_cache()
    continue_sampling.clear_cache()
    generator = LocalGenerator(model, batch_size=8, length_multiple=16)
    for count in (5, 6, 7, 8, 11):  # 11 = 8 + 3: the rest is padded to 4
        generator.generate(prompts((TEXTS * 3)[:count]), SAMPLING, count)
    other = generator.with_params(jax.tree.map(lambda leaf: leaf * 1.1, model.params))
    other.generate(prompts(TEXTS), SAMPLING, 0)
    assert read_prompts._cache_size() == 2
    assert continue_sampling._cache_size() == 2


def test_many_rows_are_padded_to_less_than_twice_as_many(model, monkeypatch):
    """Thirty-two episodes took the time of sixty-four."""
    sizes = []

    class Drawn(Exception):
        pass

    def spying(_, prompts, vectors, keys, *rest):
        sizes.append(len(keys))
        raise Drawn

    monkeypatch.setattr(local, "sample_batch", spying)
    generator = LocalGenerator(model, batch_size=128, length_multiple=16)
    counts = (1, 3, 5, 16, 17, 32, 33, 100, 128)
    for count in counts:
        with pytest.raises(Drawn):
            generator.generate(prompts(TEXTS[:1] * count), SAMPLING, 0)
    assert sizes == [1, 4, 16, 16, 32, 32, 64, 128, 128]


def test_names_tell_weights_apart_and_no_prompts_are_no_generations(model):
    generator = LocalGenerator(model, batch_size=8, length_multiple=16)
    other = generator.with_params(jax.tree.map(lambda leaf: leaf * 1.1, model.params))
    assert generator.name.startswith("tiny@")
    assert generator.name == LocalGenerator(model, 4, 8).name
    assert generator.name != other.name
    assert generator.generate([], SAMPLING, 0) == []


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
