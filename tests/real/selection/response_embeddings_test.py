"""Embeddings of responses against hidden states of `transformers` and sentence-transformers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.embeddings.sentences.encoder import load_sentence_encoder
from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.language_model.checkpoints.tokenizer import load_tokenizer
from eagle_jax.real.selection import response_embeddings
from eagle_jax.real.selection.response_embeddings import DecoderEmbeddings, EncoderEmbeddings, with_pooling
from tests.language_model.small_checkpoints import make_checkpoint

PROMPTS = ["w9 w8", "w7 w6 w5 w4", "w9 w8", "w1", "w2 w3"]
RESPONSES = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w1", "w11 w12", "w1 w2 w4"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """(folder, torch model), with a beginning token."""
    return make_checkpoint("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_language_model(checkpoint[0])


def last_states(torch_model, ids):
    """[T, D] by `transformers`."""
    import torch

    with torch.no_grad():
        output = torch_model(torch.tensor([ids]), output_hidden_states=True)
    return output.hidden_states[-1][0].numpy()


def embeddings_of(model, **changes):
    settings = {"pooling": "mean", "with_prompt": False, "max_tokens": 64, "batch_size": 2}
    return DecoderEmbeddings(model=model, **settings | changes)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("with_prompt", [False, True])
def test_states_are_those_of_transformers(checkpoint, model, pooling, with_prompt):
    embed = embeddings_of(model, pooling=pooling, with_prompt=with_prompt)
    found = embed(PROMPTS, RESPONSES)
    assert found.dtype == np.float32 and found.shape == (5, 48)
    for prompt, response, own in zip(PROMPTS, RESPONSES, found, strict=True):
        ids = model.tokenizer.encode(f"{prompt} {response}" if with_prompt else response)
        count = len(response.split())  # tokens are words
        states = last_states(checkpoint[1], ids)[-count:]
        expected = states.mean(axis=0) if pooling == "mean" else states[-1]
        np.testing.assert_allclose(own, expected, atol=2e-5)


def test_batches_change_nothing_and_shapes_are_few(model):
    rng = np.random.default_rng(0)
    responses = [" ".join(f"w{word}" for word in rng.integers(0, 90, n)) for n in range(1, 21)]
    one_by_one = embeddings_of(model, batch_size=1)([""] * 20, responses)
    num_shapes = response_embeddings._pooled_states._cache_size()
    found = embeddings_of(model, batch_size=8)([""] * 20, responses)
    np.testing.assert_allclose(found, one_by_one, atol=1e-5)
    assert response_embeddings._pooled_states._cache_size() == num_shapes + 2  # 8 x 32, 4 x 32


def test_other_parameters_give_other_embeddings_and_no_compilation(model):
    embed = embeddings_of(model)
    before = embed(PROMPTS, RESPONSES)
    size = response_embeddings._pooled_states._cache_size()
    params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) * 0.7), model.params)
    other = embed.with_params(params)
    assert np.max(np.abs(other(PROMPTS, RESPONSES) - before)) > 0.1
    assert response_embeddings._pooled_states._cache_size() == size
    assert embed.name != other.name != embeddings_of(model, pooling="last").name
    np.testing.assert_array_equal(embed(PROMPTS, RESPONSES), before)


def test_what_is_too_long_is_cut_and_counted(model, caplog):
    long = " ".join(f"w{index}" for index in range(20))
    embed = embeddings_of(model, max_tokens=8, with_prompt=True)
    with caplog.at_level("WARNING", logger="absl"):
        found = embed([long, long, "w1"], ["w1 w2 w3", long, "w2"])
    assert "of 3 responses" in caplog.text and "1 lose their end and 2 prompts" in caplog.text
    # A beginning token and 3 of the response leave 4; the response alone keeps 7.
    last = [f"w{index}" for index in range(20)][-4:]
    first = [f"w{index}" for index in range(20)][:7]
    expected = embeddings_of(model, with_prompt=True)([" ".join(last), "", "w1"], ["w1 w2 w3", " ".join(first), "w2"])
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], atol=1e-5)
    alone = embeddings_of(model)([""], [" ".join(first)])
    np.testing.assert_allclose(found[1], alone[0], atol=1e-5)
    # The model's 96 positions are a limit too.
    with caplog.at_level("WARNING", logger="absl"):
        found = embeddings_of(model, max_tokens=1000)([""], [" ".join(["w3"] * 120)])
    assert "more than 96 tokens" in caplog.text and np.all(np.isfinite(found))


def test_what_makes_no_sense_is_refused(model):
    for changes, said in (
        ({"pooling": "cls"}, "'cls' means nothing with the decoder"),
        ({"pooling": "max"}, "'max' is not known"),
        ({"max_tokens": 1}, "at least 2, got 1"),
    ):
        with pytest.raises(UserError, match=said):
            embeddings_of(model, **changes)
    with pytest.raises(UserError, match="response 1 has no tokens"):
        embeddings_of(model)(PROMPTS[:2], ["w1", ""])
    with pytest.raises(ValueError, match="longer"):
        embeddings_of(model)(PROMPTS[:1], RESPONSES)
    assert embeddings_of(model)([], []).shape == (0, 48)


def test_a_tokenizer_without_a_beginning_token(checkpoint, model, tmp_path, tokenizer_writer):
    tokenizer_writer(tmp_path, with_bos=False)
    bare = dataclasses.replace(model, tokenizer=load_tokenizer(tmp_path))
    ids = bare.tokenizer.encode("w5 w6 w7")
    assert [bare.tokenizer.bos_id, *ids] == model.tokenizer.encode("w5 w6 w7")
    found = embeddings_of(bare)(["w1"], ["w5 w6 w7"])
    np.testing.assert_allclose(found[0], last_states(checkpoint[1], ids).mean(axis=0), atol=2e-5)
    with pytest.raises(UserError, match="response 0 has no tokens"):
        embeddings_of(bare, with_prompt=True)(["w1"], [""])


def test_a_sentence_encoder_is_called_alike(mini_lm):
    library = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    theirs = library.SentenceTransformer(str(mini_lm), device="cpu")
    encoder = load_sentence_encoder(mini_lm, batch_size=4)
    responses = ["I am sorry to hear that.", "Take the bus, it is cheaper.", "No."]
    names = set()
    for pooling, name in (("own", "mean"), ("last", "lasttoken"), ("cls", "cls")):
        theirs[1] = modules.Pooling(384, name)
        embed = EncoderEmbeddings(with_pooling(encoder, pooling))
        np.testing.assert_allclose(embed(["Hello"] * 3, responses), theirs.encode(responses), atol=2e-6)
        names.add(embed.name)
    assert len(names) == 3
    with pytest.raises(UserError, match="response 1 is empty"):
        embed(["a", "b"], ["c", " \n"])
    with pytest.raises(ValueError, match="2 prompts and 1 responses"):
        embed(["a", "b"], ["c"])
    with pytest.raises(UserError, match="'max' is not known"):
        with_pooling(encoder, "max")
