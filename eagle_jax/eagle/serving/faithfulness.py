"""Whether a rewrite is still about its anchor, by an encoder that gave no reward.

    s(x) = share of the other items m with ||E_D(anchor) - z_m|| < ||E_D(anchor) - E_D(x)||

A rewrite has *left its anchor* where s(x) > `QUANTILE`: it is farther away than that quantile of all
other items is, so that an item drawn at random would be about the anchor as much. E_D reads what a
text says and not how: features of a language model, which see wording first, were tried instead and
told rewrites that keep the anchor's facts from others no better than chance.

Axis letters: `B` texts, `N` items, `d` domain width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUANTILE = 0.5


def nearer_shares(
    embeddings: np.ndarray, anchors: np.ndarray, catalogue: np.ndarray, anchor_index: Sequence[int | None]
) -> tuple[np.ndarray, np.ndarray]:
    """E_D of texts and of their anchors [B, d] and of all items [N, d] -> s(x) and the distances [B].

    anchor_index: the anchor's own row in the catalogue, which is no other item; None: it has none.
    """
    shares, distances = [], np.linalg.norm(embeddings - anchors, axis=1)
    for anchor, index, distance in zip(anchors, anchor_index, distances, strict=True):
        of_others = np.linalg.norm(catalogue - anchor, axis=1)
        if index is not None:
            of_others = np.delete(of_others, index)
        shares.append(np.mean(of_others < distance))
    return np.array(shares), distances
