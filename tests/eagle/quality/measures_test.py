"""What is read of a text and measured of it, by hand."""

import math

import numpy as np
import pytest

from eagle_jax.data.prompts import MOVIE
from eagle_jax.eagle.quality.measures import QUALITY_MEASURES, cosine, repeated_share
from eagle_jax.eagle.quality.readings import (
    TextFluency,
    TextReader,
    block_contents,
    is_closed,
    lower_words,
    split_sentences,
    text_fluency,
)
from eagle_jax.language_model.decoder.transformer import forward
from eagle_jax.stages.models import load_model
from tests.small_world import count_letters

TEXT = (
    "#BEGIN_PLOT {} #END_PLOT #BEGIN_REASONS_TO_LIKE #END_REASONS_TO_LIKE "
    "#BEGIN_REASONS_TO_DISLIKE {} #END_REASONS_TO_DISLIKE"
)


def reading(plot, reason="", fluency=None):
    text = TEXT.format(plot, reason)
    (found,) = TextReader(MOVIE, fluency and (lambda texts: np.array([fluency])), count_letters)([text])
    return found


def value(name, text, anchor=None):
    return QUALITY_MEASURES[name].function(text, anchor or text)


def test_texts_are_read_block_by_block():
    assert block_contents(TEXT.format("A duel.", "Too loud."), MOVIE) == ("A duel.", "Too loud.")
    assert block_contents("A duel. #END_PLOT", MOVIE) == ("A duel. #END_PLOT",)
    assert block_contents(TEXT.format("", ""), MOVIE) == block_contents(" ", MOVIE) == ()
    assert lower_words("It's 1995: a well-made duel_at dawn!") == (
        "it's",
        "1995",
        "a",
        "well-made",
        "duel",
        "at",
        "dawn",
    )
    assert split_sentences('He said "No." Then, at 3.5 miles, "Why?" And so') == (
        'He said "No.',
        'Then, at 3.5 miles, "Why?',
        "And so",
    )
    assert [is_closed(text) for text in ("An end.", 'An "end!"', "No end", "Well…", "a, b,")] == [1, 1, 0, 1, 0]
    found = reading("A duel. Two men", "Too loud.")
    assert found.sentences == ("A duel.", "Two men", "Too loud.")
    assert found.words == ("a", "duel", "two", "men", "too", "loud")
    assert TextReader(MOVIE, None, count_letters)([TEXT.format("", ""), "?!"]) == [None, None]


def test_features_are_of_the_plot_alone():
    """A genre may be changed without leaving the plot."""
    one, other = reading("Genres: Comedy. Year: 1995. Plot: A duel."), reading("Genres: War. Plot: A duel.")
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_array_equal(one.features, count_letters(["A duel."])[0])


def test_fluency_by_hand():
    # Twenty tokens, three of -7: -21 / 20 for all, -21 / 14 for the stretch that has them.
    np.testing.assert_allclose(text_fluency(np.array([0.0] * 9 + [-7] * 3 + [0] * 8)), [-1.05, -1.5])
    np.testing.assert_allclose(text_fluency(np.array([-1.0, -2, -6])), [-3, -3])  # shorter than a stretch
    assert text_fluency(np.zeros(0)).tolist() == [-30, -30]


def test_fluency_is_that_of_the_models_logits():
    """Against a softmax in float64, one text at a time and without padding."""
    model = load_model("minilens/environment_a")
    texts = [
        TEXT.format("this wry farce film plays in the island. the dancer must face vengeance.", "it may lose kids."),
        "the island",
        "the",
    ]
    found = TextFluency(model, MOVIE, 4)(texts)
    for text, row in zip(texts[:1], found, strict=False):
        tokens = np.array([model.tokenizer.encode(text)])
        logits = np.float64(forward(model.config, model.params, tokens, np.ones(tokens.shape, bool)).logits[0])
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        own = log_probs[np.arange(tokens.shape[1] - 1), tokens[0, 1:]]
        stretches = [own[place : place + 14].mean() for place in range(max(1, len(own) - 13))]
        np.testing.assert_allclose(row, [own.mean(), min(stretches)], rtol=1e-4)
    assert found[2].tolist() == [-30, -30]


def test_measures_by_hand():
    assert cosine(np.array([3.0, 4]), np.array([4.0, 3])) == pytest.approx(24 / 25)
    assert cosine(np.zeros(2), np.ones(2)) == 0
    assert repeated_share("ababab", 2) == pytest.approx(0.6)  # ab, ba, ab, ba, ab: three of five were there before
    assert repeated_share("ab", 3) == 0
    text = reading("One duel at dawn. ONE duel, at dawn. Two men (1995)", fluency=[-3.0, -5.0])
    anchor = reading("A duel at dawn.", fluency=[-2.5, -6.0])
    hand = {
        "fluency": -3,
        "fluency_kept": -0.5,
        "stretch": -5,
        "stretch_kept": 1,
        "loops": 2 / 9,  # of 9 runs of three words two: one duel at, duel at dawn
        "repeated_words": 4 / 11,
        "repeated_sentences": 1 / 3,
        "longest_sentence": math.log(5),
        "short": math.log(11),
        "long": math.log(11),
        "shrunk": math.log(11 / 4),
        "grown": math.log(11 / 4),
        "closed": 0,
        "symbols": 6 / 41,  # ( 1 9 9 5 )
        "capitals": 5 / 32,
        "leftovers": 0,
    }
    assert hand.keys() == QUALITY_MEASURES.keys() - {"similarity"}
    for name, expected in hand.items():
        assert value(name, text, anchor) == pytest.approx(expected), name
    assert value("similarity", text, text) == pytest.approx(1)
    assert value("closed", reading("An end.", "None")) == 0.5


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Sure! Here is the rewritten plot: a duel.", 2),  # up to the exclamation mark, and up to the colon
        ("As an AI language model I cannot help.", 3),
        ("A duel. <|im_end|>\\n", 2),
        ("**A duel.** Action: run.", 3),
        ("A duel. I hope this helps, let me know.", 2),
        ("Here is a man who is sure of his plot, and of course he acts.", 0),
        ("The system of the user: nothing.", 1),
    ],
)
def test_leftovers_are_counted(text, count):
    assert value("leftovers", reading(text)) == count
