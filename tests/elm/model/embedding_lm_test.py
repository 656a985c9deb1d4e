"""ELM against `transformers`' inputs_embeds in every family, and the laws of spliced vectors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.elm.model.adapter import EmbeddingError, input_statistics
from eagle_jax.elm.model.embedding_lm import (
    embed_vectors,
    embedded_logits,
    embedded_token_log_probs,
    new_embedding_lm,
    soft_embeddings,
)
from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.sharding import MeshSettings, make_mesh, tree_shardings
from tests.elm.model.small_embedding_lm import COMPLETIONS, PROMPTS, TABLES, embedded, on_base, small_model

GREEDY = SamplingSettings(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=6)
logits_of = jax.jit(embedded_logits, static_argnums=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_model("gemma2", tmp_path_factory.mktemp("gemma2"))


@pytest.fixture(scope="module")
def elm(base):
    return on_base(base)


def constant_adapters(elm, token):
    """Adapters that write a token's own embedding, whatever they are given."""
    own = elm.model.params["token_embedding"][token]
    adapters = jax.tree.map(jnp.zeros_like, elm.model.params["adapter"])
    for of_kind in adapters.values():
        of_kind["down"]["bias"] = own
    return elm.model.params | {"adapter": adapters}


def test_every_family_computes_what_transformers_does_of_the_same_vectors(family_checkpoint):
    torch = pytest.importorskip("torch")
    folder, torch_model = family_checkpoint
    elm = on_base(load_language_model(folder))
    config, params = elm.model.config, elm.model.params
    assert config.vocab_size == 100  # the tokens' rows are among those without a token
    batch = elm.encode(PROMPTS[:2], COMPLETIONS[:2])

    def theirs(tokens, vectors, is_soft):
        ids = torch.tensor(tokens)
        embed = torch_model.get_input_embeddings()
        # Gemma 3 scales what its table gives, the others of the family all that comes in.
        scale = float((embed(ids[:1, :1]) / embed.weight[ids[0, 0]]).detach().median())
        vectors = torch.tensor(np.array(vectors)) * scale
        mixed = torch.where(torch.tensor(is_soft)[..., None], vectors, embed(ids))
        with torch.no_grad():
            return torch_model(inputs_embeds=mixed, attention_mask=torch.tensor(batch.mask.astype(int))).logits.numpy()

    soft = soft_embeddings(params, batch)
    assert np.array_equal(soft.is_soft, batch.slots >= 0) and batch.mask[batch.slots >= 0].all()
    ours = logits_of(config, params, batch)
    expected = theirs(batch.tokens, soft.vectors, np.asarray(soft.is_soft))
    np.testing.assert_allclose(ours[batch.mask], expected[batch.mask], atol=3e-4)
    # A token's own embedding instead of it: what the plain model says of that token.
    spliced = logits_of(config, constant_adapters(elm, 30), batch)
    as_token = np.where(batch.slots >= 0, 30, batch.tokens)
    plain = theirs(as_token, soft.vectors, np.zeros_like(batch.mask))
    np.testing.assert_allclose(spliced[batch.mask], plain[batch.mask], atol=3e-4)


def test_each_vector_goes_through_its_own_adapter_to_its_own_place(elm):
    batch = elm.encode(PROMPTS, COMPLETIONS)
    soft = soft_embeddings(elm.model.params, batch)
    kinds = {"<item>": "semantic", "<user>": "behavioral"}
    for row, prompt in enumerate(PROMPTS):
        words = ["[BOS]", *prompt.prompt.text.split()]
        places = [place for place, word in enumerate(words) if word in kinds]
        assert np.flatnonzero(soft.is_soft[row]).tolist() == places
        assert (batch.loss_weights[row] > 0).sum() == len(COMPLETIONS[row].split())
        for place, (kind, vector) in zip(places, prompt.embeddings, strict=True):
            assert kinds[words[place]] == kind
            own = embed_vectors(elm.model.params, kind, jnp.asarray(vector))
            np.testing.assert_allclose(soft.vectors[row, place], own, atol=1e-5)
    assert batch.loss_weights[0, :8].tolist() == [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]


def test_no_gradient_reaches_a_vector_from_before_its_slot(elm):
    batch = elm.encode(PROMPTS[1:2], COMPLETIONS[1:2])  # slots at 1, 6 and 8

    @jax.jit
    def gradient(weights):
        def total(vectors):
            logits = embedded_logits(elm.model.config, elm.model.params, batch._replace(vectors=vectors))
            return jnp.sum(weights[None, :, None] * jnp.square(logits))

        return jax.grad(total)(batch.vectors)

    before = gradient(np.arange(16) < 6)
    assert np.all(before["semantic"] == 0) and np.any(before["behavioral"] != 0)
    between = gradient(np.arange(16) == 7)["semantic"][0]
    assert np.any(between[0] != 0) and np.all(between[1] == 0)
    after = gradient(np.arange(16) == 9)
    assert all(np.all(np.any(g[0, :n] != 0, axis=-1)) for g, n in ((after["semantic"], 2), (after["behavioral"], 1)))


