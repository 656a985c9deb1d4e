"""The loop of every training: it goes on from the last checkpoint, checks, logs and saves.

What else is wanted now and then (measures, probes, validation) is a hook.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import jax

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.metrics import MetricsWriter, check_finite, progress, read_metrics
from eagle_jax.base.processes import asks_itself, exit_terminated, terminated
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.learning.trainable import join

State = TypeVar("State")


@dataclasses.dataclass(frozen=True)
class Records:
    """Where a training leaves its checkpoints and metrics.jsonl; its name on screen."""

    checkpoints: Checkpoints
    metrics_folder: Path
    description: str

    def history(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, those of earlier runs included."""
        return read_metrics(Path(self.metrics_folder) / "metrics.jsonl")


class Hook(NamedTuple):
    """run(step, state) -> values for the step's row: every `every` steps and after the last one,
    before the first where at_start. What it keeps of the state it must copy."""

    every: int
    run: Callable[[int, Any], Mapping[str, Any]]
    at_start: bool = False


def train(
    state: State,
    iterate: Callable[[int, State], tuple[State, dict[str, Any]]],
    hooks: Sequence[Hook],
    records: Records,
    *,
    num_steps: int,
    log_every: int,
    checkpoint_every: int,
    unit: str,
) -> State:
    """The state after the steps 1 to num_steps, from the last checkpoint on if there is one.

    `iterate` gives metrics [], and may donate its state. The last step is always logged and saved.
    Raises `NonFiniteError` with the first step one of whose metrics is not finite; nothing that
    came of it is saved. After SIGTERM the step that runs is ended and saved, and the program exits
    with code 143 (see `sigterm_heard`).
    """
    restored = records.checkpoints.restore_latest(state)
    start, state = restored if restored else (0, state)
    with sigterm_heard() as is_ending, MetricsWriter(records.metrics_folder, start if restored else None) as metrics:
        at_start = [hook for hook in hooks if hook.at_start and not restored]
        if at_start:
            metrics.write(0, _values(at_start, 0, state))
        remaining = range(start + 1, num_steps + 1)
        unchecked = []
        for step in progress(remaining, len(remaining), records.description, unit):

            def is_due(every: int, step: int = step) -> bool:
                return step % every == 0 or step == num_steps

            state, values = iterate(step, state)
            unchecked.append((step, values))
            ends = is_ending()  # once a step: all processes count alike
            is_saved = ends or is_due(checkpoint_every)
            due = [hook for hook in hooks if is_due(hook.every)]
            if due or is_due(log_every) or is_saved:
                # Not after each step, for which the device would have to wait; before each save,
                # so that no checkpoint holds what came of a NaN.
                for earlier, of_step in jax.device_get(unchecked):
                    check_finite(earlier, of_step)
                unchecked.clear()
            row = dict(values) if is_due(log_every) else {}
            row |= _values(due, step, state)
            if row:
                metrics.write(step, row)
            if is_saved:
                records.checkpoints.save(step, state)
                if ends:
                    exit_terminated(
                        f"{records.description}: terminated; {unit} {step} is saved, and the same command resumes"
                    )
    return state


@contextlib.contextmanager
def sigterm_heard() -> Iterator[Callable[[], bool]]:
    """Within it SIGTERM does not end the program but makes the function that is given say True.

    Slurm, Kubernetes and preempted machines send it some time before SIGKILL. Of several processes
    it may come to one: JAX, which hears it then, has all of them say True after the same step.
    Elsewhere than in the main thread and with a handler of somebody else's all stays as it is.
    """
    if jax.distributed.is_initialized():
        with asks_itself():
            yield terminated
        return
    came: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()
    is_ours = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not in_main or not is_ours:
        yield lambda: False
        return
    signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if came:  # after the last step, or there was none
        signal.raise_signal(signal.SIGTERM)


def _values(hooks: Sequence[Hook], step: int, state: State) -> dict[str, Any]:
    return {name: value for hook in hooks for name, value in hook.run(step, state).items()}


class Laps:
    """`seconds` of the parts of an iteration, {"time/<part>": s}, each from the end of the part before."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def end(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[f"time/{part}"] = now - self._started
        self._started = now


class AgentIntervals(Protocol):
    """Of the settings of an agent: iterations from one validation, and from one checkpoint, to the next."""

    validate_every: int
    checkpoint_every: int


class AgentResult(NamedTuple):
    """Parameters of the last and of the best iteration (by validation), and all metrics' rows.

    What was frozen are the reference policy's own arrays.
    """

    params: Params
    best_params: Params
    best_step: int
    history: list[dict[str, Any]]


def train_agent(
    state: State,
    iterate: Callable[[int, State], tuple[State, dict[str, Any]]],
    validate: Callable[[Params], dict[str, float]],
    frozen: Params,
    records: Records,
    settings: AgentIntervals,
    num_iterations: int,
) -> AgentResult:
    """`train` by iterations that are all logged; keeps the best of the state's field `trainable`.

    The policy is validated before the first iteration as well; its "reward" is what counts.
    """

    def run(step: int, state: State) -> dict[str, float]:
        laps = Laps()
        values = {f"validation/{name}": v for name, v in validate(state.trainable).items()}
        check_finite(step, values)
        laps.end("validation")
        records.checkpoints.save_best(step, state.trainable, values["validation/reward"])
        return values | laps.seconds

    state = train(
        state,
        iterate,
        [Hook(settings.validate_every, run, at_start=True)],
        records,
        num_steps=num_iterations,
        log_every=1,
        checkpoint_every=settings.checkpoint_every,
        unit="iteration",
    )
    best_step, best = records.checkpoints.restore_best(state.trainable)
    return AgentResult(join(state.trainable, frozen), join(best, frozen), best_step, records.history())
