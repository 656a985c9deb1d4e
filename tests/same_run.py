"""Whether two trainings were the same run, bit by bit, whatever time they took."""

import chex
import jax


class Interrupted(Exception):
    """What a test raises inside of a training, to go on later."""


def without_times(history):
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in history]


def validation_rewards(result):
    """By iteration."""
    return {row["step"]: row["validation/reward"] for row in result.history if "validation/reward" in row}


def assert_same_run(one, other):
    for name in ("params", "best_params"):
        chex.assert_trees_all_equal(jax.device_get(getattr(one, name)), jax.device_get(getattr(other, name)))
    assert one.best_step == other.best_step
    assert without_times(one.history) == without_times(other.history)
