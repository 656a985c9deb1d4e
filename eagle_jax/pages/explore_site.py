"""The pages of `eagle-jax explore`: one page with its script, what the script asks for, and the export.

Explorations are kept in memory, by a name that only who began it is told. A mistake in what is asked for is answered
by {"error": one sentence}.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import secrets
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from eagle_jax.base.errors import UserError
from eagle_jax.eagle.evaluation.story import changed_words
from eagle_jax.embeddings.scorer import TRAIN
from eagle_jax.pages.exploration import (
    MOST_CHARACTERS,
    MOST_EPISODES,
    EvaluatedEpisode,
    Exploration,
    begin_exploration,
    evaluated_episode,
    growth,
    played_rows,
    with_episode,
    with_step,
)
from eagle_jax.pages.exploration_tables import (
    episode_told,
    evaluated_told,
    exploration_csv,
    exploration_json,
    found_told,
    made_visible,
    played_told,
    term_headings,
    text_told,
)
from eagle_jax.pages.explored_run import ITEMS, USERS, ExploredRun
from eagle_jax.pages.web import (
    UnknownError,
    answered,
    download,
    make_app,
    page,
    positions_response,
    script_routes,
    sent_fields,
    sent_number,
)

_MOST_EXPLORATIONS = 200  # the oldest are forgotten
_TITLE = "Explore"
_NO_EXPLORATION = "evaluated"  # in the address of an export of the evaluation's episodes alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExploreSite:
    """token: of the address; may be empty."""

    run: ExploredRun
    token: str
    explorations: dict[str, Exploration] = dataclasses.field(default_factory=dict)
    # Models are asked by one at a time; who waits holds no thread.
    turn: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)

    def app(self) -> Starlette:
        """The pages as an ASGI application."""
        kind = "{kind:str}"
        routes = [
            Route("/", self._page),
            *script_routes("explore", "page", "map", "texts", "evaluated"),
            Route(f"/positions/{kind}", answered(self._positions)),
            Route(f"/found/{kind}", answered(self._found)),
            Route(f"/at/{kind}/{{place:int}}", answered(self._at)),
            Route("/evaluated", answered(self._rows)),
            Route("/evaluated/{number:int}", answered(self._of_row)),
            Route("/evaluated/{number:int}/{place:int}", answered(self._evaluated)),
            Route("/begin", answered(self._begin), methods=["POST"]),
            Route("/step", answered(self._step), methods=["POST"]),
            Route("/episode", answered(self._episode), methods=["POST"]),
            Route("/export/{name}.json", answered(self._json)),
            Route("/export/{name}.csv", answered(self._csv)),
        ]
        return make_app(routes, self.token, title=_TITLE, has_scripts=True)

    def _page(self, request: Request) -> Response:
        agent = self.run.agent
        item_id, user_id = agent.evaluated[0]
        return page(
            "explore",
            root=self.token and f"/{self.token}",
            agent=agent,
            reference=self.run.reference.name,
            counts={kind: len(positions) for kind, positions in self.run.positions.items()},
            shares=self.run.plane.explained_variance,
            terms=term_headings(agent.scorers[TRAIN].settings, agent.quality is not None).values(),
            first={ITEMS: item_id, USERS: user_id},
            has_evaluated=self.run.played is not None,
            most_characters=MOST_CHARACTERS,
            most_episodes=MOST_EPISODES,
        )

    async def _positions(self, request: Request) -> Response:
        return positions_response(self.run.positions[_kind(request)])

    async def _found(self, request: Request) -> Response:
        kind, asked = _kind(request), request.query_params.get("words", "")
        titles = functools.partial(self.run.titles, kind)
        found = await run_in_threadpool(lambda: found_told(asked, self.run.findable[kind], titles))
        return JSONResponse(found)

    async def _at(self, request: Request) -> Response:
        kind, place = _kind(request), request.path_params["place"]
        if place >= len(self.run.positions[kind]):
            raise UnknownError(f"{place}: there are {len(self.run.positions[kind])} {kind}")
        text = self.run.text(kind, place)
        return JSONResponse(made_visible({**self.run.titles(kind, place), "words": changed_words(text, text)}))

    async def _rows(self, request: Request) -> Response:
        return JSONResponse(made_visible(list(await run_in_threadpool(played_rows, self.run))))

    async def _of_row(self, request: Request) -> Response:
        row = await self._row(request.path_params["number"])
        return JSONResponse(played_told(self.run, row))

    async def _evaluated(self, request: Request) -> Response:
        row = await self._row(request.path_params["number"])
        async with self.turn:
            episode = await run_in_threadpool(evaluated_episode, self.run, row, request.path_params["place"])
        return JSONResponse(evaluated_told(self.run, episode))

    async def _row(self, number: int) -> str:
        """The title of a row of the evaluation."""
        rows = list(await run_in_threadpool(played_rows, self.run))
        if number >= len(rows):
            raise UnknownError(f"{number}: the evaluation has {len(rows)} rows")
        return rows[number]

    async def _begin(self, request: Request) -> Response:
        fields = await sent_fields(request)
        item_id, user_id = fields.get("item", ""), fields.get("user", "")
        try:
            async with self.turn:
                begun = await run_in_threadpool(begin_exploration, self.run, item_id, user_id)
        except UserError as error:
            raise UnknownError(str(error)) from error
        name = secrets.token_urlsafe(9)
        self.explorations[name] = begun
        while len(self.explorations) > _MOST_EXPLORATIONS:
            del self.explorations[next(iter(self.explorations))]
        anchor = begun.texts[0]
        told = {
            "item": {"id": begun.item.entity_id, "title": begun.item.title},
            "user": {"id": begun.user.user_id, "profile": begun.user.profile},
        }
        told |= {"name": name, "growth": growth(self.run, begun.user)}
        return JSONResponse(made_visible(told) | {"text": text_told(self.run, anchor, anchor)})

    async def _step(self, request: Request) -> Response:
        fields = await sent_fields(request)
        before = sent_number("before", fields.get("before", ""))
        asked = before, fields.get("by", ""), fields.get("instruction", "")
        exploration = await self._replaced(fields.get("name", ""), with_step, *asked)
        return JSONResponse(text_told(self.run, exploration.texts[-1], exploration.texts[before]))

    async def _episode(self, request: Request) -> Response:
        fields = await sent_fields(request)
        best_of = sent_number("best_of", fields["best_of"]) if "best_of" in fields else None
        exploration = await self._replaced(fields.get("name", ""), with_episode, fields.get("by", ""), best_of)
        return JSONResponse(episode_told(self.run, exploration, exploration.episodes[-1]))

    async def _json(self, request: Request) -> Response:
        text = exploration_json(self.run, *await self._exported(request))
        return download(text, "application/json", "exploration.json")

    async def _csv(self, request: Request) -> Response:
        text = exploration_csv(*await self._exported(request))
        return download(text, "text/csv", "exploration.csv")

    async def _exported(self, request: Request) -> tuple[Exploration | None, list[EvaluatedEpisode]]:
        """The exploration of this name, "evaluated" of none, and the evaluation's episodes that are asked for with it,
        each as <row>.<place>."""
        name, asked = request.path_params["name"], request.query_params.getlist("evaluated")
        if len(asked) > MOST_EPISODES:
            raise UserError(f"evaluated: {len(asked)} episodes, at most {MOST_EPISODES} are exported")
        exploration = None if name == _NO_EXPLORATION and asked else self._exploration(name)
        places = [[sent_number("evaluated", part) for part in one.partition(".")[::2]] for one in asked]
        of_rows = [(await self._row(number), place) for number, place in places]
        async with self.turn:
            return exploration, [await run_in_threadpool(evaluated_episode, self.run, *one) for one in of_rows]

    def _exploration(self, name: str) -> Exploration:
        if name not in self.explorations:
            raise UnknownError("there is no such exploration, or no more; begin anew")
        return self.explorations[name]

    async def _replaced(self, name: str, action: Callable[..., Exploration], *arguments: Any) -> Exploration:
        """The exploration of this name after action(run, it, ...), which is kept in its place."""
        async with self.turn:
            changed = await run_in_threadpool(action, self.run, self._exploration(name), *arguments)
            self.explorations[name] = changed
            return changed


def _kind(request: Request) -> str:
    kind = request.path_params["kind"]
    if kind not in (ITEMS, USERS):
        raise UnknownError(f"{kind}: the map has {ITEMS} and {USERS}")
    return kind
