"""What is read of a text before it is judged (crosses the border): words, sentences, log-probs, features.

Axis letters: `B` texts, `T` tokens, `F` features.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from eagle_jax.data.film_fields import parse_film_fields
from eagle_jax.data.prompts import EntityFormat, MalformedText, begin, full_blocks
from eagle_jax.embeddings.domain_encoder import FeaturesFn, compute_features
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.log_probs import following_log_probs, read_text
from eagle_jax.language_model.sampling.local import batches_by_length, identity
from eagle_jax.language_model.sharding import fetch, on_mesh_of

_STRETCH = 14  # tokens; half a sentence
_SILENT = -30.0  # nats: of a text without two tokens, below all that a model says
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+")
_CLOSED = re.compile(r"[.!?…][\"'”’)\]]*$")

FluencyFn = Callable[[Sequence[str]], np.ndarray]  # texts -> `text_fluency` [B, 2]


class TextReading(NamedTuple):
    """contents: of its blocks; words: in lower case; fluency [2]: of `text_fluency`, None without a model;
    features [F] of `features_fn`."""

    contents: tuple[str, ...]
    words: tuple[str, ...]
    sentences: tuple[str, ...]
    fluency: np.ndarray | None
    features: np.ndarray


def block_contents(text: str, entity_format: EntityFormat) -> tuple[str, ...]:
    """What stands in the blocks of a text; the whole of one that has not these blocks and no others."""
    try:
        return tuple(full_blocks(text, entity_format.blocks).values())
    except MalformedText:
        return (text.strip(),) if text.strip() else ()


def lower_words(text: str) -> tuple[str, ...]:
    """Words and numbers, in lower case."""
    return tuple(_WORD.findall(text.lower()))


def split_sentences(text: str) -> tuple[str, ...]:
    """The text cut behind full stops, question and exclamation marks."""
    return tuple(piece for piece in _SENTENCE_END.split(text.strip()) if piece)


def is_closed(text: str) -> bool:
    """Whether the text ends where a sentence does."""
    return bool(_CLOSED.search(text))


@dataclasses.dataclass(frozen=True, eq=False)
class TextReader:
    """Texts to readings.

    fluency_fn: None where no model scores texts. features_fn: of plots, where texts have labelled fields.
    """

    entity_format: EntityFormat
    fluency_fn: FluencyFn | None
    features_fn: FeaturesFn

    def __call__(self, texts: Sequence[str]) -> list[TextReading | None]:
        """In their order; None: of a text without a word."""
        contents = [block_contents(text, self.entity_format) for text in texts]
        told = [row for row, parts in enumerate(contents) if lower_words(" ".join(parts))]
        readings: list[TextReading | None] = [None] * len(texts)
        if not told:
            return readings
        plots = [parse_film_fields(texts[row]).plot or texts[row] for row in told]
        features = compute_features(self.features_fn, plots)
        fluency = None if self.fluency_fn is None else self.fluency_fn([texts[row] for row in told])
        for place, row in enumerate(told):
            parts = contents[row]
            readings[row] = TextReading(
                contents=parts,
                words=tuple(word for part in parts for word in lower_words(part)),
                sentences=tuple(sentence for part in parts for sentence in split_sentences(part)),
                fluency=None if fluency is None else fluency[place],
                features=features[place],
            )
        return readings


@dataclasses.dataclass(frozen=True, eq=False)
class TextFluency:
    """`text_fluency` under a frozen model.

    A model whose vocabulary has the blocks' markers reads them, another one only what stands between them. Texts are
    cut at the model's positions.
    """

    model: LanguageModel
    entity_format: EntityFormat
    batch_size: int

    @functools.cached_property
    def name(self) -> str:
        """The model's name and a digest of its weights."""
        return identity(self.model)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float64 [B, 2]."""
        tokenizer, limit = self.model.tokenizer, self.model.config.max_position_embeddings
        knows_markers = all(tokenizer.token_id(begin(block)) is not None for block in self.entity_format.blocks)
        read = texts if knows_markers else ["\n".join(block_contents(text, self.entity_format)) for text in texts]
        ids = [tokenizer.encode(text)[:limit] for text in read]
        found = np.zeros((len(ids), 2))
        for rows, tokens, mask in batches_by_length(tokenizer, ids, self.batch_size):
            with on_mesh_of(self.model.params):
                log_probs = fetch(_log_probs(self.model.config, self.model.params, tokens, mask))
            for place, row in enumerate(rows):
                found[row] = text_fluency(log_probs[place, : len(ids[row]) - 1])
        return found


def text_fluency(log_probs: np.ndarray) -> np.ndarray:
    """Mean log-prob [T] of a text's tokens, and that of its least likely stretch of 14, in nats [2]."""
    if not len(log_probs):
        return np.full(2, _SILENT)
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(log_probs, np.float64))])
    size = min(_STRETCH, len(log_probs))
    return np.array([sums[-1] / len(log_probs), (sums[size:] - sums[:-size]).min() / size])


@functools.partial(jax.jit, static_argnames="config")
def _log_probs(config: DecoderConfig, params: Params, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """log p of each token behind the first [B, T - 1]."""
    return following_log_probs(read_text(config, params, tokens, mask), tokens, mask)
