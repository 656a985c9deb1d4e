"""Seeds of the text world: one integer for every use, derived from the run's seed."""

from __future__ import annotations

import numpy as np


def derive_seed(seed: int, *path: int) -> int:
    """The seed of the use that `path` names (an iteration, an entity, a try), in [0, 2^31).

    Independent of the order of the uses, so that a resumed run draws what an uninterrupted one
    would have drawn.
    """
    words = np.random.SeedSequence([seed, *path]).generate_state(1)
    return int(words[0] >> 1)
