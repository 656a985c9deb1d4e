"""One exploration: an item, a user, the texts that were made of the item, and the episodes played beside them.

Every text knows the one that it was made of, so that one may go on from any of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.catalogue import Entity
from eagle_jax.eagle.environment import EpisodeState, Start, written_actions
from eagle_jax.eagle.evaluation.episodes import EpisodeRecord, Judging, Score, evaluate_played, evaluate_policy
from eagle_jax.eagle.rollout import rollout
from eagle_jax.eagle.serving.played import Played
from eagle_jax.eagle.serving.proposals import nearest_items
from eagle_jax.eagle.serving.users import User
from eagle_jax.embeddings.scorer import TRAIN
from eagle_jax.pages.explored_run import ExploredRun

BY_YOU, BY_ITEM, BY_ROW = "you", "item", "row"
MOST_CHARACTERS, MOST_EPISODES = 1000, 50
_NUM_NEAREST = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExploredText:
    """A text and what is known about it; of one that could not be rewritten `text` is the one before.

    number: from 0, the item's own. before: number of the text that it was made of; None: of none. by: who chose the
    action. malformed: why there is no new text; None: there is one. scores: encoder -> U and its terms. position: on
    the map. nearest: existing items, under the training encoder.
    """

    number: int
    before: int | None
    by: str
    action: str | None
    text: str
    malformed: str | None
    environment_calls: int
    scores: Mapping[str, Score]
    position: tuple[float, float]
    nearest: Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExploredEpisode:
    """Of an agent's or the reference policy's: the path from the item, without it, to the text that counts.

    best_of: episodes of which the text of best training reward counts; None: the last text of one episode does.
    """

    by: str
    best_of: int | None
    path: tuple[ExploredText, ...]
    environment_calls: int
    malformed: Mapping[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluatedEpisode:
    """Of the run's evaluation. row: its title. texts: from the item's own to the one that counts."""

    row: str
    seed: int
    item: Entity
    user_id: str
    profile: str
    texts: tuple[ExploredText, ...]
    environment_calls: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exploration:
    """texts: in the order in which they were made, the item's own first."""

    item: Entity
    user: User
    texts: tuple[ExploredText, ...]
    episodes: tuple[ExploredEpisode, ...] = ()

    @property
    def start(self) -> Start:
        """Where it begins; the user is the only one of `judging_of`."""
        return Start(0, 0, self.item.description, self.user.profile)


def begin_exploration(run: ExploredRun, item_id: str, user_id: str) -> Exploration:
    """With the item's own text; raises `UserError` that names an unknown id."""
    exploration = Exploration(item=run.agent.item(item_id), user=run.agent.users.find(user_id), texts=())
    record = evaluate_played(_judging(run, exploration), [exploration.start], 0, [()])[0]
    return dataclasses.replace(exploration, texts=(_anchor(run, record),))


def with_step(run: ExploredRun, exploration: Exploration, before: int, by: str, instruction: str) -> Exploration:
    """With one more text, made of the one of number `before` by what was typed, or by what a player's policy says.

    Raises `UserError` that names the field that is wrong.
    """
    if not 0 <= before < len(exploration.texts):
        raise UserError(f"before={before}: there are the texts 0 to {len(exploration.texts) - 1}")
    if by == BY_YOU and not instruction.strip():
        raise UserError("instruction: is empty; say what is to change")
    if len(instruction) > MOST_CHARACTERS:
        raise UserError(f"instruction: has {len(instruction)} characters, at most {MOST_CHARACTERS} are read")
    typed = {BY_YOU: lambda states, seed: written_actions([instruction])}
    policy_fn = _chosen("by", by, typed | run.players(_embeddings(exploration)))
    start, number = exploration.start, len(exploration.texts)
    way = _way_to(exploration, before)
    taken = tuple(text.action for text in way if text.action is not None)
    state = EpisodeState(**start._replace(description=way[-1].text)._asdict(), step=len(way) - 1, taken=taken)
    played = rollout(policy_fn, run.agent.environment, [state], 1, derive_seed(run.seed, 0, number))
    record = evaluate_played(_judging(run, exploration), [start], 0, [tuple(played[0].steps)])[0]
    (text,) = _path(run, record, by)
    text = dataclasses.replace(text, number=number, before=before)
    return dataclasses.replace(exploration, texts=(*exploration.texts, text))


