"""The best utility that a few edits can reach: a yardstick for worlds that edit their own texts.

Axis letters: `B` starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.data.catalogue import EditOracle
from eagle_jax.embeddings.utility import UtilityTerms
from eagle_jax.reports.markdown import fact


def best_reachable_utility(
    descriptions: Sequence[str],
    user_index: np.ndarray,
    oracle: EditOracle,
    score_fn: Callable[[Sequence[str], np.ndarray], UtilityTerms],
    horizon: int,
    beam_width: int,
) -> np.ndarray:
    """max of U over the texts that beam search finds within `horizon` single edits [B].

    Depth by depth, the `beam_width` best new texts of every start are edited in every way the
    oracle knows. A lower bound of the true best, for the beam may drop the way to it and the oracle
    edits in the text's own words; so a share of it above 1 is possible. 0 edits count, so it is
    never below the start's own utility. All starts of a depth are scored in one call.
    """
    if beam_width < 1:
        raise ValueError(f"beam_width must be at least 1, got {beam_width}")
    user_index = np.asarray(user_index)
    best = np.asarray(score_fn(list(descriptions), user_index).utility, np.float64)
    beams = [[text] for text in descriptions]
    seen = [{text} for text in descriptions]
    for _ in range(horizon):
        edits = [list(dict.fromkeys(edit for text in beam for edit in oracle.single_edits(text))) for beam in beams]
        edits = [[edit for edit in of_start if edit not in known] for of_start, known in zip(edits, seen, strict=True)]
        counts = [len(of_start) for of_start in edits]
        if not sum(counts):
            break
        flat = [edit for of_start in edits for edit in of_start]
        scores = np.asarray(score_fn(flat, np.repeat(user_index, counts)).utility, np.float64)
        for i, utilities in enumerate(np.split(scores, np.cumsum(counts)[:-1])):
            seen[i].update(edits[i])
            order = np.argsort(-utilities, kind="stable")[:beam_width]
            beams[i] = [edits[i][j] for j in order]
            best[i] = max(best[i], utilities.max(initial=-np.inf))
    return best


def reachable_facts(reachable: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of reachable.json, which is empty where no world edits its own texts."""
    if not reachable:
        return []
    meaning = (
        f"mean over {reachable['num_starts']} starts of the best text that a beam search over the "
        "world's own edits finds: the yardstick of the column 'share of reachable'"
    )
    return [fact("best reachable utility", reachable["best_utility"], meaning)]
