"""Figures do not exaggerate: panels of one quantity have one scale, and a level curve looks level."""

import numpy as np
import pytest

from eagle_jax.reports.figures import Panel, curves_figure, interval_figure, learning_curve


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


def test_curves_of_one_quantity_have_one_axis_and_others_their_own():
    rows = [
        {"step": 0, "train": 0.5, "held_out": 0.2, "kl": 7.0},
        {"step": 1, "train": 0.9, "held_out": 0.4, "kl": 0.0},
    ]
    panels = {"train": Panel("U", "U"), "held_out": Panel("held-out U", "U")}
    names = ["train", "held_out", "kl"]
    *alike, other, _ = curves_figure([learning_curve("EAGLE", 0, rows, names)], panels=panels).axes
    assert [axis.get_title() for axis in alike] == ["U", "held-out U"] and other.get_title() == "kl"
    assert alike[0].get_ylim() == alike[1].get_ylim()
    low, high = alike[0].get_ylim()
    assert low < 0.2 and 0.9 < high < 1.2


def test_a_share_of_next_to_nothing_does_not_fill_its_frame():
    rows = [{"step": step, "share": value} for step, value in enumerate([0.0, 0.006, 0.0])]
    curve = learning_curve("EAGLE", 0, rows, ["share"])
    (axis,) = curves_figure([curve], panels={"share": Panel("share", least=0.1)}).axes
    assert np.ptp(axis.get_ylim()) == pytest.approx(0.1)
