"""Settings that would stop a run after hours are refused before it begins."""

import functools

import pytest

from eagle_jax.base.settings import SettingsError, to_settings
from eagle_jax.eagle.settings import EagleExperiment
from experiments.configs import eagle_minilens, eagle_minilens_dpo, eagle_minilens_elm, eagle_remote


@pytest.mark.parametrize(
    ("group", "change", "said"),
    [
        ("preference_agent", {"starts_per_round": 7}, "config: starts_per_round x num_samples = 7 x 4"),
        ("elm_baseline.search", {"radii": ()}, "search.radii: at least one"),
        ("elm_baseline.search", {"radii": (-1.0,)}, "must be at least 0"),
        ("elm_baseline.search", {"ridge": 0.0}, "ridge must be positive"),
        ("elm_baseline.search", {"num_pairs": 1}, "num_pairs must be"),
        ("elm_baseline.search", {"metrics": ("cosine",)}, "config.elm_baseline.search.metrics"),
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
        ("policy_training", {"dtype": "bfloat16"}, "mode full trains all .* needs float32"),
        ("evaluation", {"num_reachable": 1}, "num_reachable must be 0 or at least 2, got 1"),
        ("evaluation", {"search_actions": 1}, "search_actions must be 0 or at least 2, got 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(group, change, said):
    config = eagle_minilens_dpo.get_config("quick").to_dict()
    config["elm_baseline"] = eagle_minilens_elm.get_config("quick").to_dict()["elm_baseline"]
    to_settings(EagleExperiment, config)  # fits as it is
    functools.reduce(dict.get, group.split("."), config).update(change)
    with pytest.raises(SettingsError, match=said):
        to_settings(EagleExperiment, config)


@pytest.mark.parametrize("variant", ["vllm", "gemini", "openai"])
def test_the_page_of_remote_models_has_settings_that_fit(variant):
    experiment = to_settings(EagleExperiment, eagle_remote.get_config(variant))
    assert list(experiment.remote_models()) == [f"remote/{variant}"]
    config = eagle_remote.get_config(variant).to_dict()
    config["evaluation"]["transfer_environment"] = "remote/other"
    with pytest.raises(SettingsError, match=f"'remote/other' is not in .*, which has: {variant}"):
        to_settings(EagleExperiment, config)


def test_users_data_stay_here_or_the_roles_that_would_send_them_are_named():
    config = eagle_remote.get_config("openai").to_dict()
    assert [one.role for one in to_settings(EagleExperiment, config).leaving() if one.of_users] == [
        "generator",
        "rater",
    ]
    grouped = to_settings(EagleExperiment, config | {"profile_groups": {"min_users": 5}}).leaving()
    told = [words for one in grouped for words in one.of_users]
    assert told and all("groups of 5 users or more" in words for words in told)
    config["user_data_stays"] = True
    with pytest.raises(
        SettingsError, match=r"user_data_stays .*\(generator\) .*titles.*\(rater\) would be sent users'"
    ):
        to_settings(EagleExperiment, config)
    config["data_profiles"] = {"fields": ("genres",), "values_per_side": 3, "titles_per_side": 2, "shrinkage": 5.0}
    config["candidates"]["candidates"]["num_personalised"] = 0
    config["evaluation"]["rater"] = None
    told = to_settings(EagleExperiment, config).leaving()
    assert [(one.role, list(one.of_users)) for one in told] == [("generator", []), ("environment", [])]


@pytest.mark.parametrize("role", ["policy", "features", "held_out_features"])
def test_a_model_whose_weights_are_needed_is_not_remote(role):
    config = eagle_remote.get_config("vllm").to_dict()
    config["models"][role] = "remote/vllm"
    with pytest.raises(SettingsError, match=rf"models\.{role}: its weights are needed here"):
        to_settings(EagleExperiment, config)


def test_a_rater_that_is_not_asked_needs_no_endpoint():
    config = eagle_minilens.get_config("quick").to_dict()
    config["models"]["rater"] = "remote/nobody"
    assert to_settings(EagleExperiment, config).remote_models() == {}
