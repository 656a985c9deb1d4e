"""Rounds of drafts and edits: CIPHER beside profiles from as many ratings, and beside no learning.

All learners meet the same users and contexts. After n rounds a learner of edits has n edits, a learner
of ratings n ratings, of the contexts' own films. With one taste a user likes the same in every
context; with two, which of them decides shows in the context's dialect, as the paper's users want
other things of other kinds of documents.

Axis letters: `U` users, `n` rounds, `D` width of a context's embedding, `L` latent width.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.settings import setting, settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.data.minilens.task_teacher import taste_of
from eagle_jax.data.minilens.world import draw_world
from eagle_jax.data.prompts import COMPACT, profile_prompt, render_blocks
from eagle_jax.embeddings.domain_encoder import FeaturesFn
from eagle_jax.language_model.generation import SamplingSettings, TextGenerator, write_block
from eagle_jax.studies.people import edits
from eagle_jax.studies.people.tastes import give_stars

Tellings = Sequence[grammar.Telling]
# drafts and edits of all users -> the preference that each shows
InferFn = Callable[[Tellings, Tellings, int], Sequence[str]]
NOTHING, CIPHER_ONE, CIPHER_KEPT = "no learning", "CIPHER, the nearest", "CIPHER, the nearest, kept"
CIPHER, CIPHER_LM, ALL_EDITS = "CIPHER, k nearest", "CIPHER, k, generator", "all edits, no retrieval"
RATINGS_LM, RATINGS, PROFILE = "ratings, generator", "ratings, inferred exactly", "profile of the known taste"
EVERYTHING = "the known taste"
LEARNERS = (
    NOTHING, CIPHER_ONE, CIPHER_KEPT, CIPHER, CIPHER_LM, ALL_EDITS, RATINGS_LM, RATINGS, PROFILE, EVERYTHING,
)  # fmt: skip
TASTES = ("one taste", "two tastes, by the context")


@settings
class EditSettings:
    """The second part: edits of drafts."""

    num_users: int = setting("Of each condition.", at_least=2)
    num_rounds: int = setting("Drafts of each user.", at_least=2)
    max_edits: int = setting("Slots that a user changes at most in one draft.", at_least=1)
    least_gain: float = setting("Below which a slot is left as it is.", at_least=0, unit="affinity")
    rating_noise: float = setting("Standard deviation.", at_least=0, unit="stars")
    num_nearest: int = setting("k, contexts whose preferences are aggregated.", at_least=2)
    generator: str = setting("Infers preferences: minilens/<role> or a folder of a model.")
    sampling: SamplingSettings = setting("Of inferred preferences.")
    max_tries: int = setting("Of a malformed one; then there is none.", at_least=1)
    features: str = setting("Of contexts: minilens/<role> or a folder of a model.")


class Meeting(NamedTuple):
    """Users with tastes [U, M, L], the films that they meet [U][n], embedded [U, n, D], and stars for these [U, n]."""

    tastes: np.ndarray
    contexts: list[list[grammar.Telling]]
    embeddings: np.ndarray
    stars: np.ndarray

    def place(self, user: int, number: int) -> int:
        """Which of the user's tastes decides in a round."""
        return grammar.DIALECTS.index(self.contexts[user][number].dialect) % len(self.tastes[user])

    def taste(self, user: int, number: int) -> np.ndarray:
        """The taste [L] that decides in a round."""
        return self.tastes[user, self.place(user, number)]


def draw_meeting(settings: EditSettings, num_tastes: int, features_fn: FeaturesFn, seed: int) -> Meeting:
    """Fresh users; contexts in either dialect."""
    rng = np.random.default_rng([seed, num_tastes])
    tastes = draw_world().draw_tastes(settings.num_users * num_tastes, rng)
    tastes = tastes.reshape(settings.num_users, num_tastes, -1)
    shape = settings.num_users, settings.num_rounds
    dialects = rng.integers(len(grammar.DIALECTS), size=shape)
    contexts = [[edits.draw_context(grammar.DIALECTS[d], rng) for d in row] for row in dialects]
    told = features_fn([grammar.tell_film(context) for row in contexts for context in row])
    meeting = Meeting(tastes, contexts, told.reshape(*shape, -1), np.zeros(shape))
    affinity = [
        [edits.film_affinity(c, meeting.taste(u, n)) for n, c in enumerate(row)] for u, row in enumerate(contexts)
    ]
    return meeting._replace(stars=give_stars(np.array(affinity), settings.rating_noise, rng))


