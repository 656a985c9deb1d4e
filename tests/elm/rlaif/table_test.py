"""Verdicts of RLAIF, by hand."""

import numpy as np
import pytest

from eagle_jax.elm.evaluation.consistency_table import ConsistencyRecord
from eagle_jax.elm.rlaif.table import compare_to_start
from eagle_jax.reports.statistics import BootstrapSettings
from eagle_jax.reports.verdicts import FAILS, HOLDS, UNDECIDED

SETTINGS = BootstrapSettings(num_resamples=200, confidence=0.95, seed=0)
FILMS = 20


def compared(gains):
    """The start, 0.5 and a bit for each film, and "one", higher by its seed's gain everywhere."""
    records = [
        ConsistencyRecord(
            system=system,
            task="summary",
            entities=(film,),
            seed=seed,
            scores={"sc": 0.5 + 0.01 * film + value},
            malformed=None,
        )
        for seed, gain in enumerate(gains)
        for film in range(FILMS)
        for system, value in (("start", 0.0), ("one", gain))
    ]
    (row,) = compare_to_start(records, "start", ["one"], ("summary",), "sc", SETTINGS)
    return row


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.1, 0.11, 0.12), HOLDS),
        ((0.1, 0.11), UNDECIDED),  # two seeds
        ((0.1,), UNDECIDED),  # one, which has no interval
        ((0.01, 0.2, 0.02), UNDECIDED),  # Student's interval reaches below 0
        ((0.0, 0.0, 0.0), FAILS),  # the start itself
        ((-0.1, -0.11, -0.12), FAILS),
    ],
)
def test_two_intervals_decide(gains, verdict):
    row = compared(gains)
    assert row["verdict"] == verdict
    assert row["difference"]["mean"] == pytest.approx(np.mean(gains))
    np.testing.assert_allclose([one["difference"]["mean"] for one in row["by_seed"]], gains, atol=1e-12)
