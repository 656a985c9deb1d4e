"""Quality of texts: how far they are outside of what the catalogue's own texts are like, and of their anchor.

    quality(x, a) = - sum over measures m of min(distance_m / spread_m, 3)
    distance_m = how far m(x, a) is beyond the limit of m, or beyond m(a, a) where the anchor is out there itself

so 0 for a text within all limits and for an anchor, whatever it is like. Limits are quantiles over texts of the
catalogue, a spread half of what lies between the 16 % and the 84 % quantile.

Axis letters: `B` texts, `F` features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eagle_jax.base.settings import setting, settings
from eagle_jax.data.prompts import EntityFormat
from eagle_jax.eagle.quality.measures import OF_MODEL, QUALITY_MEASURES, Reference
from eagle_jax.eagle.quality.readings import TextReader, TextReading, block_contents, lower_words, split_sentences

_OTHERS = 6  # texts in a ring; each is beside five others
_MOST = 3.0  # spreads: farther outside a text is lost anyhow, and no measure outweighs all others


@settings
class QualitySettings:
    """What a text is worth apart from U: it loses where it is not like the catalogue's own."""

    weight: float = setting("Of it in the reward.", at_least=0, unit="U per spread outside")
    quantile: float = setting("Share of the catalogue's own texts outside of a limit.", above=0, below=0.5)
    num_texts: int = setting("Of the catalogue, drawn, from which limits are taken.", at_least=20)
    model: str | None = setting(
        "Whose log-probs tell fluency; None: the environment's, and none where that is remote.", default=None
    )


class Limit(NamedTuple):
    """Where a measure begins to count, and the unit of what is beyond."""

    limit: float
    spread: float


@dataclasses.dataclass(frozen=True, eq=False)
class Quality:
    """texts and their anchors -> quality [B]; see the module's docstring.

    weight: in a reward, U + weight * quality. limits: measure -> its limit; one without is not taken. feature_mean and
    feature_scale [F]: of the catalogue's texts, by which features are standardised.
    """

    reader: TextReader
    weight: float
    limits: Mapping[str, Limit]
    feature_mean: np.ndarray
    feature_scale: np.ndarray

    def __call__(self, texts: Sequence[str], anchors: Sequence[str]) -> np.ndarray:
        """float64 [B], at most 0."""
        return 0.0 - sum(self.parts(texts, anchors).values(), start=np.zeros(len(texts)))

    def parts(self, texts: Sequence[str], anchors: Sequence[str]) -> dict[str, np.ndarray]:
        """Measure -> spreads outside of its limit, from 0 to 3 [B]; all 3 of a text without a word."""
        changed = [row for row, pair in enumerate(zip(texts, anchors, strict=True)) if pair[0] != pair[1]]
        asked = dict.fromkeys(text for row in changed for text in (texts[row], anchors[row]))
        readings = dict(zip(asked, self.read(list(asked)), strict=True))
        found = {name: np.zeros(len(texts)) for name in self.limits}
        for row in changed:
            text, anchor = readings[texts[row]], readings[anchors[row]]
            for name, values in found.items():
                values[row] = _MOST if text is None else self._outside(name, text, text if anchor is None else anchor)
        return found

    def read(self, texts: Sequence[str]) -> list[TextReading | None]:
        """With standardised features."""
        return _standardized(self.reader(texts), self.feature_mean, self.feature_scale)

    def _outside(self, name: str, text: TextReading, anchor: TextReading) -> float:
        measure, (limit, spread) = QUALITY_MEASURES[name], self.limits[name]
        sign = 1.0 if measure.side == "high" else -1.0
        start = max(sign * limit, sign * measure.function(anchor, anchor))
        return float(np.clip((sign * measure.function(text, anchor) - start) / spread, 0, _MOST))


def _standardized(readings: Sequence[TextReading | None], mean: np.ndarray, scale: np.ndarray) -> list:
    """The readings with (features - mean) / scale."""
    return [
        None if reading is None else reading._replace(features=(reading.features - mean) / scale)
        for reading in readings
    ]