def measure_edits(
    settings: EditSettings, features_fn: FeaturesFn, generator: TextGenerator, seed: int, stage: StageFolder
) -> list[dict[str, Any]]:
    """A row for each condition and learner: {"tastes", "learner", "malformed", and by round and user "cost",
    "correlation", "affinity"}; what is done is kept when interrupted."""
    runs = [(number, learner) for number in range(len(TASTES)) for learner in LEARNERS]
    rows, meet = [], functools.cache(lambda number: draw_meeting(settings, number + 1, features_fn, seed))
    for index, (number, learner) in enumerate(progress(runs, len(runs), "edits", "learner")):

        def run(number=number, learner=learner) -> dict[str, Any]:
            rounds = _Rounds(meet(number), settings, generator, derive_seed(seed, number))
            return {"tastes": TASTES[number], "learner": learner, **rounds.run(learner)}

        rows.append(stage.chunk(index, run))
    return rows


class _Rounds:
    """One learner with all users at once."""

    def __init__(self, meeting: Meeting, settings: EditSettings, generator: TextGenerator, seed: int):
        self.meeting, self.settings, self.generator, self.seed = meeting, settings, generator, seed
        self.malformed: Counter[str] = Counter()
        self.affinities = [[draw_world().value_affinity(taste) for taste in own] for own in meeting.tastes]

    def run(self, learner: str) -> dict[str, Any]:
        """[n][U] of each measure, and malformed answers of the generator by reason."""
        k = self.settings.num_nearest
        by_edits: Mapping[str, tuple[int | None, bool, InferFn]] = {
            CIPHER_ONE: (1, False, self._read),
            CIPHER: (k, False, self._read),
            CIPHER_KEPT: (1, True, self._read),
            CIPHER_LM: (k, False, self._ask_about_edits),
            ALL_EDITS: (None, False, self._read),
        }
        told = self._edit_learner(*by_edits[learner]) if learner in by_edits else self._other(learner)
        measures = {"cost": [], "correlation": [], "affinity": []}
        preferences = next(told)
        for number in range(self.settings.num_rounds):
            drafts, edited = self._round(number, preferences)
            measures["cost"].append([edits.edit_cost(*pair) for pair in zip(drafts, edited, strict=True)])
            measures["correlation"].append(
                [edits.told_correlation(text, self._affinity(u, number)) for u, text in enumerate(preferences)]
            )
            measures["affinity"].append(
                [edits.film_affinity(draft, self.meeting.taste(u, number)) for u, draft in enumerate(drafts)]
            )
            if number + 1 < self.settings.num_rounds:
                preferences = told.send((drafts, edited))
        return {**measures, "malformed": dict(self.malformed)}

    def _affinity(self, user: int, number: int) -> edits.Affinity:
        return self.affinities[user][self.meeting.place(user, number)]

    def _round(self, number: int, preferences: Sequence[str]) -> tuple[list[grammar.Telling], list[grammar.Telling]]:
        limits = {"max_edits": self.settings.max_edits, "least_gain": self.settings.least_gain}
        drafts = [
            edits.draft_for(own[number], text) for own, text in zip(self.meeting.contexts, preferences, strict=True)
        ]
        return drafts, [edits.user_edit(d, self._affinity(u, number), **limits) for u, d in enumerate(drafts)]

    def _edit_learner(
        self, count: int | None, keeps: bool, infer: InferFn
    ) -> Iterator[list[str]]:  # sent drafts and edits
        """Preferences of all users round by round (algorithm 1). count: k, None for all contexts alike."""
        stored: list[list[str]] = [[] for _ in self.meeting.contexts]
        preferences = [""] * len(stored)
        for number in range(self.settings.num_rounds):
            drafts, edited = yield preferences
            inferred = infer(drafts, edited, number)
            for user, (text, before, after) in enumerate(zip(inferred, drafts, edited, strict=True)):
                if before == after:
                    text = preferences[user]
                elif keeps:
                    text = edits.aggregate([edits.standing(preferences[user], after), text])
                stored[user].append(text)
            preferences = [self._retrieved(user, own, count) for user, own in enumerate(stored)]

    def _retrieved(self, user: int, stored: Sequence[str], count: int | None) -> str:
        number = len(stored)
        if number == self.settings.num_rounds:
            return ""
        met, context = self.meeting.embeddings[user, :number], self.meeting.embeddings[user, number]
        rows = range(number) if count is None else edits.nearest(met, context, count)
        return edits.aggregate([stored[row] for row in rows])

    def _other(self, learner: str) -> Iterator[list[str]]:
        """Preferences that follow from no edit."""
        for number in range(self.settings.num_rounds):
            yield self._told_without_edits(learner, number)

    def _told_without_edits(self, learner: str, number: int) -> list[str]:
        users = range(len(self.meeting.contexts))
        if learner == NOTHING or (number < 2 and learner in (RATINGS, RATINGS_LM)):
            return [""] * len(users)  # of one film nobody can say whether it was rated high or low
        if learner == RATINGS_LM:
            return self._ask([self._rated(user, number) for user in users], number)
        if learner == RATINGS:
            sides = [
                dict(zip(("LIKED", "DISLIKED"), map("; ".join, self._rated(u, number)), strict=True)) for u in users
            ]
            tastes = [taste_of(render_blocks(rated)) for rated in sides]
            return [corpus.tell_profile(draw_world(), taste, np.random.default_rng(0)) for taste in tastes]
        if learner == PROFILE:
            tastes = [self.meeting.taste(user, number) for user in users]
            return [corpus.tell_profile(draw_world(), taste, np.random.default_rng(0)) for taste in tastes]
        return [self._everything(self._affinity(user, number)) for user in users]

    def _everything(self, affinity: edits.Affinity) -> str:
        of_slots = [[(slot, value) for value in range(grammar.num_values(slot))] for slot in grammar.SLOTS]
        sides = [[pick(values, key=affinity.get) for values in of_slots] for pick in (max, min)]
        return edits.tell_preference(*sides)

    def _rated(self, user: int, number: int) -> tuple[list[str], list[str]]:
        """Titles of the first `number` films that the user rated highest, and of those rated lowest."""
        order = np.argsort(-self.meeting.stars[user, :number], kind="stable")
        titles = [grammar.title_of(edits.film_of(self.meeting.contexts[user][place])) for place in order]
        count = min(corpus.PROFILE_SIDE, number // 2)
        return titles[:count], titles[number - count :]

    def _read(self, drafts: Tellings, edited: Tellings, number: int) -> list[str]:
        return [edits.read_edit(*pair) for pair in zip(drafts, edited, strict=True)]

    def _ask_about_edits(self, drafts: Tellings, edited: Tellings, number: int) -> list[str]:
        """The edited film as one that the user rated high, the draft as one rated low."""
        titles = [[grammar.title_of(edits.film_of(telling)) for telling in side] for side in (edited, drafts)]
        return self._ask([([after], [before]) for after, before in zip(*titles, strict=True)], number)

    def _ask(self, shown: Sequence[tuple[list[str], list[str]]], number: int) -> list[str]:
        """The profile that the generator infers of titles liked and disliked; none where all tries are malformed.

        Titles are repeated to as many as it was pretrained on: of one on each side it says the opposite.
        """
        settings = self.settings
        sides = ([list(islice(cycle(titles), corpus.PROFILE_SIDE)) for titles in of_user] for of_user in shown)
        prompts = [profile_prompt(COMPACT, *of_user) for of_user in sides]
        seed = derive_seed(self.seed, number)
        texts, malformed = write_block(
            self.generator, prompts, "USER_PROFILE", settings.sampling, seed, settings.max_tries
        )
        self.malformed.update(reason for reasons in malformed for reason in reasons)
        return [text or "" for text in texts]