def test_a_prompt_means_the_same_alone_and_in_a_mixed_batch_of_one_shape(elm):
    mixed = elm.log_probs(PROMPTS, COMPLETIONS)
    compiled = embedded_token_log_probs._cache_size()
    turned = elm.log_probs(PROMPTS[::-1], COMPLETIONS[::-1])
    assert embedded_token_log_probs._cache_size() == compiled
    np.testing.assert_allclose(turned[::-1], mixed, atol=1e-5)
    alone = [elm.log_probs([p], [c])[0] for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert embedded_token_log_probs._cache_size() == compiled + 1
    np.testing.assert_allclose(alone, mixed, atol=1e-4)
    # Over two batches of `batch_size` 4.
    np.testing.assert_allclose(elm.log_probs(PROMPTS * 2, COMPLETIONS * 2)[4:], mixed, atol=1e-5)


def test_generation_with_a_cache_is_greedy_decoding_without(elm):
    made = elm.generate(PROMPTS, GREEDY, 0)
    batch = elm.encode(PROMPTS, [generation.token_ids for generation in made])
    best = np.argmax(logits_of(elm.model.config, elm.model.params, batch), axis=-1)
    for row, generation in enumerate(made):
        places = np.flatnonzero(batch.loss_weights[row])
        assert len(generation.token_ids) == len(places) >= 1
        assert best[row, places - 1].tolist() == list(generation.token_ids)
    scores = elm.log_probs(PROMPTS, [generation.token_ids for generation in made])
    np.testing.assert_allclose(scores, [sum(g.log_probs) for g in made], atol=2e-4)
    # The vectors matter: with others in their places something else is said.
    others = elm.log_probs([embedded("w1 <item> w2", ("semantic", 5))], [made[0].token_ids])
    assert abs(others[0] - scores[0]) > 1e-3


def test_eight_devices_compute_what_one_does(elm, base):
    mesh = make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, first_device=0))
    placed = jax.device_put(base.params, tree_shardings(mesh, base.params))
    sharded = on_base(dataclasses.replace(base, params=placed))
    assert sharded.model.params["adapter"]["semantic"]["up"]["kernel"].sharding.mesh == mesh
    np.testing.assert_allclose(sharded.log_probs(PROMPTS, COMPLETIONS), elm.log_probs(PROMPTS, COMPLETIONS), atol=1e-4)
    ours, theirs = sharded.generate(PROMPTS, GREEDY, 0), elm.generate(PROMPTS, GREEDY, 0)
    assert [g.token_ids for g in ours] == [g.token_ids for g in theirs]


def test_what_cannot_be_read_is_named_by_prompt_and_embedding(elm):
    def refused(match, *prompts, completions=None, kind=EmbeddingError):
        for call in (
            lambda: elm.encode(prompts, completions or ["w1"] * len(prompts)),
            lambda: elm.generate(prompts, GREEDY, 0),
        ):
            with pytest.raises(kind, match=match):
                call()

    def with_vector(vector):
        prompt = embedded("w1 <item>").prompt
        return dataclasses.replace(PROMPTS[0], prompt=prompt, embeddings=(("semantic", vector),))

    fine = TABLES["semantic"][0]
    refused(
        r"prompt 1: its text has placeholders for the embeddings semantic, given are none",
        PROMPTS[0],
        embedded("w1 <item>"),
    )
    refused("embeddings behavioral, given are semantic", embedded("<user>", ("semantic", 0)))
    refused(r"prompt 0, embedding 0 \(semantic\): .* of width 3, but the adapter reads width 6", with_vector(fine[:3]))
    refused("prompt 1, embedding 0 .*: the embedding is all zeros", PROMPTS[2], with_vector(0 * fine))
    refused("prompt 0, embedding 0 .*: the embedding is not finite", with_vector(fine * np.nan))
    refused(r"expected one vector \[d\], got shape \(1, 6\)", with_vector(fine[None]))
    with pytest.raises(UserError, match="prompt 1 and its completion have 104 tokens, more than"):
        elm.encode([PROMPTS[2]] * 2, ["w1", "w1 " * 101])


def test_adapters_are_for_known_kinds(base):
    def build(statistics):
        sizes = dict.fromkeys(("hidden_width", "batch_size", "length_multiple", "slot_multiple"), 1)
        new_embedding_lm(base, statistics, jax.random.key(0), **sizes)

    with pytest.raises(UserError, match="'visual': known are semantic, behavioral"):
        build({"visual": input_statistics(TABLES["semantic"])})
    with pytest.raises(UserError, match="at least one kind"):
        build({})
