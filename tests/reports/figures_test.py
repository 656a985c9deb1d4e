"""Figures do not exaggerate: panels of one quantity have one scale, and a level curve looks level."""

import numpy as np
import pytest

from eagle_jax.reports.figures import curves_figure, interval_figure, learning_curve


def interval(mean):
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}


def test_panels_of_one_quantity_have_one_scale():
    rows = [
        {"row": "a", "cells": {"train": interval(0.2), "held_out": interval(3.0)}},
        {"row": "b", "cells": {"train": interval(-1.0), "held_out": None}},
    ]
    panels = {"train": "training encoder", "held_out": "held-out encoder"}
    first, second = interval_figure(rows, panels, "U", part=0).axes
    assert first.get_xlim() == second.get_xlim()
    low, high = first.get_xlim()
    assert low < -1.1 and high > 3.1


def frame_of(values):
    rows = [{"step": step, "reward": value} for step, value in enumerate(values)]
    (axis,) = curves_figure([learning_curve("EAGLE", 0, rows, ["reward"])]).axes
    return axis.get_ylim()


def test_a_curve_that_hardly_moves_does_not_fill_its_frame():
    low, high = frame_of([10.0, 10.1, 10.0])
    assert high - low >= 0.2 * 10.0 and low < 10.0 < 10.1 < high


@pytest.mark.parametrize("values", [[0.0, 1.0, 0.5], [-2.0, 3.0], [0.9, 1.3]])
def test_a_curve_that_moves_fills_it(values):
    low, high = frame_of(values)
    assert np.ptp(values) / (high - low) > 0.85


def test_a_curve_of_nothing_has_a_frame():
    low, high = frame_of([0.0, 0.0])
    assert low < 0 < high
