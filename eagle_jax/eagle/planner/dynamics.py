"""What an action makes of a text, as a move in the embedding space.

The environment sees no user: one transition says what an action is worth to everybody. The user term of U is linear in
E_D, so an action promises user u about <z_u, E_D(a(x)) + m(x, a)>: a(x) is the text with the fields that the list of
actions says it changes, x itself where it says nothing, and m is fitted to E_D(x') - E_D(a(x)), what only trying tells.
The other terms of U are left out: how far a point is from what exists says little where the point is only about right.

Axis letters: `T` transitions, `B` texts, `A` actions, `F` features, `d` width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from eagle_jax.data.film_fields import FieldChange
from eagle_jax.eagle.environment import EpisodeState
from eagle_jax.eagle.roles.action_choice import Chooser, Promises, choosing_policy
from eagle_jax.eagle.roles.field_changes import with_declared_fields
from eagle_jax.eagle.rollout import PolicyFn
from eagle_jax.embeddings.domain_encoder import DomainEncoder, in_pieces
from eagle_jax.embeddings.regression_head import RegressionHead, apply_regression_head


class Transition(NamedTuple):
    """Two texts, and the action that made the second one of the first."""

    before: str
    action: str
    after: str


class Examples(NamedTuple):
    """inputs: features of a(x), its E_D, features of a [T, 2F + d]. moves: from there to the next E_D [T, d]."""

    inputs: np.ndarray
    moves: np.ndarray


def examples(
    encoder: DomainEncoder, transitions: Sequence[Transition], field_changes: Mapping[str, FieldChange]
) -> Examples:
    """What the model learns from; each text is read once."""
    told = [one._replace(before=with_declared_fields(one.before, one.action, field_changes)) for one in transitions]
    places = {text: place for place, text in enumerate(dict.fromkeys(text for one in told for text in one))}
    features = encoder.features(list(places))
    embeddings = encoder.embed_features(features)
    before, action, after = np.array([[places[text] for text in one] for one in told]).T
    inputs = np.concatenate([features[before], embeddings[before], features[action]], axis=1)
    return Examples(inputs, embeddings[after] - embeddings[before])


class Dynamics(NamedTuple):
    """m(x, a): `head` reads inputs as of `Examples`. encoder: E_D. action_features: of `actions` [A, F]. field_changes:
    of the environment."""

    encoder: DomainEncoder
    actions: tuple[str, ...]
    action_features: np.ndarray
    field_changes: Mapping[str, FieldChange]
    head: RegressionHead

    def moves(self, inputs: np.ndarray) -> np.ndarray:
        """m of inputs [T, 2F + d]: [T, d]."""
        return in_pieces(partial(apply_regression_head, self.head), inputs)

    def next_embeddings(self, texts: Sequence[str]) -> np.ndarray:
        """E_D(a(x)) + m(x, a) of each text and each action [B, A, d]."""
        led = [[with_declared_fields(text, action, self.field_changes) for action in self.actions] for text in texts]
        places = {text: place for place, text in enumerate(dict.fromkeys(text for row in led for text in row))}
        features = self.encoder.features(list(places))
        embeddings = self.encoder.embed_features(features)
        rows = [[places[text] for text in row] for row in led]
        return np.stack(
            [
                embeddings[row]
                + self.moves(np.concatenate([features[row], embeddings[row], self.action_features], axis=1))
                for row in rows
            ]
        )


def planner_chooser(dynamics: Dynamics) -> Chooser:
    """For each user (z_u [U, d]) the action that promises most, one step ahead."""

    def act_for(user_embeddings: np.ndarray) -> PolicyFn:
        return choosing_policy(dynamics.actions, promises(dynamics, user_embeddings), dynamics.field_changes)

    return act_for


def promises(dynamics: Dynamics, user_embeddings: np.ndarray) -> Promises:
    """<z_u, E_D(a(x)) + m(x, a)> of each action, for users of these embeddings [U, d]."""

    def promised(states: Sequence[EpisodeState], seed: int) -> np.ndarray:
        texts = list(dict.fromkeys(state.description for state in states))
        led = dict(zip(texts, dynamics.next_embeddings(texts), strict=True))
        return np.stack([led[state.description] @ user_embeddings[state.user_index] for state in states])

    return promised


def exploring(promised: Promises, temperature: float, random_share: float) -> Promises:
    """Of which the largest is a draw: with probability exp(promise / temperature) / sum, and of `random_share` of the
    states from all actions alike."""

    def drawn(states: Sequence[EpisodeState], seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        found = promised(states, seed)
        # The largest of independent Gumbel draws added to logits is a draw from their softmax.
        values = found / temperature + rng.gumbel(size=found.shape)
        evenly = rng.random(len(found)) < random_share
        values[evenly] = rng.random((evenly.sum(), found.shape[1]))
        return values

    return drawn
