"""The stage that fits quality's limits to texts of the catalogue."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.metrics import progress
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.prompts import EntityFormat
from eagle_jax.eagle.quality.measures import OF_MODEL, QUALITY_MEASURES
from eagle_jax.eagle.quality.quality import Limit, Quality, QualitySettings, draw_sample, fit_quality
from eagle_jax.eagle.quality.readings import FluencyFn, TextFluency, TextReader
from eagle_jax.embeddings.sentences.field_features import FieldFeatures, NamedFeatures
from eagle_jax.reports.markdown import fact

_TEXTS_PER_CHUNK = 64


def quality_reader(entity_format: EntityFormat, fluency: TextFluency | None, features: NamedFeatures) -> TextReader:
    """What quality reads of texts: of features with fields only those of the plots, for a genre may be changed."""
    return TextReader(
        entity_format, fluency, features.plot_features if isinstance(features, FieldFeatures) else features
    )


def run_quality_stage(
    stage: StageFolder, texts: Sequence[str], reader: TextReader, settings: QualitySettings, seed: int
) -> Quality:
    """Fits the limits to `num_texts` of the texts, drawn; writes limits.json, features.npz and facts.json."""
    if not stage.is_complete():
        sample = draw_sample(texts, reader.entity_format, settings.num_texts, seed)
        kept = None if reader.fluency_fn is None else _kept(stage, reader.fluency_fn)
        fitted = fit_quality(sample, dataclasses.replace(reader, fluency_fn=kept), settings)
        stage.write_json("limits.json", {name: limit._asdict() for name, limit in fitted.limits.items()})
        stage.write_arrays("features.npz", {"mean": fitted.feature_mean, "scale": fitted.feature_scale})
        stage.write_json("facts.json", {"num_texts": len(sample.texts), "num_edits": len(sample.edits)})
        stage.finish()
    limits = {name: Limit(**limit) for name, limit in stage.read_json("limits.json").items()}
    features = stage.read_arrays("features.npz")
    return Quality(reader, settings.weight, limits, features["mean"], features["scale"])


def _kept(stage: StageFolder, fluency_fn: FluencyFn) -> FluencyFn:
    """The same, of which a piece that is there is not computed again."""

    def in_chunks(texts: Sequence[str]) -> np.ndarray:
        starts = range(0, len(texts), _TEXTS_PER_CHUNK)
        pieces = [
            stage.chunk(index, lambda start=start: fluency_fn(texts[start : start + _TEXTS_PER_CHUNK]).tolist())
            for index, start in enumerate(progress(starts, len(starts), "quality", "chunk"))
        ]
        return np.array([row for piece in pieces for row in piece])

    return in_chunks


def quality_facts(stage: StageFolder) -> list[dict[str, Any]]:
    """What the finished stage says of itself."""
    limits: Mapping[str, Mapping[str, float]] = stage.read_json("limits.json")
    counts = stage.read_json("facts.json")
    rows = [
        fact("texts", counts["num_texts"], "of the catalogue, from which limits are taken"),
        fact("edits", counts["num_edits"], "of these, with a sentence exchanged for another text's"),
    ]
    for name, limit in limits.items():
        measure = QUALITY_MEASURES[name]
        below = "below" if measure.side == "low" else "above"
        rows.append(
            fact(
                f"{name}: limit", limit["limit"], f"{measure.meaning} A text loses {below} it, by {limit['spread']:.3g}"
            )
        )
    if missing := [name for name in OF_MODEL if name not in limits]:
        rows.append(
            fact(
                "not measured", ", ".join(missing), "the environment is remote, and quality.model names no other model"
            )
        )
    return rows
