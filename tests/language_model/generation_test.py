"""Stop strings, scripts and settings of a text generator."""

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.language_model.generation import (
    SamplingSettings,
    ScriptedGenerator,
    cut_at_stop,
)
from tests.language_model.counting_generator import SAMPLING, prompts


def test_the_first_stop_string_cuts():
    assert cut_at_stop("a b #END c #STOP", ("#STOP", "#END")) == ("a b ", True)
    assert cut_at_stop("a b", ("#STOP",)) == ("a b", False)
    assert cut_at_stop("a b", ()) == ("a b", False)


def test_a_script_follows_prompt_seed_and_row_only():
    generator = ScriptedGenerator(lambda prompt, rng: f"{prompt.text} {rng.integers(1e9)} #END no")
    first = generator.generate(prompts("a", "b"), SAMPLING, seed=1)
    again = generator.generate(prompts("a", "c"), SAMPLING, seed=1)
    other = generator.generate(prompts("a", "b"), SAMPLING, seed=2)
    expected = np.random.default_rng([1, 0]).integers(1e9)
    assert first[0].text == f"a {expected} "
    assert again[0] == first[0]
    assert other[0] != first[0]
    assert first[0].text.split()[1] != first[1].text.split()[1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_impossible_sampling_settings_are_named(change, named):
    settings = {"temperature": 0.5, "top_k": 0, "top_p": 1.0, "max_new_tokens": 8} | change
    with pytest.raises(UserError, match=named):
        SamplingSettings(**settings)