def with_episode(run: ExploredRun, exploration: Exploration, by: str, best_of: int | None) -> Exploration:
    """With one more episode from the item; raises `UserError` that names the field that is wrong."""
    if best_of is not None and not 1 <= best_of <= MOST_EPISODES:
        raise UserError(f"best_of={best_of}: must be from 1 to {MOST_EPISODES}")
    policy_fn = _chosen("by", by, run.players(_embeddings(exploration)))
    # What is compared draws alike, so that best-of-N has the single episode among its own; asked for again, anew.
    again = sum((episode.by, episode.best_of) == (by, best_of) for episode in exploration.episodes)
    agent = run.agent
    record = evaluate_policy(
        _judging(run, exploration),
        [exploration.start],
        derive_seed(run.seed, 1, again),
        policy_fn,
        agent.environment,
        agent.horizon,
        agent.batch_size,
        best_of,
    )[0]
    episode = ExploredEpisode(
        by=by,
        best_of=best_of,
        path=_path(run, record, by),
        environment_calls=record.environment_calls,
        malformed=dict(record.malformed),
    )
    return dataclasses.replace(exploration, episodes=(*exploration.episodes, episode))


def played_rows(run: ExploredRun) -> Mapping[str, Sequence[Played]]:
    """What the run's evaluation has played, by row; empty where that is not shown."""
    return {} if run.played is None else run.played.rows


def evaluated_episode(run: ExploredRun, row: str, place: int) -> EvaluatedEpisode:
    """The one at this place in the list of its row, as it was played and scored; raises `UserError` that names what
    there is not."""
    record, agent = run.played.record(row, place), run.agent
    return EvaluatedEpisode(
        row=row,
        seed=record.seed,
        item=agent.catalogue.entities[record.entity_index],
        user_id=agent.catalogue.ratings.user_names[record.user_index],
        profile=record.profile,
        texts=(_anchor(run, record), *_path(run, record, BY_ROW)),
        environment_calls=record.environment_calls,
    )


def growth(run: ExploredRun, user: User) -> tuple[float, float]:
    """The direction on the map in which the user's own term of U grows fastest, of length 1; zeros: on it in none."""
    direction = run.plane.axes @ user.embedding
    return _pair(direction / max(float(np.linalg.norm(direction)), 1e-12))


def _way_to(exploration: Exploration, number: int) -> list[ExploredText]:
    """The texts from the item's own to one of them."""
    text = exploration.texts[number]
    return [*([] if text.before is None else _way_to(exploration, text.before)), text]


def _embeddings(exploration: Exploration) -> np.ndarray:
    return exploration.user.embedding[None]


def _judging(run: ExploredRun, exploration: Exploration) -> Judging:
    return run.agent.judging(_embeddings(exploration))


def _chosen(field: str, value: str, among: Mapping[str, Any]) -> Any:
    if value not in among:
        raise UserError(f"{field}={value}: must be one of {', '.join(among)}")
    return among[value]


def _anchor(run: ExploredRun, record: EpisodeRecord) -> ExploredText:
    (place,) = _places(run, [record.anchor])
    scores = {encoder: path[0] for encoder, path in record.scores.items()}
    return ExploredText(
        number=0,
        before=None,
        by=BY_ITEM,
        action=None,
        text=record.anchor,
        malformed=None,
        environment_calls=0,
        scores=scores,
        **place,
    )


def _path(run: ExploredRun, record: EpisodeRecord, by: str) -> tuple[ExploredText, ...]:
    """The texts of a record's steps, numbered from 1."""
    places = _places(run, [step.description for step in record.steps])
    return tuple(
        ExploredText(
            number=number,
            before=number - 1,
            by=by,
            action=step.action,
            text=step.description,
            malformed=step.malformed,
            environment_calls=step.num_calls,
            scores={encoder: path[number] for encoder, path in record.scores.items()},
            **place,
        )
        for number, (step, place) in enumerate(zip(record.steps, places, strict=True), start=1)
    )


def _places(run: ExploredRun, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Fields of each text: where it is on the map, and what exists near it."""
    scorer, items = run.agent.scorers[TRAIN], run.agent.catalogue.entities
    catalogue, embeddings = np.asarray(scorer.catalogue_embeddings), np.asarray(scorer.embed(texts))
    near = nearest_items(embeddings, catalogue, items, _NUM_NEAREST)
    return [
        {"position": _pair(position), "nearest": nearest}
        for position, nearest in zip(run.plane.project(embeddings), near, strict=True)
    ]


def _pair(position: np.ndarray) -> tuple[float, float]:
    return float(position[0]), float(position[1])
