"""Profiles: one for each user, malformed ones asked for again, and failure said aloud."""

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import COMPACT
from eagle_jax.eagle.user_profiles import write_profiles
from eagle_jax.language_model.generation import Generation, SamplingSettings

SAMPLING = SamplingSettings(temperature=0.5, top_k=0, top_p=1.0, max_new_tokens=20)
LIKED = [["alpha", "beta"], ["gamma"], ["delta"]]
DISLIKED = [["omega"], [], ["psi"]]


class Profiler:
    """Writes a profile from the prompt; fails on the given users' first tries."""

    def __init__(self, failures):
        self.failures = dict(failures)
        self.calls = []

    def generate(self, prompts, sampling, seed):
        self.calls.append((len(prompts), seed))
        answers = []
        for prompt in prompts:
            title = next(title for titles in LIKED for title in titles if title in prompt.text)
            assert "omega" in prompt.text or title != "alpha"
            fails = self.failures.get(title, 0) > 0
            self.failures[title] = self.failures.get(title, 0) - 1
            answers.append(
                Generation(
                    text=f"fan of {title}", token_ids=None, log_probs=None, stop_reason="length" if fails else "stop"
                )
            )
        return answers


def test_malformed_profiles_are_retried_with_another_seed():
    profiler = Profiler({"gamma": 2, "delta": 1})
    profiles, malformed = write_profiles(profiler, COMPACT, LIKED, DISLIKED, SAMPLING, 7, 3)
    assert profiles == ["fan of alpha", "fan of gamma", "fan of delta"]
    assert malformed == {"length": 3}
    assert [count for count, _ in profiler.calls] == [3, 2, 1]
    assert len({seed for _, seed in profiler.calls}) == 3


def test_failure_names_user_and_reason():
    with pytest.raises(UserError, match=r"1 of 3 users.*1 \(length\)"):
        write_profiles(Profiler({"gamma": 9}), COMPACT, LIKED, DISLIKED, SAMPLING, 7, 2)
