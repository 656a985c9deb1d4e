"""RLAIF on an ELM that can be trained in seconds: the reward rises, the run resumes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import NonFiniteError, read_metrics
from eagle_jax.data.prompts import Prompt
from eagle_jax.elm.model.adapter import unchanged_input
from eagle_jax.elm.model.embedding_lm import EmbeddedPrompt, embedded_logits, new_embedding_lm
from eagle_jax.elm.rlaif import training
from eagle_jax.elm.rlaif.state import HEADS, RlaifSettings, init_rlaif
from eagle_jax.elm.rlaif.training import RlaifTask, train_rlaif
from eagle_jax.elm.rlaif.update import state_features, update
from eagle_jax.language_model.generation import Generation, SamplingSettings
from eagle_jax.learning.loop import Records
from eagle_jax.learning.trainable import join, split
from tests.language_model.small_checkpoints import word_model
from tests.same_run import Interrupted, assert_same_run

SAMPLING = SamplingSettings(temperature=0.8, top_k=0, top_p=1.0, max_new_tokens=4)
WIDTH = 3  # of the embeddings
TRAINED = dict(zip(HEADS, ("full", "adapter", "full"), strict=True))


SETTINGS = RlaifSettings(
    method="soft_actor_critic",
    num_iterations=12,
    texts_per_iteration=32,
    kl_coefficient=0.08,
    policy_learning_rate=1e-2,
    max_gradient_norm=1.0,
    head_width=32,
    head_learning_rate=1e-2,
    head_updates=16,
    target_rate=0.5,
    warmup_iterations=2,
    sampling=SAMPLING,
    validate_every=6,
    checkpoint_every=5,
)


@pytest.fixture(scope="module")
def elm(tmp_path_factory):
    words = ["tell", "sun", "rain", "snow", "wind", "<item>"]
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_key_value_heads": 1, "max_position_embeddings": 32}
    base = word_model(words, tmp_path_factory.mktemp("words"), initializer_range=0.1, **sizes)
    return new_embedding_lm(
        base,
        {"semantic": unchanged_input(WIDTH)},
        jax.random.key(1),
        hidden_width=8,
        batch_size=32,
        length_multiple=8,
        slot_multiple=1,
    )


def share_of_sun(rows, generations):
    return np.array([made.text.split().count("sun") / 4 for made in generations])


def prompts_of(rows):
    return [EmbeddedPrompt(Prompt("<item> tell", (), ""), (("semantic", row),)) for row in rows]


@pytest.fixture(scope="module")
def train(elm):
    def run(folder, method="soft_actor_critic", reward_fn=share_of_sun):
        task = RlaifTask(
            draw_rows=lambda rng, count: rng.normal(size=(count, WIDTH)),
            prompt_fn=prompts_of,
            reward_fn=reward_fn,
            validation_rows=np.random.default_rng(7).normal(size=(32, WIDTH)),
        )
        start = dataclasses.replace(elm, trained=TRAINED[method])
        return train_rlaif(
            start,
            task,
            dataclasses.replace(SETTINGS, method=method),
            seed=0,
            records=Records(Checkpoints(folder / "checkpoints", digest="d", max_to_keep=1), folder, "toy"),
        )

    return run


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """Runs that were never interrupted, by method."""
    return {method: train(tmp_path_factory.mktemp(method), method) for method in HEADS}


@pytest.mark.parametrize("method", HEADS)
def test_each_method_raises_the_reward_of_rows_that_it_was_not_trained_on(whole, method):
    rows = whole[method].history
    rewards = {row["step"]: row["validation/reward"] for row in rows if "validation/reward" in row}
    assert list(rewards) == [0, 6, 12]
    assert rewards[0] < 0.1 and rewards[12] > 0.22
    assert whole[method].best_step == max(rewards, key=rewards.get)
    names = {"policy/loss", "policy/entropy", "policy/tokens", "policy/gradient_norm", "reward_std"}
    assert names | {f"{head}/loss" for head in HEADS[method]} <= rows[-1].keys()


@pytest.mark.parametrize("method", HEADS)
def test_in_the_warm_up_the_policy_is_the_pretrained_one(whole, method):
    divergences = [row["policy/kl"] for row in whole[method].history[1:]]
    np.testing.assert_allclose(divergences[:3], 0.0, atol=1e-5)  # before the steps 1, 2 and 3
    assert divergences[3] > 1e-3 and divergences[-1] > 0.1
    # The networks start at the mean reward, which the actor and the closed form find everywhere.
    if method == "soft_actor_critic":
        assert whole[method].history[1]["value/loss"] == pytest.approx(0.0, abs=1e-6)


def test_what_is_trained_is_what_differs_from_the_base(whole, elm):
    start, frozen = split(elm.model.params, "adapter")
    params = whole["soft_actor_critic"].params
    trained, untouched = split(params, "adapter")
    for one, other in zip(*map(jax.tree.leaves, (untouched, frozen)), strict=True):
        assert one is other
    for one, other in zip(*map(jax.tree.leaves, (trained, start)), strict=True):
        assert not np.array_equal(one, other)
    full = whole["reinforce"].params
    assert full["adapter_input"]["semantic"]["mean"] is elm.model.params["adapter_input"]["semantic"]["mean"]
    assert not np.array_equal(full["token_embedding"], elm.model.params["token_embedding"])


def test_the_first_gradient_is_that_of_the_plain_loss(elm):
    """-mean (r - mean r) log P(text | vector): the baseline is the mean, the KL's gradient 0."""
    rows = np.random.default_rng(3).normal(size=(32, WIDTH))
    generations = elm.generate(prompts_of(rows), SAMPLING, 5)
    batch = elm.encode(prompts_of(rows), [made.token_ids for made in generations])
    rewards = np.random.default_rng(4).normal(size=32).astype(np.float32)
    config, params = elm.model.config, elm.model.params
    trainable, frozen = split(params, "full")
    settings = dataclasses.replace(SETTINGS, method="reinforce")
    state = init_rlaif(config, trainable, settings, jax.random.key(0))
    _, metrics = update(config, settings, frozen, trainable, state, batch, rewards)

    @jax.jit
    @jax.grad
    def plain_gradient(trainable):
        logits = embedded_logits(config, join(trainable, frozen), batch) / SAMPLING.temperature
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), batch.tokens[:, 1:, None], axis=-1)[..., 0]
        of_texts = jnp.sum(log_probs * batch.loss_weights[:, 1:], axis=1)
        return -jnp.mean((rewards - rewards.mean()) * of_texts)

    norm = optax.tree.norm(plain_gradient(trainable))
    assert norm > 0.1
    np.testing.assert_allclose(metrics["policy/gradient_norm"], norm, rtol=1e-4)
    lengths = [len(made.token_ids) for made in generations]
    np.testing.assert_allclose(metrics["policy/tokens"], np.mean(lengths), rtol=1e-6)


