"""Several processes that run the same program side by side, as on the hosts of a TPU slice.

All of them go through the same steps and hold a share of the arrays; process 0 alone decides what
is on the disk and writes. The folder of a run is shared: the others read what process 0 wrote.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from eagle_jax.base.errors import UserError

T = TypeVar("T")
_NUMBERS = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}
# True inside an action of `from_primary`: there the others wait, and nothing is theirs to hear.
_acting = contextvars.ContextVar("acting", default=False)
_asking = contextvars.ContextVar("asking", default=False)
# JAX tells of SIGTERM at one number only, the one after the highest asked about: none is left out.
_questions = itertools.count(1)
_is_terminated = False


class OtherProcessError(UserError):
    """Process 0 could not do what all processes need; it says why itself, and so does this."""


def join_others() -> None:
    """`jax.distributed.initialize` from what the machine or the environment says of the others.

    TPU slices, Slurm, Open MPI and Kubernetes are found out by JAX; elsewhere
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say it. Raises UserError.
    """
    try:
        numbers = {key: int(os.environ[name]) for key, name in _NUMBERS.items() if name in os.environ}
        jax.distributed.initialize(**numbers)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: the other processes were not found ({error}); on this machine set "
            f"JAX_COORDINATOR_ADDRESS (host:port), {' and '.join(_NUMBERS.values())}"
        ) from error


def is_primary() -> bool:
    """Whether this is process 0, or the only one."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def from_primary(what: str, action: Callable[[], T]) -> T:
    """What `action` gives in process 0, which alone calls it when all have come here.

    It has to be a value of JSON; None after writing. `what` must be the same everywhere. When the
    action raises, process 0 raises the same and the others `OtherProcessError`. After SIGTERM to
    one of them all exit here, but for the loop of a training, which ends its step (`terminated`).
    """
    if not jax.distributed.is_initialized() or _acting.get():
        return action()
    multihost_utils.sync_global_devices(what)
    raised = None
    answer = b""
    if is_primary():
        try:
            with _act():
                answer = json.dumps({"value": action()}).encode()
        except Exception as error:
            raised, answer = error, json.dumps({"error": str(error)}).encode()
    answer = json.loads(_broadcast(answer))
    if raised is not None:
        raise raised
    if "error" in answer:
        raise OtherProcessError(f"process 0, {what}: {answer['error']}")
    if terminated() and not _asking.get():
        exit_terminated(f"terminated; {what}: done, and the same command resumes")
    return answer["value"]


def terminated() -> bool:
    """Whether SIGTERM came to one of several processes, which JAX hears: True in all of them after the
    same call, and from then on. They have to call it alike."""
    global _is_terminated
    _is_terminated = _is_terminated or multihost_utils.reached_preemption_sync_point(next(_questions))
    return _is_terminated


@contextlib.contextmanager
def asks_itself() -> Iterator[None]:
    """Within it `from_primary` goes on after SIGTERM: whoever is in it asks `terminated` and exits."""
    token = _asking.set(True)
    try:
        yield
    finally:
        _asking.reset(token)


def exit_terminated(message: str) -> NoReturn:
    """As a shell tells the end by this signal, which schedulers know: not done, to be run again."""
    print(message, file=sys.stderr)
    sys.exit(128 + signal.SIGTERM)


@contextlib.contextmanager
def _act() -> Iterator[None]:
    token = _acting.set(True)
    try:
        yield
    finally:
        _acting.reset(token)


def _broadcast(data: bytes) -> bytes:
    """The bytes of process 0, in every process."""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(max(1024, 1 << (length - 1).bit_length()), np.uint8)  # few compilations
    if is_primary():
        padded[:length] = np.frombuffer(data, np.uint8)
    return multihost_utils.broadcast_one_to_all(padded)[:length].tobytes()
