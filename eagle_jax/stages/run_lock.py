"""One run at a time in a work directory: who holds it, and who is told to wait.

`run.lock` is locked by `flock`, which the system lets go of however the process ends, and tells in
JSON who runs. A file that is left by a kill is taken over by the next run.

On NFS, Linux passes `flock` on to the server, so that it holds between hosts; mounted with `nolock`
or `local_lock`, each host sees its own only. Hence a note of another machine is not taken over even
if nobody seems to hold it. Of one machine are processes of the same boot, whatever their containers
call it, and those of the same host name before a reboot. A file system without locks goes by the
note alone.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import functools
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from eagle_jax.base.atomic_files import report_faults
from eagle_jax.base.errors import UserError, require_local
from eagle_jax.base.processes import from_primary
from eagle_jax.base.provenance import command

_LOCK = "run.lock"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_REPORTS = ("report.html", "report.md", "results.json", "results.csv")


class WorkDirectoryInUseError(UserError):
    """Another process runs in the work directory, or may do so; nothing was written."""


class _Held(NamedTuple):
    """A lock of this process: how many hold it, and which folders were made for it."""

    file: BinaryIO
    count: int
    made: list[Path]


_held: dict[Path, _Held] = {}


def hold(workdir: Path) -> Callable[[], None]:
    """Takes `workdir` for this process, or for all of a run (the first has the lock), until what is
    returned is called.

    The same process may take it again. Raises `WorkDirectoryInUseError`, or `UserError` where a
    report is there that no stage led to.
    """
    require_local(workdir, "work directory")
    path = workdir.resolve()
    from_primary(f"lock {workdir}", lambda: _enter(path))
    return functools.partial(_leave, path)


def _enter(workdir: Path) -> None:
    if workdir in _held:
        _held[workdir] = _held[workdir]._replace(count=_held[workdir].count + 1)
        return
    foreign = [name for name in _REPORTS if (workdir / name).exists()]
    if foreign and not any(workdir.glob("*/SETTINGS.json")):
        raise UserError(
            f"{workdir / foreign[0]}: no stage is beside it, so it is not of a run and would be "
            "overwritten; move it away or choose another work directory"
        )
    with report_faults(workdir):
        made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
        workdir.mkdir(parents=True, exist_ok=True)
        file = _locked(workdir / _LOCK)
    _held[workdir] = _Held(file, 1, made)


def _leave(workdir: Path) -> None:
    held = _held.pop(workdir, None)
    if held is None:  # not the first process
        return
    if held.count > 1:
        _held[workdir] = held._replace(count=held.count - 1)
        return
    # Before the lock goes, so that what is removed is not somebody else's.
    (workdir / _LOCK).unlink(missing_ok=True)
    held.file.close()
    with contextlib.suppress(OSError):  # not empty: there is something to keep
        for folder in held.made:
            folder.rmdir()


def _locked(path: Path) -> BinaryIO:
    """The file at `path`, locked and with a note of this process in it."""
    while True:
        file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")  # noqa: SIM115
        try:
            is_held = _try_lock(file)
            if not _is_at(path, file):  # its holder removed it just now
                file.close()
                continue
            _refuse_others(path, _read(file), is_held)
            file.seek(0)
            file.truncate()
            file.write(json.dumps(_note()).encode())
            file.flush()
            return file
        except BaseException:
            file.close()
            raise


def _try_lock(file: BinaryIO) -> bool | None:
    """Locks `file`; whether somebody else has it, None where the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            return True
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            return None
        raise


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _refuse_others(path: Path, note: dict[str, Any] | None, is_held: bool | None) -> None:
    here, who = _note(), "a process that has not told who it is"
    if note is not None:
        who = f"`{note['command']}` (process {note['pid']} on {note['host']} since {note['since']})"
    is_here = note is None or here["boot"] == note["boot"]
    if is_held is None and note is not None and is_here:
        is_held = _is_alive(note["pid"])
    if is_held:
        raise WorkDirectoryInUseError(
            f"{path.parent} is in use by {who}; wait for its end or choose another work directory"
        )
    if not is_here and here["host"] != note["host"]:
        raise WorkDirectoryInUseError(
            f"{path.parent} was taken by {who}, which is another machine, and it cannot be seen "
            f"from here whether it still runs; if it does not, remove {path} and run the same "
            "command again"
        )


def _note() -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "host": socket.gethostname(),
        "boot": _BOOT.read_text().strip() if _BOOT.exists() else socket.gethostname(),
        "pid": os.getpid(),
        "command": command(),
        "since": now.strftime("%Y-%m-%d %H:%M:%S UTC"),
    }


def _read(file: BinaryIO) -> dict[str, Any] | None:
    """The note in `file`; None where it is not whole, as after a kill while it was written."""
    try:
        note = json.loads(file.read())
    except (ValueError, RecursionError):
        return None
    kinds = {name: type(value) for name, value in _note().items()}
    if not isinstance(note, dict) or {n: type(v) for n, v in note.items()} != kinds:
        return None
    return note


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's process
        pass
    return True
