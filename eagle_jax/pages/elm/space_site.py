"""The pages of `eagle-jax explore` on an ELM run: the map, points between items, and what the ELM says of them.

What was told is kept in memory, by a name that only who opened the page is told. A mistake in what is asked for is
answered by {"error": one sentence}.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import math
import secrets
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from eagle_jax.base.errors import UserError
from eagle_jax.data.tasks import SEMANTIC
from eagle_jax.eagle.evaluation.story import changed_words
from eagle_jax.pages.elm.space import MOST_SPREADS, ElmSpace, SpacePoint, ToldPoint
from eagle_jax.pages.exploration_tables import found_told, inert_csv, made_visible
from eagle_jax.pages.explored_run import ITEMS, Findable, findable_items
from eagle_jax.pages.web import (
    UnknownError,
    answered,
    download,
    make_app,
    page,
    positions_response,
    script_routes,
    sent_fields,
)

_MOST_PAGES = 200  # that were loaded: the oldest are forgotten
_TITLE = "Explore"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmSpaceSite:
    """token: of the address; may be empty."""

    space: ElmSpace
    token: str
    told: dict[str, list[ToldPoint]] = dataclasses.field(default_factory=dict)
    # The ELM is asked by one at a time; who waits holds no thread.
    turn: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)

    def app(self) -> Starlette:
        """The pages as an ASGI application."""
        routes = [
            Route("/", self._page),
            *script_routes("space", "page", "map", "texts"),
            Route(f"/positions/{ITEMS}", self._positions),
            Route(f"/found/{ITEMS}", self._found),
            Route(f"/at/{ITEMS}/{{place:int}}", answered(self._at)),
            Route("/look", answered(self._look), methods=["POST"]),
            Route("/tell", answered(self._tell), methods=["POST"]),
            Route("/export/{name}.json", answered(self._json)),
            Route("/export/{name}.csv", answered(self._csv)),
        ]
        return make_app(routes, self.token, title=_TITLE, has_scripts=True)

    async def _page(self, request: Request) -> Response:
        name = secrets.token_urlsafe(9)
        self.told[name] = []
        while len(self.told) > _MOST_PAGES:
            del self.told[next(iter(self.told))]
        ids = self.space.explorer.spaces[SEMANTIC].ids
        return page(
            "space",
            root=self.token and f"/{self.token}",
            told=name,
            run=self.space.name,
            num_items=len(ids),
            shares=self.space.plane.explained_variance,
            first=ids[0],
            second=ids[1],
            tags=self.space.tags,
            tasks=self.space.tasks,
            most_spreads=MOST_SPREADS,
        )

    async def _positions(self, request: Request) -> Response:
        return positions_response(self.space.positions)

    @functools.cached_property
    def _findable(self) -> list[Findable]:
        return findable_items(self.space.catalogue)

    async def _found(self, request: Request) -> Response:
        asked = request.query_params.get("words", "")
        return JSONResponse(await run_in_threadpool(lambda: found_told(asked, self._findable, self._titles)))

    async def _at(self, request: Request) -> Response:
        place = request.path_params["place"]
        if place >= len(self.space.catalogue.entities):
            raise UnknownError(f"{place}: there are {len(self.space.catalogue.entities)} {ITEMS}")
        text = self.space.catalogue.entities[place].description
        return JSONResponse(made_visible({**self._titles(place), "words": changed_words(text, text)}))

    def _titles(self, place: int) -> dict[str, str]:
        item = self.space.catalogue.entities[place]
        return {"id": item.entity_id, "title": item.title}

    async def _look(self, request: Request) -> Response:
        point = _point(await sent_fields(request))
        position, nearest = await run_in_threadpool(self.space.look, point)
        ends = [end for end in (point.first, point.second) if end is not None]
        path = [self.space.look(SpacePoint(first=end))[0] for end in ends]
        return JSONResponse(made_visible({"position": position, "nearest": nearest, "path": [*path, position]}))

    async def _tell(self, request: Request) -> Response:
        fields = await sent_fields(request)
        point, task = _point(fields), fields.get("task", "")
        async with self.turn:
            kept = self._kept(fields.get("name", ""))
            told = await run_in_threadpool(self.space.tell, point, task, len(kept))
            kept.append(told)
        return JSONResponse(made_visible({"number": len(kept), **_row(told)}))

    def _kept(self, name: str) -> list[ToldPoint]:
        if name not in self.told:
            raise UnknownError("there is no such page, or no more; load it anew")
        return self.told[name]

    async def _json(self, request: Request) -> Response:
        told = [dataclasses.asdict(one) for one in self._kept(request.path_params["name"])]
        for one in told:
            one["reply"] = one["reply"]._asdict()
        text = json.dumps({"run": self.space.name, "seed": self.space.seed, "told": told}, indent=1, ensure_ascii=False)
        return download(text + "\n", "application/json", "points.json")

    async def _csv(self, request: Request) -> Response:
        rows = [_row(one) for one in self._kept(request.path_params["name"])]
        if not rows:
            raise UserError("nothing has been read yet")
        flat = [{name: json.dumps(v) if isinstance(v, list | tuple) else v for name, v in row.items()} for row in rows]
        return download(inert_csv(flat), "text/csv", "points.csv")


def _row(told: ToldPoint) -> dict[str, Any]:
    reply = told.reply
    return {
        **dataclasses.asdict(told.point),
        "task": told.task,
        "text": reply.text,
        "malformed": reply.malformed,
        "sc": reply.cosines[0] if reply.cosines else None,
        "position": told.position,
        "read_back": told.read_back,
        "nearest": list(told.nearest),
    }


def _point(fields: Mapping[str, str]) -> SpacePoint:
    """What was sent; raises `UserError` that names the field."""
    return SpacePoint(
        first=fields.get("first", ""),
        second=fields.get("second") or None,
        alpha=_number("alpha", fields.get("alpha", "0")),
        tag=fields.get("tag") or None,
        spreads=_number("spreads", fields.get("spreads", "0")),
    )


def _number(field: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{field}={value}: must be a number")
    return number
