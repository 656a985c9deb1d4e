"""Downloads that go on where they broke off, by their checksums. Of `launch/prepare_data.py`; standard library only."""

import hashlib
import http.client
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

AGAIN = "the same command goes on from there"
BLOCK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte


class Archive(NamedTuple):
    """What is fetched, and its checksum, algorithm:digits; "" where nobody published one."""

    url: str
    checksum: str


def fail(message: str) -> NoReturn:
    print(f"launch/prepare_data.py: {message}", file=sys.stderr)
    sys.exit(2)


class Progress:
    """Bytes, rate and time left on stderr: twice a second on a terminal, every ten seconds in a log."""

    def __init__(self, name: str, begun: int, total: int | None):
        self.name, self.begun, self.total = name, begun, total
        self.is_terminal = sys.stderr.isatty()
        self.start = self.told = time.monotonic()

    def tell(self, done: int, is_last: bool = False) -> None:
        now = time.monotonic()
        if not is_last and now - self.told < (0.5 if self.is_terminal else 10.0):
            return
        self.told = now
        rate = (done - self.begun) / max(now - self.start, 1e-3)
        line = f"{self.name}: {done / 1e6:.1f}" + (f" of {self.total / 1e6:.1f}" if self.total is not None else "")
        line += f" MB, {rate / 1e6:.1f} MB/s"
        if self.total is not None and rate > 0:
            line += f", {(self.total - done) / rate:.0f} s left"
        ends = "\n" if is_last or not self.is_terminal else ""
        print(("\r\033[K" if self.is_terminal else "") + line, end=ends, file=sys.stderr, flush=True)


def bring(archive: Archive, path: Path) -> None:
    """The archive at `path`, fetched unless it is there, and right by its checksum where there is one."""
    if not path.is_file():
        download(archive.url, path)
    if not archive.checksum:
        return
    algorithm, _, expected = archive.checksum.partition(":")
    if (got := checksum(path, algorithm)) == expected:
        return
    path.unlink()
    advice = "the same command fetches it again"
    if path.name == "ml-latest-small.zip":
        advice += f"; GroupLens renews it now and then: if it did, --accept_sha256={got} takes the new one"
    fail(f"{path}: expected {algorithm} {expected}, got {got}; it was removed; {advice}")


def checksum(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def download(url: str, path: Path) -> None:
    """Fetches to `<path>.partial`, from what is there, and renames it. What a server joined to the beginning of
    another file is found by the checksum, or by the archive's own."""
    partial = path.with_name(path.name + ".partial")
    begun = partial.stat().st_size if partial.is_file() else 0
    response = ask(url, begun, path)
    if isinstance(response, int):  # nothing is left: killed before the renaming, or another file
        if response == begun:
            partial.replace(path)
            return
        response = ask(url, begun := 0, path)
    if begun and response.status != 206:
        begun = 0  # it sends the whole file
    left = response.headers.get("Content-Length")
    total = begun + int(left) if left else None
    if left and int(left) > (free := shutil.disk_usage(path.parent).free):
        fail(f"{path.parent}: {int(left):,} bytes are to be fetched and {free:,} are free: free some of the disk")
    done, progress = begun, Progress(path.name, begun, total)
    with response, open(partial, "ab" if begun else "wb") as file:
        for block in _blocks(response, url, partial):
            file.write(block)
            file.flush()  # a kill loses nothing
            done += len(block)
            progress.tell(done)
    progress.tell(done, is_last=True)
    if total is not None and done != total:
        fail(f"{url}: broke off at {done:,} of {total:,} bytes, which are in {partial}; {AGAIN}")
    partial.replace(path)


def ask(url: str, begun: int, path: Path) -> http.client.HTTPResponse | int:
    """The response from byte `begun` on, or as a whole; the size of the file where it has no such byte."""
    request = urllib.request.Request(url, headers={"User-Agent": "eagle_jax"})
    if begun:
        request.add_header("Range", f"bytes={begun}-")
    by_hand = f"or fetch it by other means to {path} and run this again"
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        size = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        error.close()
        if error.code == 416 and begun:
            return int(size[1]) if size else -1
        fail(f"{url}: HTTP {error.code} {error.reason}: try again later, {by_hand}")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            fail(f"{url}: its certificate is not valid ({reason.verify_message}): try again later, {by_hand}")
        fail(f"{url}: could not be reached ({reason}): is there a network, or a proxy to name in https_proxy? {AGAIN}")
    came = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if response.status == 206 and (came is None or int(came[1]) != begun):
        response.close()
        return ask(url, 0, path)
    return response


def _blocks(response: http.client.HTTPResponse, url: str, partial: Path) -> Iterator[bytes]:
    while True:
        try:
            block = response.read1(BLOCK)  # what has come
        except (OSError, http.client.HTTPException) as error:
            fail(f"{url}: broke off ({error}); what came is in {partial}; {AGAIN}")
        if not block:
            return
        yield block
