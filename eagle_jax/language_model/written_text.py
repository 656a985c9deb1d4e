"""What a model wrote in plain chat, read without markers: where it ends, what it repeats, what it copies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from eagle_jax.data.prompts import MalformedText

_SENTENCE_END = re.compile(r"(?<!\b[A-Z])(?<!\bMr)(?<!\bDr)(?<!\bSt)(?<!\bvs)(?<!\bMrs)[.!?][\"')\]”’]*(?=\s|$)")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_RUN = 4  # words of which copies and loops are made
_MOST_REPEATED = 2


def sentence_ends(text: str) -> list[int]:
    """Behind each sentence."""
    return [found.end() for found in _SENTENCE_END.finditer(text)]


def words_of(text: str) -> list[str]:
    """In lower case, without the s of a genitive."""
    return [re.sub("['’]s$", "", word.lower()) for word in _WORD.findall(text)]


def word_runs(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Every four words in a row."""
    return [tuple(words[place : place + _RUN]) for place in range(len(words) - _RUN + 1)]


def copied_share(words: Sequence[str], *known: Sequence[str]) -> float:
    """The share of the runs of `words` that one of the known texts has as well; 0 without runs."""
    runs, have = word_runs(words), {run for text in known for run in word_runs(text)}
    return sum(run in have for run in runs) / len(runs) if runs else 0.0


def refuse_loop(words: Sequence[str]) -> None:
    """Raises `MalformedText` (loop) where the same four words in a row come thrice."""
    counts = Counter(word_runs(words))
    if counts and max(counts.values()) > _MOST_REPEATED:
        raise MalformedText("loop", " ".join(words)[:80])
