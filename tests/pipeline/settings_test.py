"""Settings that would stop a run after hours are refused before it begins."""

from __future__ import annotations

import pytest

from eagle_jax.base.settings import SettingsError, to_settings
from eagle_jax.pipeline.settings import EagleExperiment
from experiments.configs import eagle_minilens


@pytest.mark.parametrize(
    ("group", "change", "said"),
    [
        ("design", {"kinds": ("g_optimum",)}, r"design\.kinds: 'g_optimum' is none of uniform, "),
        (
            "evaluation",
            {"extra_kinds": ("g_optimal", "uniform")},
            r"evaluation\.extra_kinds: 'uniform' is none of g_optimal$",
        ),
        (
            "evaluation",
            {"best_of_n": ("test_call",)},
            r"best_of_n\[0\]: expected one of 'test_calls', 'all_calls', got 'test_call'",
        ),
        ("evaluation", {"num_reachable": 1}, r"num_reachable 0 or at least 2 \(got 1\)"),
        ("evaluation", {"num_starts": 1}, r"num_starts must be at least 2 \(got 1\)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(group, change, said):
    config = eagle_minilens.get_config("quick").to_dict()
    to_settings(EagleExperiment, config)  # fits as it is
    config[group] |= change
    with pytest.raises(SettingsError, match=said):
        to_settings(EagleExperiment, config)
