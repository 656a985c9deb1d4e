"""Grids of the command line: all combinations, with commas that belong to a value."""

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.studies.sweep.grid import grid_points


def test_all_combinations_the_last_fastest():
    points = grid_points(["config.a.rate=0.1,3e-4", "--config.agent.seeds=(0,),(1, 2)", "title='x, y',[1,(2,3)]"])
    assert [point.name for point in points] == [f"{number:03d}" for number in range(8)]
    assert points[0].settings == (("a.rate", "0.1"), ("agent.seeds", "(0,)"), ("title", "'x, y'"))
    assert [dict(point.settings)["title"] for point in points[:3]] == ["'x, y'", "[1,(2,3)]", "'x, y'"]
    assert [dict(point.settings)["agent.seeds"] for point in points[:3]] == ["(0,)", "(0,)", "(1, 2)"]
    assert points[-1].told == "rate=3e-4, seeds=(1, 2), title=[1,(2,3)]"


@pytest.mark.parametrize(
    ("grids", "said"),
    [
        (["config.a"], "--grid=config.a: expected config.<key>=<value>"),
        (["config.a=1,,2"], "expected config.<key>=<value>"),
        (["config.a=1,1"], "a value stands there twice"),
        (["config.a=1", "a=2"], "a stands in it twice"),
    ],
)
def test_what_is_no_grid_is_refused(grids, said):
    with pytest.raises(UserError, match=said):
        grid_points(grids)
