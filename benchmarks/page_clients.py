"""People at the pages: fifty at once for five minutes, against one alone.

    bash launch/run.sh benchmarks.page_clients --workdir=runs/eagle_minilens --out=runs/page_clients

`eagle-jax rate` and `eagle-jax explore` serve a copy of a finished EAGLE run. Half of the clients go from form to
form and answer them, the others look around in the space: the page, its map, searches and items, none of which asks a
model. Each waits a while after each page, as a reader does (--pause, on average), and one of them looks at the page of
results. Then one client does all of it alone, without a pause, on the ratings that are there by then. The table has of
each page how often it was asked for, its errors, and the 95th percentile of its seconds with all clients, alone, and
the ratio, which is to be under 10. Ends with exit code 1 where a page had an error.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import random
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import app, flags

from benchmarks import rounds

_WORKDIR = flags.DEFINE_string("workdir", None, "a finished run of experiments.eagle", allow_override=True)
_OUT = flags.DEFINE_string("out", "runs/page_clients", "folder for the copy and the table", allow_override=True)
_CLIENTS = flags.DEFINE_integer("clients", 50, "at once", lower_bound=2, allow_override=True)
_MINUTES = flags.DEFINE_float("minutes", 5, "how long they stay", lower_bound=0, allow_override=True)
_PAUSE = flags.DEFINE_float("pause", 2, "mean seconds from a page to the next", lower_bound=0, allow_override=True)
_ALONE_SECONDS = flags.DEFINE_float("alone_seconds", 60, "of the client alone", allow_override=True)

_WORDS = ("red", "desert", "grief", "a", "detective trial", "u1", "nothing of this")
_FORMS = 10  # of a rater
_LIMIT = 10  # times its single-client time


class Visit(NamedTuple):
    """A page that was asked for: problem is None where it came as it should."""

    page: str
    seconds: float
    problem: str | None


class Client:
    """Somebody at a browser; `visits` are told one after the other, whatever went wrong."""

    def __init__(self, address: str, seed: int):
        self._parts = urllib.parse.urlsplit(address)
        self._origin = f"http://{self._parts.netloc}"
        self.rng = random.Random(seed)
        self.visits: list[Visit] = []

    def ask(self, page: str, path: str, fields: dict[str, str] | None = None) -> tuple[str, str]:
        """The page's text, and where it leads to; both are empty where it failed."""
        begun = time.perf_counter()
        text = leads = ""
        try:
            connection = http.client.HTTPConnection(self._parts.netloc, timeout=60)
            with contextlib.closing(connection):
                body = urllib.parse.urlencode(fields) if fields else None
                headers = {"Origin": self._origin, "Content-Type": "application/x-www-form-urlencoded"}
                connection.request("POST" if fields else "GET", path, body, headers)
                answer = connection.getresponse()
                text, leads = answer.read().decode("utf-8", "replace"), answer.headers.get("location", "")
            problem = None if answer.status in (200, 303) else f"status {answer.status}"
        except (OSError, http.client.HTTPException) as error:
            problem = repr(error)
        self.visits.append(Visit(page, time.perf_counter() - begun, problem))
        return ("", "") if problem else (text, leads)


def rater(client: Client) -> Iterator[None]:
    """Answers some forms, and begins anew as another rater."""
    while True:
        client.ask("rate: consent", "/")
        yield
        _, form = client.ask("rate: begin", "/begin", {"agreed": "yes"})
        yield
        for _ in range(_FORMS if form else 0):
            text, _ = client.ask("rate: form", form)
            yield
            place = re.search(r'name="place" value="(\d+)"', text)
            if place is None:
                break
            options = re.findall(r'name="(q\d+)" value="(\w)"', text)
            client.rng.shuffle(options)
            client.ask("rate: answer", form, dict(options) | {"place": place[1]})


def reader_of_results(path: str) -> Callable[[Client], Iterator[None]]:
    """Looks at the page of results, and for a while at nothing."""

    def look(client: Client) -> Iterator[None]:
        while True:
            client.ask("rate: results", path)
            for _ in range(5):
                yield

    return look


def explorer(client: Client) -> Iterator[None]:
    """Loads the page with all it needs, then searches and points."""
    while True:
        client.ask("explore: page", "/")
        for name in ("style.css", "explore.js", "page.js", "map.js", "texts.js"):
            client.ask("explore: style, scripts", f"/{name}")
        for kind in ("items", "users"):
            client.ask("explore: map", f"/positions/{kind}")
        yield
        for _ in range(5):
            kind = client.rng.choice(("items", "users"))
            words = urllib.parse.quote(client.rng.choice(_WORDS))
            client.ask("explore: search", f"/found/{kind}?words={words}")
            yield
            client.ask("explore: pointed at", f"/at/items/{client.rng.randrange(50)}")
            yield


