"""The table of measures by which a text is held against the catalogue's own texts and its anchor.

A measure is a function of two readings, the text's and its anchor's, and the side on which it is bad. Its limit is a
quantile of what it has over texts of the catalogue (`Reference`), so that a new measure costs one row.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from eagle_jax.eagle.quality.readings import TextReading, is_closed, lower_words

# Over what a limit is taken. texts: each of the catalogue's texts beside itself. edits: a text with one of its
# sentences exchanged for one of another entity, beside the text: no honest change is coarser. others: a text beside
# another entity's, which is what a text about its anchor must be better than.
Reference = Literal["texts", "edits", "others"]

_PHRASE = 3  # words
# What is left of a conversation with a model, or of the markup that it writes.
_LEFTOVER = re.compile(
    r"#(?:BEGIN|END)_|<\|?/?\w+\|?>|\[/?INST\]|\*\*|```|^\s*#{1,6}\s|https?://|\{\w*\}|\\n"
    r"|\b(?:here(?:'s| is| are)|below is) (?:the|a|an|your|my)\b[^.]*:|\bas an ai\b|\blanguage model\b"
    r"|\brewrit(?:e|ten|ing)\b|\blet me know\b|\bi (?:hope this|apologi[sz]e|cannot (?:help|fulfil))"
    r"|\b(?:system|user|assistant|instruction|action|answer|output|note|text|title|plot|request|response|change)s?\s*:"
    r"|^\W*(?:sure|certainly|of course|okay)\b[,!.:]",
    re.IGNORECASE | re.MULTILINE,
)


class QualityMeasure(NamedTuple):
    """One row: (text, anchor) -> a number; the side on which a text is outside; whose quantile its limit is; the least
    unit in which the distance from there is told, should the catalogue's texts hardly differ; what it means; and the
    share of texts outside, where it is not that of the settings."""

    function: Callable[[TextReading, TextReading], float]
    side: Literal["low", "high"]
    reference: Reference
    least_spread: float
    meaning: str
    quantile: float | None = None


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """<a, b> / (|a| |b|), 0 where one is 0."""
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.dot(one, other)) / norms if norms else 0.0


def repeated_share(items: Sequence, size: int) -> float:
    """Share of the runs of `size` items that were there before, 0 without any."""
    runs = Counter(tuple(items[place : place + size]) for place in range(len(items) - size + 1))
    return 1 - len(runs) / runs.total() if runs else 0.0


def _repeated_sentences(text: TextReading, _: TextReading) -> float:
    return repeated_share([lower_words(sentence) for sentence in text.sentences], 1)


def _longest_sentence(text: TextReading, _: TextReading) -> float:
    return math.log(max(len(lower_words(sentence)) for sentence in text.sentences) + 1)


def _closed_share(text: TextReading, _: TextReading) -> float:
    return sum(map(is_closed, text.contents)) / len(text.contents)


def _symbol_share(text: TextReading, _: TextReading) -> float:
    told = "".join("".join(text.contents).split())
    return sum(not (letter.isalpha() or letter in ".,'’") for letter in told) / len(told)


def _leftovers(text: TextReading, _: TextReading) -> float:
    return float(sum(len(_LEFTOVER.findall(part)) for part in text.contents))


def _capital_share(text: TextReading, _: TextReading) -> float:
    letters = [letter for part in text.contents for letter in part if letter.isalpha()]
    return sum(letter.isupper() for letter in letters) / max(len(letters), 1)


def _log_words(text: TextReading, _: TextReading) -> float:
    return math.log(len(text.words))


def _log_growth(text: TextReading, anchor: TextReading) -> float:
    return math.log(len(text.words) / len(anchor.words))


_LOG = 0.1  # a tenth more or less

QUALITY_MEASURES = {
    "fluency": QualityMeasure(
        lambda text, anchor: text.fluency[0], "low", "texts", 0.1, "Mean log-prob of its tokens under a frozen model."
    ),
    "fluency_kept": QualityMeasure(
        lambda text, anchor: text.fluency[0] - anchor.fluency[0], "low", "edits", 0.1, "The same, less its anchor's."
    ),
    "stretch": QualityMeasure(
        lambda text, anchor: text.fluency[1], "low", "texts", 0.2, "Mean log-prob of its least likely stretch."
    ),
    "stretch_kept": QualityMeasure(
        lambda text, anchor: text.fluency[1] - anchor.fluency[1], "low", "edits", 0.2, "The same, less its anchor's."
    ),
    "similarity": QualityMeasure(
        lambda text, anchor: cosine(text.features, anchor.features),
        "low",
        "others",
        0.05,
        "Cosine of its features with its anchor's; the limit is what other entities' texts have.",
    ),
    "loops": QualityMeasure(
        lambda text, anchor: repeated_share(text.words, _PHRASE),
        "high",
        "texts",
        0.03,
        "Share of its phrases of three words that it said before.",
    ),
    "repeated_words": QualityMeasure(
        lambda text, anchor: repeated_share(text.words, 1),
        "high",
        "texts",
        0.05,
        "Share of its words that it said before.",
    ),
    "repeated_sentences": QualityMeasure(
        _repeated_sentences, "high", "texts", 0.1, "Share of its sentences that it said before."
    ),
    "longest_sentence": QualityMeasure(_longest_sentence, "high", "texts", _LOG, "Log of the words of its longest."),
    "short": QualityMeasure(_log_words, "low", "texts", _LOG, "Log of its number of words."),
    "long": QualityMeasure(_log_words, "high", "texts", _LOG, "Log of its number of words."),
    "shrunk": QualityMeasure(_log_growth, "low", "edits", _LOG, "Log of its words over its anchor's."),
    "grown": QualityMeasure(_log_growth, "high", "edits", _LOG, "Log of its words over its anchor's."),
    # Most texts end or do not: what nine of ten do is asked of all.
    "closed": QualityMeasure(_closed_share, "low", "texts", 0.5, "Share of its blocks that end with a sentence.", 0.1),
    "symbols": QualityMeasure(_symbol_share, "high", "texts", 0.01, "Share of its characters that no prose needs."),
    "capitals": QualityMeasure(_capital_share, "high", "texts", 0.02, "Share of its letters that are capitals."),
    "leftovers": QualityMeasure(_leftovers, "high", "texts", 0.5, "Remains of a conversation or of markup."),
}
OF_MODEL = ("fluency", "fluency_kept", "stretch", "stretch_kept")  # absent where no model scores texts
