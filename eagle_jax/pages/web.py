"""What all pages share: who may ask for them, what they may do, how their scripts are answered, and the socket.

Pages are HTML and one style sheet; the browser is told to load nothing from elsewhere and to run nothing, or
scripts of these pages alone, so that what a language model wrote stays text.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import sys
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from eagle_jax.base.errors import UserError, visible

Handler = Callable[[Request], Awaitable[Response]]
_FOLDER = Path(__file__).parent
_STYLES = (_FOLDER.parent / "reports/report_style.css", _FOLDER / "pages.css")
_MOST_BYTES = 16_384  # of what a form sends
# A thread that computes, as the table of results does for a second, gives way after so long. Every statement of SQLite
# waits for that once: by Python's 5 ms an answer of a rater took 15 times its time meanwhile.
_SWITCH_SECONDS = 5e-4
_POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_OF_SCRIPTS = "; script-src 'self'; connect-src 'self'"  # files of these pages, none that stands in one
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # the address may hold a token
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_app(routes: Sequence[BaseRoute], token: str, *, title: str, has_scripts: bool = False) -> Starlette:
    """The pages, below `/<token>` where there is one; title: of what is told in the place of a page.

    Without a token only names of this machine are answered: another site's name that leads here
    (DNS rebinding) is refused. What is sent has to come from these pages.
    """

    headers = _HEADERS | {"Content-Security-Policy": _POLICY + (_OF_SCRIPTS if has_scripts else "")}

    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        host = request.headers.get("host", "")
        if not token and not is_loopback(re.sub(r":\d*$", "", host).strip("[]")):
            response = PlainTextResponse("not a name of this machine", 421)
        elif request.method == "POST" and request.headers.get("origin") not in (f"http://{host}", f"https://{host}"):
            response = PlainTextResponse("sent from another site", 403)
        else:
            response = await call_next(request)
        response.headers.update(headers)
        return response

    def message(status: int, text: str | None) -> Response:
        return page("message", status, root=token and f"/{token}", title=title, text=text)

    def refusal(request: Request, error: Exception) -> Response:
        texts = {404: "There is no such page.", 413: "That is too long."}
        return message(error.status_code, texts.get(error.status_code))

    def failure(request: Request, error: Exception) -> Response:
        print(f"eagle-jax: {error}", file=sys.stderr)
        text = "This could not be saved. Go back and send it once more; what was sent before is kept."
        return message(503, text)

    routes = [Route("/style.css", _style), *routes]
    return Starlette(
        routes=[Mount(f"/{token}", routes=routes)] if token else routes,
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)],
        exception_handlers={HTTPException: refusal, UserError: failure},
    )


def _style(request: Request) -> Response:
    return Response("\n".join(path.read_text() for path in _STYLES), media_type="text/css")


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
    autoescape=True,
    finalize=lambda value: visible(value) if type(value) is str else value,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(name: str, status: int = 200, **context: Any) -> HTMLResponse:
    """The template <name>.html; `root`: what all addresses begin with."""
    return HTMLResponse(_TEMPLATES.get_template(f"{name}.html").render(**context), status)


async def sent_fields(request: Request) -> dict[str, str]:
    """The fields of a form that was sent; raises `HTTPException` 413 for more than a form can hold."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HTTPException(413)
    return dict(urllib.parse.parse_qsl(body.decode("utf-8", "replace")))


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; raises `UserError` that names it."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--host={host} --port={port}: {reason}; name another address or port (0: any)") from error


def address_of(listening: socket.socket, token: str) -> str:
    """Where a browser finds the pages, with a slash at its end."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/{f'{token}/' if token else ''}"


def serve(app: Starlette, listening: socket.socket) -> None:
    """Answers until it is interrupted; addresses are not logged, since they hold codes."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        with contextlib.closing(listening):
            uvicorn.Server(config).run(sockets=[listening])
    finally:
        sys.setswitchinterval(before)


# What the scripts of pages ask for


class UnknownError(UserError):
    """There is nothing of this name or number."""


def answered(handler: Handler) -> Handler:
    """The handler whose `UserError` is answered by {"error": one sentence}."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 404 if isinstance(error, UnknownError) else 400)

    return handle


def script_routes(*names: str) -> list[Route]:
    """Of the pages' own scripts."""
    return [Route(f"/{name}.js", _script(_FOLDER / "scripts" / f"{name}.js")) for name in names]


def _script(path: Path) -> Handler:
    async def handle(request: Request) -> Response:
        return Response(path.read_text(encoding="utf-8"), media_type="text/javascript")

    return handle


def sent_number(field: str, value: str) -> int:
    """What was sent in a field; raises `UserError` that names it."""
    if not value.isdecimal() or len(value) > 9:
        raise UserError(f"{field}={value}: must be a whole number")
    return int(value)


def positions_response(positions: np.ndarray) -> Response:
    """Places on a map [N, 2], as map.js reads them."""
    return Response(positions.astype("<f4").tobytes(), media_type="application/octet-stream")


def download(text: str, media_type: str, file: str) -> Response:
    """A file to be kept."""
    # Half surrogates, which a catalogue may hold, have no bytes; their escapes are those of JSON.
    content = text.encode("utf-8", "backslashreplace")
    return Response(content, media_type=media_type, headers={"Content-Disposition": f"attachment; filename={file}"})
