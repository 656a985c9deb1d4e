"""From how many served pairs on training pays: agents against their reference policy at equal calls in all.

Best-of-N with the reference policy takes N episodes of h steps for each pair of an anchor and a user, and no training.
An agent whose training took C environment calls may take n < N of them where P pairs are served with

    C + P n h = P N h,   so   P = C / ((N - n) h).

The more pairs are served, the more episodes each may have. What fewer episodes are worth is known without playing
again: n drawn from N without replacement.

Axis letters: `N` episodes of a pair.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from eagle_jax.eagle.evaluation.episodes import EpisodeRecord
from eagle_jax.eagle.evaluation.systems import BEST_OF_N, PLANNER, EvalRow, by_profile
from eagle_jax.eagle.evaluation.table import Resampling, mean_of_pairs
from eagle_jax.reports.verdicts import side


def expected_best(rewards: Sequence[float], values: Sequence[float]) -> np.ndarray:
    """Expected value of the one of highest reward among n of them drawn without replacement, n = 1 ... N [N].

    The one of rank i is it with probability binom(N - i, n - 1) / binom(N, n): all others drawn rank behind it. Of
    equal rewards the first counts.
    """
    total = len(rewards)
    ranked = np.asarray(values, np.float64)[np.argsort(-np.asarray(rewards), kind="stable")]
    chances = [
        [math.comb(total - rank, count - 1) / math.comb(total, count) for rank in range(1, total + 1)]
        for count in range(1, total + 1)
    ]
    return np.asarray(chances) @ ranked


def break_even(
    records: Mapping[str, Sequence[EpisodeRecord]],
    rows: Sequence[EvalRow],
    training_calls: Mapping[str, Mapping[str | None, float]],
    resampling: Resampling,
) -> list[dict[str, Any]]:
    """A line for each agent that is played with best-of-N and each number of its episodes below N, fewest first; then
    one for each planner, whose only episode is its row.

    "pairs": after so many both have cost the same, "calls" a pair in all; "utility" of the agent's best of "episodes"
    and its "differences" from the reference policy's "best_of", of the row "baseline", cells by encoder.
    training_calls: system -> kind (None: of none) -> calls. Empty where best-of-N is played without any of these.
    """
    lines = []
    for row in rows:
        if row.system == BEST_OF_N and row.policy is not None:
            agent = EvalRow(system=row.policy, kind=row.kind)
            trained = training_calls[row.policy][row.kind]
            baseline = dataclasses.replace(row, policy=None)
            lines += _lines(records, row, agent.title, trained, baseline, resampling)
        elif row.system in (PLANNER, by_profile(PLANNER)):
            for baseline in rows:
                if baseline.system == BEST_OF_N and baseline.policy is None:
                    trained = training_calls[PLANNER][None]
                    lines += _lines(records, row, row.title, trained, baseline, resampling)
    return lines


def _lines(
    records: Mapping[str, Sequence[EpisodeRecord]],
    row: EvalRow,
    agent: str,
    trained: float,
    baseline: EvalRow,
    resampling: Resampling,
) -> list[dict[str, Any]]:
    """Of one agent that is played in `row`, and as many of its episodes as take fewer calls than the baseline."""
    own, of_baseline = records[row.title], records[baseline.title]
    calls, count = of_baseline[0].num_steps, max(len(own[0].tries), 1)
    of_episode = own[0].num_steps / count
    values = {encoder: _of_each(own, encoder) for encoder in of_baseline[0].tries[0] if encoder != "reward"}
    theirs = {
        encoder: mean_of_pairs(_of_each(of_baseline, encoder)[:, -1], [record.pair for record in of_baseline])
        for encoder in values
    }
    lines = []
    for episodes in range(1, count + 1):
        saved = calls - episodes * of_episode
        if saved <= 0:
            break
        at = {encoder: of[:, episodes - 1].tolist() for encoder, of in values.items()}
        lines.append(
            {
                "agent": agent,
                "baseline": baseline.title,
                "episodes": episodes,
                "best_of": len(of_baseline[0].tries),
                "calls": calls,
                "pairs": trained / saved,
                "utility": {encoder: resampling.interval(of, own).as_cell() for encoder, of in at.items()},
                "differences": {
                    encoder: resampling.difference(of, own, theirs[encoder]).as_cell() for encoder, of in at.items()
                },
            }
        )
    return lines


def _of_each(records: Sequence[EpisodeRecord], encoder: str) -> np.ndarray:
    """Utility of the best of n episodes of each record, n = 1 ... N [records, N]; N is 1 where it has one episode."""
    if not records[0].tries:
        return np.array([[record.scores[encoder][-1]["utility"]] for record in records])
    return np.stack(
        [
            expected_best([of["reward"] for of in record.tries], [of[encoder] for of in record.tries])
            for record in records
        ]
    )


def pays_sentences(lines: Sequence[Mapping[str, Any]], encoders: Mapping[str, str]) -> Iterator[str]:
    """For each agent and encoder (name -> title) from how many pairs on it is shown to be better at equal calls."""
    for agent, baseline in dict.fromkeys((line["agent"], line.get("baseline")) for line in lines):
        of_agent = [line for line in lines if (line["agent"], line.get("baseline")) == (agent, baseline)]
        for encoder, title in encoders.items():
            if encoder not in of_agent[0]["utility"]:
                continue
            better = list(takewhile(lambda line, e=encoder: side(line["differences"][e]) > 0, reversed(of_agent)))
            if better:
                told = f"pays from {better[-1]['pairs']:,.0f} served pairs on"
            else:
                told = f"is not shown to pay for up to {of_agent[-1]['pairs']:,.0f} served pairs"
            yield f"{agent}: at {of_agent[0]['calls']} calls a pair, training {told}, by the {title}."