def stay(actors: Sequence[tuple[Callable[[Client], Iterator[None]], Client]], seconds: float, pause: float) -> None:
    """All act until the time is up, each with pauses of 0 to twice `pause` seconds, one before the first page."""
    deadline = time.monotonic() + seconds

    def act(actor: Callable[[Client], Iterator[None]], client: Client) -> None:
        steps = actor(client)
        while time.monotonic() < deadline:
            time.sleep(client.rng.uniform(0, 2 * pause))
            next(steps)

    threads = [threading.Thread(target=act, args=each) for each in actors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def served(*command: str) -> Iterator[list[str]]:
    """The addresses that `eagle-jax <command>` tells."""
    program = [sys.executable, "-m", "eagle_jax", *command, "--port=0"]
    with subprocess.Popen(program, cwd=rounds.ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            found: list[str] = []
            for line in process.stdout:
                found += re.findall(r"http://\S+", line)
                if line.startswith(("results", "explore")):
                    break
            yield found
        finally:
            process.kill()


def measure(workdir: Path, num_clients: int, seconds: float, pause: float, alone_seconds: float) -> list[list[Visit]]:
    """Visits with all clients, and of one that is alone."""
    with served("rate", f"--workdir={workdir}", "--raters=1000000") as (rate, results):
        path = urllib.parse.urlsplit(results).path
        with served("explore", f"--workdir={workdir}") as (explore,):
            of_site = {rater: rate, explorer: explore}
            actors = [(reader_of_results(path), Client(rate, 0))]
            for number in range(1, num_clients):
                actor = (rater, explorer)[number % 2]
                actors.append((actor, Client(of_site[actor], number)))
            stay(actors, seconds, pause)
            alone = [(actor, Client(address, num_clients)) for actor, address in of_site.items()]
            alone.append((reader_of_results(path), Client(rate, 0)))
            for each in alone:  # one after the other
                stay([each], alone_seconds / len(alone), 0.0)
    return [[visit for _, client in group for visit in client.visits] for group in (actors, alone)]


def table(together: Sequence[Visit], alone: Sequence[Visit]) -> list[dict[str, object]]:
    """Of each page: number of visits and errors, 95th percentiles in seconds, and their ratio."""
    seconds, by_itself = collections.defaultdict(list), collections.defaultdict(list)
    for kept, visits in ((seconds, together), (by_itself, alone)):
        for visit in visits:
            kept[visit.page].append(visit.seconds)
    problems = collections.Counter(visit.page for visit in (*together, *alone) if visit.problem)
    rows = []
    for page in sorted(seconds.keys() & by_itself.keys()):
        p95, one = (float(np.quantile(kept[page], 0.95)) for kept in (seconds, by_itself))
        row = {"page": page, "visits": len(seconds[page]), "alone": len(by_itself[page]), "errors": problems[page]}
        rows.append(row | {"p95": p95, "p95 alone": one, "ratio": p95 / one})
    return rows


def main(_) -> None:
    folder = Path(_OUT.value).absolute()
    copy = folder / "run"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(_WORKDIR.value, copy)
    made_by = rounds.machine(("starlette", "uvicorn"))
    together, alone = measure(copy, _CLIENTS.value, 60 * _MINUTES.value, _PAUSE.value, _ALONE_SECONDS.value)
    shutil.rmtree(copy)
    rows = table(together, alone)
    cells = [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    worst = max(row["ratio"] for row in rows)
    problems = collections.Counter(visit.problem for visit in (*together, *alone) if visit.problem)
    written = (
        f"# {_CLIENTS.value} clients at the pages for {_MINUTES.value:g} minutes\n\n"
        f"A page each {_PAUSE.value:g} seconds on average; times in seconds.\n\n"
        f"{rounds.markdown_table(tuple(rows[0]), cells)}\n"
        f"Largest ratio: {worst:.1f} (to be under {_LIMIT}). Errors: {dict(problems) or 'none'}.\n\n## Machine\n\n"
    ) + "".join(f"- {name}: {value}\n" for name, value in made_by.items())
    rounds.write_results(folder, written, {"machine": made_by, "rows": rows})
    print(written)
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    app.run(main)