def test_networks_read_how_likely_the_text_so_far_was():
    # p_pre = (1/2, 1/4, 1/4): E log p = log(1/2) / 2 + log(1/4) / 2 = -1.5 log 2, so that e of the
    # first token is log(2) / 2 and of the others -log(2) / 2. Before the text nothing counts.
    log_reference = jnp.log(jnp.array([0.5, 0.25, 0.25]))[None, None].repeat(5, axis=1)
    drawn = jnp.array([[1, 0, 0, 2, 0]])
    mask = jnp.array([[False, True, True, True, True]])
    features, excess = state_features(jnp.ones((1, 5, 2)), log_reference, drawn, mask)
    half = np.log(2) / 2
    np.testing.assert_allclose(features[0, :, 2], [0, 0, half, 2 * half, half], atol=1e-6)
    np.testing.assert_allclose(excess[0, 3], [half, -half, -half], rtol=1e-6)


@pytest.mark.parametrize("error, message", [(Interrupted, "asked for"), (NonFiniteError, "step 8: reward is nan")])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(train, whole, tmp_path, error, message):
    scored = 0

    def failing(rows, generations):
        nonlocal scored
        scored += 1
        if scored < 2 + 8:  # validations at 0 and 6, seven iterations
            return share_of_sun(rows, generations)
        if error is Interrupted:
            raise Interrupted("asked for")
        return np.full(len(generations), np.nan)

    with pytest.raises(error, match=message):
        train(tmp_path, reward_fn=failing)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(8))  # saved was 5
    assert_same_run(train(tmp_path), whole["soft_actor_critic"])


def test_rewards_must_be_one_for_each_text(train, tmp_path):
    with pytest.raises(UserError, match=r"rewards of 32 texts have the shape \(31,\)"):
        train(tmp_path, reward_fn=lambda rows, generations: np.zeros(31))


def test_a_text_whose_prompt_was_cut_is_refused(elm):
    prompts = prompts_of(np.ones((2, WIDTH)))
    ids = tuple(elm.model.tokenizer.encode_prompt(prompts[0].prompt.text))
    whole = Generation(text="sun", token_ids=(5,), log_probs=None, stop_reason="stop", prompt_token_ids=ids)
    cut = dataclasses.replace(whole, prompt_token_ids=ids[1:])
    trainer = training._Trainer(elm, {}, {}, None, SETTINGS, 0)
    with pytest.raises(UserError, match="prompt 1 was cut by 1 tokens .* of toy: RLAIF learns"):
        trainer._encode(prompts, [whole, cut])


def test_settings_are_checked():
    with pytest.raises(UserError, match="sampling must be"):
        dataclasses.replace(SETTINGS, sampling=dataclasses.replace(SAMPLING, top_p=0.9))
    with pytest.raises(ValueError, match="repetition_penalty 1, got 0.0 and 1.1"):
        dataclasses.replace(SETTINGS, sampling=dataclasses.replace(SAMPLING, repetition_penalty=1.1))
