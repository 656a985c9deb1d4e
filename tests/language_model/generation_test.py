"""Stop strings, scripts and settings of a text generator."""

import numpy as np
import pytest

from eagle_jax.language_model.generation import ScriptedGenerator, chat_answer, cut_at_stop
from tests.language_model.counting_generator import SAMPLING, prompts


def test_the_first_stop_string_cuts():
    assert cut_at_stop("a b #END c #STOP", ("#STOP", "#END")) == ("a b ", True)
    assert cut_at_stop("a b", ("#STOP",)) == ("a b", False)
    assert cut_at_stop("a b", ()) == ("a b", False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" #BEGIN a", " a"),
        ("<think>\n#BEGIN is the marker.\n</think>\n\n#BEGIN a </think>", " a </think>"),
        ("It was opened by the prompt.</think>a", "a"),
        ("\n<think>\n\n</think>\n\n", ""),
        (" <think>and it goes on, #BEGIN", ""),
        ("a <think> b", "a <think> b"),
    ],
)
def test_a_chat_model_says_its_turn_without_thoughts_and_opening(text, said):
    assert chat_answer(text, "#BEGIN") == said


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
