"""CHES by hand, and of transformers' hidden states in a float64 loop.

Axis letters: B pairs, D width.
"""

import dataclasses

import numpy as np
import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.settings import to_settings
from eagle_jax.data.minilens.requests import draw_requests, supervised_examples
from eagle_jax.real.selection.ches import ches_scores, lowest_share
from eagle_jax.real.training.preference import state_sums_of
from eagle_jax.real.training.step import PreferenceSettings
from eagle_jax.stages.models import load_model, model_path
from tests.language_model.small_checkpoints import load_in_torch

SETTINGS = to_settings(PreferenceSettings, load_config("experiments/configs/real_minilens.py").training)


def test_scores_by_hand():
    # <(1, 2), (3, -1)> - |(1, 2)|^2 = 1 - 5; means over 2 and 4 tokens: <(.5, 1), (.75, -.25)> - 1.25.
    preferred, dispreferred = np.array([[1.0, 2.0]]), np.array([[3.0, -1.0]])
    assert ches_scores(preferred, dispreferred) == [-4.0]
    assert ches_scores(preferred, dispreferred, (np.array([2]), np.array([4]))) == [0.125 - 1.25]


def test_laws():
    rng = np.random.default_rng(0)
    ours, theirs = rng.standard_normal((2, 5, 3))
    np.testing.assert_allclose(ches_scores(ours, ours), 0, atol=1e-12)  # equal responses: nothing lies between them
    both = ches_scores(ours, theirs) + ches_scores(theirs, ours)
    np.testing.assert_allclose(both, -np.sum((ours - theirs) ** 2, axis=1))  # so of two labels one is below 0
    np.testing.assert_allclose(ches_scores(3 * ours, 3 * theirs), 9 * ches_scores(ours, theirs))


def test_a_share_is_kept_from_either_end():
    scores = np.array([3.0, -1.0, 2.0, 0.0, 2.0])
    assert lowest_share(scores, 0.4).tolist() == [1, 3]
    assert lowest_share(scores, 0.4, highest=True).tolist() == [0, 2]  # of equals the first
    assert lowest_share(scores, 0.01).tolist() == [1]


def test_sums_are_of_the_states_that_predict_a_response():
    """transformers reads the prompt and the response; its states from the last of the prompt on, but the last."""
    torch = pytest.importorskip("torch")
    model = load_model("minilens/policy")
    peer = load_in_torch(model_path("minilens/policy"))
    prompts = [request.prompt for request in draw_requests(3, 0)]
    films = [e.completion for e in supervised_examples(6, 0, num_films=2, strength=1.0, dialect="a")]
    ending = f" {prompts[0].stop[0]}"
    sides = [
        [film.removesuffix(ending) for film in films[:3]],
        [films[3][:40], films[4].removesuffix(ending), films[5][:9]],
    ]
    texts = [prompt.text for prompt in prompts]
    ours = [state_sums_of(model, texts, side, ending, SETTINGS, 2) for side in sides]  # batches of 2 and of 1
    scores, by_length = [], []
    for row, text in enumerate(texts):
        states = []
        for side in sides:
            before = model.tokenizer.encode_prompt(text)
            both = [*before, *model.tokenizer.encode_response(text, side[row] + ending)[1]]
            with torch.no_grad():
                read = peer(torch.tensor([both]), output_hidden_states=True).hidden_states[-1][0]
            states.append([state.double().numpy() for state in read[len(before) - 1 : -1]])
        sums = [sum(of_side) for of_side in states]
        scores.append(sum(a * b for a, b in zip(*sums, strict=True)) - sum(a * a for a in sums[0]))
        means = [total / len(of_side) for total, of_side in zip(sums, states, strict=True)]
        by_length.append(sum(a * b for a, b in zip(*means, strict=True)) - sum(a * a for a in means[0]))
    (chosen, long), (rejected, other) = ours
    assert long[0] != other[0]
    np.testing.assert_allclose(ches_scores(chosen, rejected), scores, rtol=1e-3)
    np.testing.assert_allclose(ches_scores(chosen, rejected, (long, other)), by_length, rtol=1e-3)


def test_what_is_cut_in_training_is_cut_here():
    model = load_model("minilens/policy")
    prompt = draw_requests(1, 0)[0].prompt
    film = supervised_examples(1, 0, num_films=2, strength=1.0, dialect="a")[0].completion
    short = dataclasses.replace(SETTINGS, max_prompt_tokens=20, max_tokens=24)
    _, lengths = state_sums_of(model, [prompt.text], [film], None, short, 1)
    assert lengths.tolist() == [4]
