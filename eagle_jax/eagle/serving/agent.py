"""A trained agent that answers: this item, this user, what should exist?

Text world. Nothing is kept between batches, so that a thousand proposals need what ten do.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.catalogue import Catalogue, Entity
from eagle_jax.data.prompts import MalformedText, parse_blocks, render_blocks
from eagle_jax.eagle.environment import LLMEnvironment, Start
from eagle_jax.eagle.evaluation.episodes import EpisodeRecord, Judging, evaluate_played
from eagle_jax.eagle.evaluation.search import search_greedily, searched_records
from eagle_jax.eagle.policy import make_policy_fn
from eagle_jax.eagle.quality.quality import Quality
from eagle_jax.eagle.roles.action_choice import Chooser
from eagle_jax.eagle.rollout import PolicyFn, Transitions, rollout
from eagle_jax.eagle.serving.faithfulness import QUANTILE, nearer_shares
from eagle_jax.eagle.serving.meter import MeteredGenerator
from eagle_jax.eagle.serving.proposals import Proposal, near_copy, nearest_items, ranked, with_earlier_users
from eagle_jax.eagle.serving.rating_intervals import RatingPredictor
from eagle_jax.eagle.serving.users import User, UserDirectory, meant
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN, Scorer
from eagle_jax.language_model.generation import SamplingSettings, TextGenerator

Pair = tuple[Entity, User]
_NUM_NEAREST = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agent:
    """A policy with its environment, and what its texts are measured by.

    name: of the stage that trained it. batch_size: episodes played at a time. evaluated: ids of the
    (item, user) pairs that the run evaluated it on. facts: on the intervals of predicted ratings. chooser: acts in the
    policy's place. actions: tried in each state; of several the search goes on from the text of best reward.
    instructions: those of the run's candidates that could be applied, none twice.
    """

    name: str
    catalogue: Catalogue
    policy: TextGenerator
    policy_sampling: SamplingSettings
    environment: LLMEnvironment
    horizon: int
    batch_size: int
    scorers: Mapping[str, Scorer]
    ratings: RatingPredictor
    users: UserDirectory
    evaluated: Sequence[tuple[str, str]]
    facts: Mapping[str, float | None]
    quality: Quality | None = None  # that the agent was rewarded for beside U
    chooser: Chooser | None = None
    actions: int = 1
    instructions: Sequence[str] = ()

    def propose(
        self,
        items: Sequence[str | Entity] | None = None,
        users: Sequence[str | User] | None = None,
        num: int = 5,
        seed: int = 0,
        actions: int = 1,
    ) -> Iterator[Proposal]:
        """Up to `num` texts for each item and user, one after the other as they are found.

        Items in their order, for each the users in theirs, for these the best training U first. The
        same seed gives the same proposals. items, users: ids, and what `new_item` and `new_user`
        make; None: those of the held-out pairs that the run evaluated the agent on, both None: just
        these pairs. actions: that are tried in each state, of which the one of best training reward is
        gone on with (greedy search). Raises `UserError` that names an unknown id.
        """
        agent = self.trying(actions)
        batches = agent.batches(agent.pairs(items, users), num)
        found = (one for first, pairs in batches for one in agent.propose_batch(pairs, num, seed, first))
        return with_earlier_users(found)

    def trying(self, actions: int) -> Agent:
        """This agent where it tries so many actions in each state."""
        if actions < 1:
            raise UserError(f"actions must be at least 1, got {actions}")
        return dataclasses.replace(self, actions=actions)

    def item(self, item_id: str) -> Entity:
        """That of the catalogue; raises `UserError` where there is none of this id."""
        if item_id not in self._places:
            raise UserError(f"no item {item_id!r} in {self.catalogue.name}{meant(item_id, self._places)}")
        return self.catalogue.entities[self._places[item_id]]

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {entity.entity_id: place for place, entity in enumerate(self.catalogue.entities)}

    def new_item(self, text: str, item_id: str = "new item", title: str = "") -> Entity:
        """An item that is not in the catalogue, from its marked text alone."""
        if item_id in self._places:
            raise UserError(
                f"item {item_id!r} is in the catalogue: give the new one another id, or ask for it by its id"
            )
        blocks = self.catalogue.entity_format.blocks
        try:
            description = render_blocks(parse_blocks(text, blocks))
        except MalformedText as error:
            raise UserError(f"item {item_id!r}: the text cannot be read: {error}") from error
        return Entity(entity_id=item_id, title=title, description=description)

    def new_user(
        self, ratings: Mapping[str, float], profile: str | None = None, user_id: str = "new user", seed: int = 0
    ) -> User:
        """A user whom the run does not know, from ratings (item id -> stars); see `UserDirectory.add`."""
        return self.users.add(user_id, ratings, profile, seed)

    def pairs(self, items: Sequence[str | Entity] | None, users: Sequence[str | User] | None) -> list[Pair]:
        """The pairs that `propose` takes, in their order."""
        are_of_run = items is None and users is None
        if items is None:
            items = dict.fromkeys(item for item, _ in self.evaluated)
        else:
            _refuse_repeated("item", [one if isinstance(one, str) else one.entity_id for one in items])
        if users is None:
            users = dict.fromkeys(user for _, user in self.evaluated)
        else:
            _refuse_repeated("user", [one if isinstance(one, str) else one.user_id for one in users])
        entities = [self.item(one) if isinstance(one, str) else one for one in items]
        people = [self.users.find(one) if isinstance(one, str) else one for one in users]
        pairs = [(entity, user) for entity in entities for user in people]
        if are_of_run:
            wanted = set(self.evaluated)
            pairs = [(entity, user) for entity, user in pairs if (entity.entity_id, user.user_id) in wanted]
        return pairs

    def batches(self, pairs: Sequence[Pair], num: int) -> list[tuple[int, Sequence[Pair]]]:
        """The pairs that are played at a time, each with the place of its first episode."""
        if num < 1:
            raise UserError(f"num must be at least 1, got {num}")
        size = max(1, self.batch_size // (num * self.actions))
        return [(place * num, pairs[place : place + size]) for place in range(0, len(pairs), size)]

    def propose_batch(self, pairs: Sequence[Pair], num: int, seed: int, first: int) -> list[Proposal]:
        """The proposals for some pairs; `first`: the place of their first episode among all."""
        repeated = [pair for pair in pairs for _ in range(num)]
        starts = [
            Start(place, place, item.description, user.profile)
            for place, (item, user) in enumerate(pairs)
            for _ in range(num)
        ]
        records, tokens, seconds = self.play(starts, [user for _, user in pairs], derive_seed(seed, first))
        proposals = self._proposals(repeated, records, tokens, seconds / len(repeated))
        return [one for place in range(0, len(repeated), num) for one in ranked(proposals[place : place + num])]

    def policy_fn(self, policy: TextGenerator, embeddings: np.ndarray) -> PolicyFn:
        """What acts for users of these embeddings [U, d]: the agent's own `policy`, or who chooses in its place."""
        if self.chooser is None:
            return make_policy_fn(policy, self.environment.book, self.environment.entity_format, self.policy_sampling)
        return self.chooser(embeddings)

    def judging(self, embeddings: np.ndarray) -> Judging:
        """What measures texts for users of these embeddings [U, d]."""
        scorers = {
            name: dataclasses.replace(scorer, user_embeddings=embeddings) for name, scorer in self.scorers.items()
        }
        return Judging(scorers, self.quality)

    def play(
        self, starts: Sequence[Start], users: Sequence[User], seed: int
    ) -> tuple[list[EpisodeRecord], list[int | None], float]:
        """One episode per start, whose user index is a place in `users`: records, tokens and seconds."""
        started = time.monotonic()
        policy, writer = MeteredGenerator(self.policy), MeteredGenerator(self.environment.generator)
        environment = dataclasses.replace(self.environment, generator=writer)
        embeddings = np.stack([user.embedding for user in users])
        policy_fn, judging = self.policy_fn(policy, embeddings), self.judging(embeddings)
        if self.actions == 1:
            played = rollout(policy_fn, environment, environment.reset(starts), self.horizon, seed)
            episodes = list(zip(*(transition.steps for transition in played), strict=True))
            records = evaluate_played(judging, starts, seed, episodes)
        else:
            shape = {"width": self.actions, "horizon": self.horizon, "batch_size": len(starts) * self.actions}
            searched = search_greedily(judging, starts, seed, policy_fn, environment, **shape)
            played, records = searched.played, searched_records(judging, starts, seed, searched)
        of_policy = policy.calls if self.chooser is None else [[0] * len(transition.steps) for transition in played]
        tokens = _tokens(played, of_policy, writer.calls)
        of_starts = [tokens[place : place + self.actions] for place in range(0, len(tokens), self.actions)]
        totals = [None if None in of_start else sum(of_start) for of_start in of_starts]
        return records, totals, time.monotonic() - started

    def _proposals(
        self, pairs: Sequence[Pair], records: Sequence[EpisodeRecord], tokens: Sequence[int | None], seconds: float
    ) -> list[Proposal]:
        texts = [record.final_text for record in records]
        embeddings = {name: scorer.embed(texts) for name, scorer in self.scorers.items()}
        of_users = np.stack([user.embedding for _, user in pairs]), np.array([user.bias for _, user in pairs])
        ratings = self.ratings.predict(embeddings[HELD_OUT], *of_users)
        held_out = self.scorers[HELD_OUT]
        nearer, distances = nearer_shares(
            embeddings[HELD_OUT],
            held_out.embed([item.description for item, _ in pairs]),
            held_out.catalogue_embeddings,
            [self._places.get(item.entity_id) for item, _ in pairs],
        )
        catalogue = self.scorers[TRAIN].catalogue_embeddings
        near = nearest_items(embeddings[TRAIN], catalogue, self.catalogue.entities, _NUM_NEAREST)
        proposals = []
        for row, ((item, user), record, nearest) in enumerate(zip(pairs, records, near, strict=True)):
            others = [self.item(one["item_id"]) for one in nearest if one["item_id"] != item.entity_id]
            rating, low, high = (float(column[row]) for column in ratings)
            proposals.append(
                Proposal(
                    item_id=item.entity_id,
                    title=item.title,
                    user_id=user.user_id,
                    rank=0,  # until all for this pair are there
                    text=texts[row],
                    steps=record.steps,
                    utility={name: dict(path[-1]) for name, path in record.scores.items()},
                    gain={name: path[-1]["utility"] - path[0]["utility"] for name, path in record.scores.items()},
                    predicted_rating=rating,
                    rating_low=low,
                    rating_high=high,
                    nearest=tuple(nearest),
                    distance_to_anchor=float(distances[row]),
                    nearer_share=float(nearer[row]),
                    left_anchor=bool(nearer[row] > QUANTILE),
                    unchanged=texts[row] == item.description,
                    near_copy_of=near_copy(texts[row], others),
                    same_as_user=None,  # until those before are known
                    malformed=record.malformed,
                    environment_calls=record.environment_calls,
                    num_tokens=tokens[row],
                    seconds=seconds,
                )
            )
        return proposals


def _refuse_repeated(what: str, names: Sequence[str]) -> None:
    """Raises `UserError` where nothing was asked for, or something twice."""
    if not names:
        raise UserError(f"{what}s: none was asked for")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise UserError(f"{what} {name!r} is asked for twice")


def _tokens(
    played: Sequence[Transitions], actions: Sequence[Sequence[int | None]], rewrites: Sequence[Sequence[int | None]]
) -> list[int | None]:
    """Of each episode; the environment was asked for the rows with an action, again where it was malformed."""
    totals: list[int | None] = [0] * len(played[0].steps)

    def add(row: int, count: int | None) -> None:
        totals[row] = None if count is None or totals[row] is None else totals[row] + count

    remaining = iter(rewrites)
    for transition, of_actions in zip(played, actions, strict=True):
        for row, count in enumerate(of_actions):
            add(row, count)
        for number in range(max(step.num_calls for step in transition.steps)):
            asked = [row for row, step in enumerate(transition.steps) if step.num_calls > number]
            for row, count in zip(asked, next(remaining), strict=True):
                add(row, count)
    return totals
