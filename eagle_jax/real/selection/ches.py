"""CHES: how much alike the two responses of a labelled pair are to the policy that is to be trained.

Razin et al. 2024 (arXiv 2410.08847), definition 2, the centred hidden embedding similarity of a
preferred response y+ and a dispreferred y- to x, of the policy's last hidden states h:

    CHES = < sum_k h(x, y+_<k), sum_k h(x, y-_<k) > - | sum_k h(x, y+_<k) |^2,

sums over the tokens k of each response, of the states from which they are predicted. The higher it is,
the more, by their theory, does DPO on the pair displace the likelihood of y+. Normalised by length
(section 5.2) both sums are means: what the paper drops pairs by.

Axis letters: `B` pairs, `D` width of the states.
"""

from __future__ import annotations

import numpy as np


def ches_scores(
    preferred: np.ndarray, dispreferred: np.ndarray, lengths: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """CHES [B] float64 of sums of states [B, D]; with lengths ([B], [B]), in tokens, normalised by them."""
    sums = [np.asarray(side, np.float64) for side in (preferred, dispreferred)]
    if lengths is not None:
        sums = [side / np.asarray(length, np.float64)[:, None] for side, length in zip(sums, lengths, strict=True)]
    return np.sum(sums[0] * (sums[1] - sums[0]), axis=1)


def lowest_share(scores: np.ndarray, share: float, highest: bool = False) -> np.ndarray:
    """Rows of the `share` of the scores [B] that are lowest, or highest, in the order of the rows; at least one."""
    count = max(1, round(share * len(scores)))
    order = np.argsort(-scores if highest else scores, kind="stable")
    return np.sort(order[:count])
