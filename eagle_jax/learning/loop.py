"""The loop of every training with validation: it keeps the best parameters, logs and resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.metrics import MetricsWriter, progress, read_metrics
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.learning.trainable import join

State = TypeVar("State")


class AgentResult(NamedTuple):
    """Parameters of the last and of the best iteration (by validation), and all metrics' rows.

    What was frozen are the reference policy's own arrays.
    """

    params: Params
    best_params: Params
    best_step: int
    history: list[dict[str, Any]]


def run_training(
    state: State,
    iterate: Callable[[int, State], tuple[State, dict[str, float]]],
    validate: Callable[[int, Params], dict[str, float]],
    frozen: Params,
    *,
    num_iterations: int,
    validate_every: int,
    checkpoint_every: int,
    checkpoints: Checkpoints,
    metrics_folder: Path,
    description: str,
) -> AgentResult:
    """Iterates from the last checkpoint, or from `state`, whose field `trainable` is validated.

    The last iteration is always validated and saved. `iterate` may donate its state.
    """
    restored = checkpoints.restore_latest(state)
    start, state = restored if restored else (0, state)
    with MetricsWriter(metrics_folder, resume_step=start if restored else None) as metrics:
        if not restored:
            values = validate(0, state.trainable)
            metrics.write(0, values)
            checkpoints.save_best(0, state.trainable, values["validation/reward"])
        remaining = range(start + 1, num_iterations + 1)
        for step in progress(remaining, len(remaining), description, "iteration"):
            last = step == num_iterations
            state, values = iterate(step, state)
            if last or step % validate_every == 0:
                values |= validate(step, state.trainable)
                checkpoints.save_best(step, state.trainable, values["validation/reward"])
            metrics.write(step, values)
            if last or step % checkpoint_every == 0:
                checkpoints.save(step, state)
    best_step, best = checkpoints.restore_best(state.trainable)
    history = read_metrics(Path(metrics_folder) / "metrics.jsonl")
    return AgentResult(join(state.trainable, frozen), join(best, frozen), best_step, history)
