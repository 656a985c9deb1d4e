"""What is measured of preference optimisation: rewards, label errors, win rates, stability.

Axis letter: N pairs.
"""

from __future__ import annotations

import math

import numpy as np

from eagle_jax.embeddings.rank_correlation import spearman
from eagle_jax.real.annotators import FIRST, SECOND, Answers
from eagle_jax.real.training.losses import PairValues, implicit_rewards

STABILITY_PERCENTS = (5, 25, 50, 75, 95)


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


def utility_win_rate(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Share of prompts [N] on which ours has the higher utility; equal ones count one half."""
    for name, values in (("our", ours), ("their", theirs)):
        _require_finite(values, f"utility of {name} response")
    return float(np.heaviside(np.subtract(ours, theirs, dtype=np.float64), 0.5).mean())


def rater_win_rate(answers: Answers, num_identical: int) -> float | None:
    """How often a rater prefers ours, which were the first of each question: (wins + ties / 2) / judged.

    Orders that contradict each other are a tie (Zheng et al. 2023, section 3.4), and so are the
    num_identical pairs of equal responses, about which nobody is asked. Malformed ones are left out;
    None where nothing was judged.
    """
    num_wins, num_losses = (int(np.sum(answers.preferred == side)) for side in (FIRST, SECOND))
    num_judged = int(answers.readable.sum()) + num_identical
    num_ties = num_judged - num_wins - num_losses
    return (num_wins + num_ties / 2) / num_judged if num_judged else None


def stability(now: np.ndarray, start: np.ndarray, prompt_index: np.ndarray | None, where: str) -> dict[str, float]:
    """How far the similarities of fixed response pairs have moved (REAL's embedding stability).

    {"similarity_<percent>": quantiles now, "rank_correlation": Spearman's, with the start,
    "easy_overlap": left out where there is none}. Raises ValueError that says `where` for a
    similarity that is not finite.

    Args:
      now, start: [N], of the same pairs under the parameters now and at the start.
      prompt_index: as in `easy_overlap`.
    """
    for name, values in (("now", now), ("at the start", start)):
        _require_finite(values, f"{where}: similarity {name} of pair")
    quantiles = zip(STABILITY_PERCENTS, np.percentile(now, STABILITY_PERCENTS).tolist(), strict=True)
    values = {f"similarity_{percent}": value for percent, value in quantiles}
    values["rank_correlation"] = float(spearman(np.asarray(start), np.asarray(now)))
    overlap = easy_overlap(start, now, prompt_index)
    return values if overlap is None else values | {"easy_overlap": overlap}


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