class CatalogueSample(NamedTuple):
    """texts: distinct, of the catalogue. edits: (a text with a sentence exchanged for another text's, its place)."""

    texts: list[str]
    edits: list[tuple[str, int]]


def draw_sample(texts: Sequence[str], entity_format: EntityFormat, count: int, seed: int) -> CatalogueSample:
    """`count` of the texts that have a word, or all; every one of two sentences or more is edited once."""
    rng = np.random.default_rng(seed)
    told = [text for text in dict.fromkeys(texts) if lower_words(" ".join(block_contents(text, entity_format)))]
    drawn = [told[place] for place in rng.permutation(len(told))[:count]]
    blocks = [block_contents(text, entity_format) for text in drawn]
    sentences = [[(at, one) for at, part in enumerate(parts) for one in split_sentences(part)] for parts in blocks]
    pools: dict[int, list[str]] = {}  # of the same block, for one kind of text differs from another
    for at, one in (told for own in sentences for told in own):
        pools.setdefault(at, []).append(one)
    edits = []
    for place, (text, own) in enumerate(zip(drawn, sentences, strict=True)):
        at, old = own[rng.integers(len(own))]
        new = pools[at][rng.integers(len(pools[at]))]
        if len(own) > 1 and (at, new) not in own:
            edits.append((text.replace(old, new, 1), place))
    return CatalogueSample(drawn, edits)


def fit_quality(sample: CatalogueSample, reader: TextReader, settings: QualitySettings) -> Quality:
    """Quality whose limits are the sample's quantiles; without a reader's model its measures are absent."""
    count = len(sample.texts)
    read = reader([*sample.texts, *(text for text, _ in sample.edits)])
    features = np.stack([reading.features for reading in read[:count]]).astype(np.float64)
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-6 * max(scale.max(), 1e-30), scale, 1.0)  # one that never differs tells nothing
    read = _standardized(read, mean, scale)
    own, edited = read[:count], read[count:]
    pairs: dict[Reference, Pairs] = {
        "texts": [(reading, reading) for reading in own],
        "edits": [(text, own[place]) for text, (_, place) in zip(edited, sample.edits, strict=True)],
        "others": [
            (own[place], own[(place + step) % count])
            for step in range(1, min(_OTHERS, count))
            for place in range(count)
        ],
    }
    limits = _limits(pairs, settings.quantile, reader.fluency_fn is not None)
    return Quality(reader, settings.weight, limits, mean, scale)


Pairs = Sequence[tuple[TextReading, TextReading]]  # of a text and its anchor


def _limits(pairs: Mapping[Reference, Pairs], quantile: float, has_model: bool) -> dict[str, Limit]:
    """The limit of each measure that has pairs; of `others`, whose texts are to be outside, the other end."""
    limits = {}
    for name, measure in QUALITY_MEASURES.items():
        if not pairs[measure.reference] or (name in OF_MODEL and not has_model):
            continue
        values = np.array([measure.function(text, anchor) for text, anchor in pairs[measure.reference]])
        is_upper = (measure.side == "high") != (measure.reference == "others")
        # A limit is a value that a text has, the farther one of two: no share of one lies outside.
        method = "higher" if is_upper else "lower"
        share = quantile if measure.quantile is None else measure.quantile
        limit = np.quantile(values, 1 - share if is_upper else share, method=method)
        low, high = np.quantile(values, [0.16, 0.84])
        limits[name] = Limit(float(limit), max(float(high - low) / 2, measure.least_spread))
    return limits


def with_quality(
    quality: Quality | None, utility: np.ndarray, texts: Sequence[str], anchors: Sequence[str]
) -> np.ndarray:
    """What is rewarded of texts whose utility is known [B]; None: the utility alone."""
    return utility if quality is None else utility + quality.weight * quality(texts, anchors)
