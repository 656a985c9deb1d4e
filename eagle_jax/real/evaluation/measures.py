"""What is measured of preference optimisation: rewards, label errors, win rates, stability.

Axis letter: N pairs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.embeddings.rank_correlation import spearman
from eagle_jax.real.annotators import Answers
from eagle_jax.real.training.losses import PairValues, implicit_rewards

STABILITY_PERCENTS = (5, 25, 50, 75, 95)


class WinRate(NamedTuple):
    """num_left_out: pairs that nobody could judge, which are not in the rate."""

    num_wins: int
    num_ties: int
    num_losses: int
    num_left_out: int

    @property
    def rate(self) -> float | None:
        """(wins + ties / 2) / judged; None where nothing was judged."""
        judged = self.num_wins + self.num_ties + self.num_losses
        return (self.num_wins + self.num_ties / 2) / judged if judged else None


def mean_rewards(policy: PairValues, reference: PairValues, beta: float) -> dict[str, float]:
    """Means over pairs of DPO's implicit rewards, from log-probs [N] of whole responses, in nats.

    r = beta (log pi - log pi_ref) of each response (Rafailov et al. 2023, section 4); margin =
    r(chosen) - r(rejected); accuracy is the share of margins above 0, where a margin of 0 counts
    one half (0 in TRL and in training's metrics): one half before the first step. Raises ValueError
    for a beta that is not above 0, for no pairs, and for a log-prob that is not finite, naming the
    pair.
    """
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be above 0, got {beta}")
    for name, pairs in (("policy", policy), ("reference", reference)):
        for side, values in pairs._asdict().items():
            _require_finite(values, f"log-prob of the {side} response under the {name}, pair")
    chosen, rejected = (
        implicit_rewards(np.asarray(values, np.float64), np.asarray(before, np.float64), beta)
        for values, before in zip(policy, reference, strict=True)
    )
    return {
        "rewards/chosen": float(chosen.mean()),
        "rewards/rejected": float(rejected.mean()),
        "rewards/margin": float((chosen - rejected).mean()),
        "rewards/accuracy": float(np.heaviside(chosen - rejected, 0.5).mean()),
    }


def utility_win_rate(ours: np.ndarray, theirs: np.ndarray) -> WinRate:
    """Ours [N] against theirs [N] on the same prompts: the higher utility wins, equal ones tie."""
    for name, values in (("our", ours), ("their", theirs)):
        _require_finite(values, f"utility of {name} response")
    signs = np.sign(np.subtract(ours, theirs, dtype=np.float64))
    return WinRate(int(np.sum(signs > 0)), int(np.sum(signs == 0)), int(np.sum(signs < 0)), 0)


def rater_win_rate(answers: Answers, num_identical: int) -> WinRate:
    """How often a rater prefers ours, which were the first of each question.

    Orders that contradict each other are a tie (Zheng et al. 2023, section 3.4), and so are the
    num_identical pairs of equal responses, about which nobody is asked. Malformed: left out.
    """
    num_wins, num_losses = (int(np.sum(answers.preferred == side)) for side in (0, 1))
    num_readable = int(answers.readable.sum())
    num_ties = num_readable - num_wins - num_losses + num_identical
    return WinRate(num_wins, num_ties, num_losses, len(answers.readable) - num_readable)


def stability_row(
    similarities: np.ndarray, start: np.ndarray, prompt_index: np.ndarray | None, *, strategy: str, seed: int, step: int
) -> dict[str, Any]:
    """How far the similarities of fixed response pairs have moved (REAL's embedding stability).

    {"strategy", "seed", "step", "quantiles" (5, 25, 50, 75, 95 %), "rank_correlation" (Spearman's,
    with the start), "easy_overlap"}. Raises ValueError that names strategy, seed and step for a
    similarity that is not finite.

    Args:
      similarities, start: [N], of the same pairs under the parameters at `step` and at the start.
      prompt_index: as in `easy_overlap`.
    """
    for name, values in (("at this step", similarities), ("at the start", start)):
        where = f"strategy {strategy!r}, seed {seed}, step {step}"
        _require_finite(values, f"{where}: similarity {name} of pair")
    return {
        "strategy": strategy,
        "seed": seed,
        "step": step,
        "quantiles": np.percentile(similarities, STABILITY_PERCENTS).tolist(),
        "rank_correlation": float(spearman(np.asarray(start), np.asarray(similarities))),
        "easy_overlap": easy_overlap(start, similarities, prompt_index),
    }


def easy_overlap(then: np.ndarray, now: np.ndarray, prompt_index: np.ndarray | None) -> float | None:
    """How much of what `easy` selects by similarities [N] then, it selects now.

    prompt_index: [N], which prompt a pair belongs to: the share of prompts, of those with two
      pairs or more (None if there are none), whose least similar pair is the same. None: pairs
      compete across prompts: the share of the less similar half, the middle one included, that
      stays in it; chance is one half.
    """
    if prompt_index is None:
        num_kept = (len(then) + 1) // 2
        kept = [set(np.argsort(values, kind="stable")[:num_kept]) for values in (then, now)]
        return len(kept[0] & kept[1]) / num_kept
    _, start, count = np.unique(np.sort(prompt_index), return_index=True, return_counts=True)
    # Pairs by prompt, the least similar first: where a prompt starts is what is selected of it.
    selected = [np.lexsort((values, prompt_index))[start[count > 1]] for values in (then, now)]
    return float(np.mean(selected[0] == selected[1])) if (count > 1).any() else None


def _require_finite(values: np.ndarray, what: str) -> None:
    """what: the name of a value, which its number completes."""
    values = np.asarray(values)
    if not len(values):
        raise ValueError(f"there is no {what}")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"{what} {row} is {values[row]}, not finite")
