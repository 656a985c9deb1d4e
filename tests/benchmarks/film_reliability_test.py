"""The table of reliabilities: its rows, groups that only the first half forms, and what it says of the goal."""

import numpy as np
import pytest

from benchmarks.film_reliability import Case, grouped, page
from eagle_jax.embeddings.reliability import UserTerms


def test_groups_are_means_over_users_whom_the_first_half_puts_together():
    rng = np.random.default_rng(0)
    centers = 5 * rng.normal(size=(2, 6))
    first = UserTerms(np.zeros(6), centers[[0, 1, 0, 1, 1]] + 0.01 * rng.normal(size=(5, 6)))
    second = UserTerms(np.ones(6), rng.normal(size=(5, 6)))
    one, other = grouped(first, second, 2, 0)
    order = [0, 1] if np.abs(one.personal[0] - centers[0]).max() < 1 else [1, 0]
    for place, members in zip(order, ([0, 2], [1, 3, 4]), strict=True):
        np.testing.assert_allclose(one.personal[place], first.personal[members].mean(axis=0))
        np.testing.assert_allclose(other.personal[place], second.personal[members].mean(axis=0))
    assert (other.common == 1).all()


@pytest.mark.parametrize(("personal", "said"), [(0.46, "reached, 0.460"), (0.2, "missed, 0.200")])
def test_the_page_names_the_best_case(personal, said):
    found = {"all users": {"common": 0.7, "personal": personal, "common_share": 0.9, "num": 5}}
    worse = {"all users": found["all users"] | {"personal": 0.1}}
    rows = [
        (Case(users="ratings"), {"ratings_per_user": 60.0, "found": worse}),
        (Case(share=0.5), {"ratings_per_user": 30.0, "found": found}),
    ]
    told = page({"commit": "c"}, [], rows)
    (line,) = [line for line in told.splitlines() if line.startswith("Goal")]
    assert said in line and "users of texts" in line and "30 ratings a user" in line
    both = 2 * personal / (1 + personal)
    assert f"| all users | 0.700 | {personal:.3f} | {both:.3f} | 90% |" in told
