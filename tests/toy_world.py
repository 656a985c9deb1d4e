"""A toy world for reinforcement learning: notes of words, and a tiny policy that adds a word."""

import dataclasses
import itertools

import jax
import numpy as np
import optax
import pytest

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.data.prompts import EntityFormat, PromptBook, policy_prompt, render_blocks
from eagle_jax.eagle.agent.player import AgentTask
from eagle_jax.eagle.agent.state import EagleSettings
from eagle_jax.eagle.dpo.update import PreferenceAgentSettings
from eagle_jax.eagle.environment import LLMEnvironment, Start
from eagle_jax.eagle.policy import encode_policy_batch, make_policy_fn, state_prompts
from eagle_jax.eagle.rollout import rollout
from eagle_jax.language_model.generation import Generation, SamplingSettings
from eagle_jax.language_model.log_probs import read_text
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.learning.loop import Records
from eagle_jax.learning.losses import next_token_loss
from eagle_jax.learning.supervised import encode_pairs
from tests.language_model.small_checkpoints import word_model
from tests.same_run import Interrupted

WORDS = [f"word{letter}" for letter in "abcdefgh"]
GOAL = "wordc"
NOTE = EntityFormat(noun="note", blocks=("NOTE",), action_categories=("any",))
BOOK = PromptBook(
    rewrite="rewrite",
    policy="act",
    generic_action="act",
    personalised_action="act",
    profile="act",
    describe="act",
    rater="act",
    write="act",
    compare="act",
)


class Appender:
    """The environment's model: the note with the action's first word at its end, four kept."""

    def generate(self, prompts, sampling, seed):
        return [self.write(prompt.text) for prompt in prompts]

    def write(self, text):
        note = text.split("#BEGIN_NOTE ")[1].split(" #END_NOTE")[0]
        action = text.split("#BEGIN_ACTION ")[1].split(" #END_ACTION")[0]
        words = [*note.split(), action.split()[0]][-4:]
        return Generation(text=" ".join(words), token_ids=None, log_probs=None, stop_reason="stop")


def make_environment():
    sampling = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=8)
    return LLMEnvironment(generator=Appender(), book=BOOK, entity_format=NOTE, sampling=sampling)


def draw_starts(rng, count):
    starts = []
    for index in range(count):
        words = rng.choice(WORDS, size=int(rng.integers(2, 5)))
        note = render_blocks({"NOTE": " ".join(words)})
        starts.append(Start(index, index, note, str(rng.choice(WORDS))))
    return starts


def share_of(word, states):
    """Share of the note's words that are `word`: a reward [B]."""
    notes = [state.description.split()[1:-1] for state in states]
    return np.array([note.count(word) / len(note) for note in notes], np.float32)


def agent_task(words, reward_fn=None, environment=None):
    """What an agent is trained on: notes that hold GOAL; training sees the shares of `words` in them."""
    return AgentTask(
        environment=environment or make_environment(),
        reward_fn=reward_fn or (lambda states: share_of(GOAL, states)),
        features_fn=lambda states: np.stack([share_of(word, states) for word in words], axis=1),
        draw_starts=draw_starts,
        validation_starts=draw_starts(np.random.default_rng(99), 16),
    )


def spoilt_at(call, spoil):
    """The task's reward; of this call the one that `spoil` makes of it."""
    calls = itertools.count(1)

    def reward_fn(states):
        reward = share_of(GOAL, states)
        return spoil(reward) if next(calls) == call else reward

    return reward_fn


def interrupt(reward):
    raise Interrupted


def to_nan(reward):
    reward[3] = np.nan
    return reward


def records_in(folder):
    return Records(Checkpoints(folder / "checkpoints", digest="d", max_to_keep=2), folder, "toy")


def _reference_params(model):
    """Trained to write one word drawn at random, and to stop."""
    rng = np.random.default_rng(0)
    pairs = []
    for start in draw_starts(rng, 256):
        prompt = policy_prompt(BOOK, NOTE, start.description, start.profile)
        pairs.append((prompt.text, f"{rng.choice(WORDS)} {prompt.stop[0]}"))
    batch = encode_pairs(model.tokenizer, pairs, 0.0, 32)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def train_step(params, optimizer_state):
        def loss_fn(params):
            read = read_text(model.config, params, batch.tokens, batch.mask)
            return next_token_loss(read, batch.tokens, batch.loss_weights)

        updates, optimizer_state = optimizer.update(jax.grad(loss_fn)(params), optimizer_state)
        return optax.apply_updates(params, updates), optimizer_state

    params, optimizer_state = model.params, optimizer.init(model.params)
    for _ in range(40):
        params, optimizer_state = train_step(params, optimizer_state)
    return params


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """The toy world's policy, a decoder of 5,000 parameters."""
    blocks = ("NOTE", "ACTION", "USER_PROFILE")
    markers = [f"#{side}_{block}" for block in blocks for side in ("BEGIN", "END")]
    sizes = {"intermediate_size": 32, "num_key_value_heads": 1, "max_position_embeddings": 128}
    words, folder = ["act", "rewrite", *WORDS, *markers], tmp_path_factory.mktemp("tokenizer")
    model = word_model(words, folder, initializer_range=0.1, **sizes)
    return dataclasses.replace(model, params=_reference_params(model))


def eagle_settings(**changes):
    """Of the toy's reinforcement learning."""
    settings = EagleSettings(
        num_iterations=24,
        episodes_per_iteration=32,
        horizon=3,
        discount=1.0,
        gae_lambda=0.95,
        kl_coefficient=0.02,
        policy_learning_rate=3e-3,
        value_learning_rate=1e-2,
        value_hidden=(16,),
        value_updates=4,
        max_gradient_norm=1.0,
        normalize_advantages=True,
        minibatch_size=48,
        validate_every=8,
        checkpoint_every=6,
        policy=SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=4),
    )
    return dataclasses.replace(settings, **changes)


def dpo_settings(**changes):
    """As many actions as the REINFORCE agent's 24 iterations of 32 episodes: 6 rounds of 32 x 4."""
    settings = PreferenceAgentSettings(
        unit="action",
        strategy="random",
        metric="euclidean",
        num_samples=4,
        starts_per_round=32,
        beta=0.5,
        num_epochs=2,
        batch_size=24,
        learning_rate=3e-3,
        max_gradient_norm=1.0,
        validate_every=3,
        checkpoint_every=2,
    )
    return dataclasses.replace(settings, **changes)


@pytest.fixture(scope="session")
def played(toy):
    """Two steps of three episodes at temperature 0.7: prompts, generations and their batch."""
    environment = make_environment()
    sampling = SamplingSettings(temperature=0.7, top_k=0, top_p=1.0, max_new_tokens=4)
    policy_fn = make_policy_fn(LocalGenerator(toy, 8, 32), BOOK, NOTE, sampling)
    starts = draw_starts(np.random.default_rng(1), 3)
    steps = rollout(policy_fn, environment, environment.reset(starts), 2, seed=3)
    episodes = range(3)
    states = [step.states[i] for i in episodes for step in steps]
    generations = [step.generations[i] for i in episodes for step in steps]
    prompts = state_prompts(BOOK, NOTE, states)
    return prompts, generations, encode_policy_batch(toy.tokenizer, generations, 4)
