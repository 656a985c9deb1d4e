"""Concept activation vectors on real films: embeddings, fits, agreement with raters, a report.

Stages `wals` (behavioral embeddings of all ratings), `sentences` (semantic ones, of overviews) and
`gammas`; each is skipped when its folder is there and made of the same data and settings.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from eagle_jax.base.settings import setting, settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import parse_blocks
from eagle_jax.data.readers.movielens import read_movielens
from eagle_jax.data.soft_attributes import read_soft_attributes
from eagle_jax.data.sources import fingerprint
from eagle_jax.embeddings.sentences.encoder import load_sentence_encoder
from eagle_jax.embeddings.wals import WALSSettings, fit_wals, rating_embeddings
from eagle_jax.reports.pages import shared_fields
from eagle_jax.stages.catalogue import write_names
from eagle_jax.stages.run import Run
from eagle_jax.studies.soft_attributes.data import SoftAttributeData, gather
from eagle_jax.studies.soft_attributes.report import SoftAttributesReport, write_attributes_report
from eagle_jax.studies.soft_attributes.scores import ScoreSettings, score_embedding, score_without_embedding

BEHAVIORAL_SPACE, SEMANTIC_SPACE = "WALS", "sentences"


@settings
class SoftAttributesExperiment:
    """Concept activation vectors, judged by raters' orderings."""

    title: str = setting("Of the report.")
    movielens: str = setting("Folder of ratings, films and tags.")
    texts_file: str = setting("A CSV with columns movieId and overview.")
    orderings: str = setting("The raters' file.")
    encoder: str = setting("Folder of a sentence encoder.")
    encoder_batch_size: int = setting("Texts of a forward pass.", at_least=1)
    wals: WALSSettings
    related_tags: Mapping[str, tuple[str, ...]] = setting(
        "Attribute -> tags that are taken for it besides its own name."
    )
    lower_per_positive: int = setting("For the ranking CAV: films of other tags of the same user.", at_least=1)
    scores: ScoreSettings
    seed: int = setting("Of WALS and of the films drawn.", at_least=0)


def run_soft_attributes(experiment: SoftAttributesExperiment, workdir: Path) -> Path:
    """Runs what is not done yet and returns the path of report.html."""
    catalogue, loaded = read_movielens(Path(experiment.movielens), Path(experiment.texts_file))
    titles = {entity.entity_id: entity.title for entity in catalogue.entities}
    orderings, ordered = read_soft_attributes(Path(experiment.orderings), titles)
    data = gather(
        catalogue,
        orderings,
        experiment.related_tags,
        lower_per_positive=experiment.lower_per_positive,
        seed=experiment.seed,
    )
    run = Run(workdir, experiment="soft_attributes")
    embeddings = _embed(experiment, catalogue, data, run)
    with run.stage(
        "gammas",
        *run.stages,
        scores=experiment.scores,
        related_tags=experiment.related_tags,
        lower_per_positive=experiment.lower_per_positive,
        seed=experiment.seed,
        orderings=hashlib.sha256(Path(experiment.orderings).read_bytes()).hexdigest(),
        tags=hashlib.sha256(repr(catalogue.tags).encode()).hexdigest(),
    ) as gammas:
        if not gammas.is_complete():
            _score(experiment.scores, embeddings, data, gammas)
    report = SoftAttributesReport(
        **shared_fields(experiment),
        **dataclasses.asdict(experiment.scores.bootstrap),
        embeddings={name: rows.shape[1] for name, rows in embeddings.items()},
        attributes=[
            {
                "attribute": attribute,
                "num_pairs": len(pairs.rater),
                "num_named": data.num_named[attribute],
                "num_tagged": int(data.has_tag[attribute].sum()),
                "num_tag_pairs": len(data.tag_pairs[attribute].higher),
                "tags": list(experiment.related_tags.get(attribute, ())),
            }
            for attribute, pairs in data.opinions.items()
        ],
        cells=gammas.read_json("cells.json"),
        refused=gammas.read_json("refused.json"),
        facts=[f"MovieLens: {line}" for line in loaded.summary(3).splitlines()]
        + [f"Orderings: {line}" for line in ordered.summary(3).splitlines()]
        + [
            f"Films with any tag, which CAVs are fitted to: {data.num_tagged}; left out because "
            f"nobody rated them: {data.num_unrated}"
        ],
        min_positives=experiment.scores.cav.min_positives,
    )
    return write_attributes_report(workdir, report)


def _embed(
    experiment: SoftAttributesExperiment, catalogue: Catalogue, data: SoftAttributeData, run: Run
) -> dict[str, np.ndarray]:
    """The two embeddings of the films of `data`, a stage of the run each."""
    source = {"catalogue": fingerprint(catalogue), "seed": experiment.seed}
    with run.stage("wals", **source, wals=experiment.wals) as wals:
        if not wals.is_complete():
            output = fit_wals(catalogue.ratings, experiment.wals, jax.random.key(experiment.seed))
            users, items = rating_embeddings(output)
            wals.write_arrays("embeddings.npz", {"users": users, "items": items})
            write_names(wals, catalogue, range(len(items)), range(len(users)))
            wals.finish()
    encoder = load_sentence_encoder(experiment.encoder, batch_size=experiment.encoder_batch_size)
    items = hashlib.sha256(data.items.tobytes()).hexdigest()
    with run.stage("sentences", **source, encoder=encoder.name, items=items) as sentences:
        if not sentences.is_complete():
            names = catalogue.entity_format.blocks
            plots = [
                parse_blocks(catalogue.entities[item].description, names, may_be_empty=True)["PLOT"]
                for item in data.items
            ]
            sentences.write_arrays("embeddings.npz", {"items": encoder(plots)})
            write_names(sentences, catalogue, data.items, ())
            sentences.finish()
    return {
        BEHAVIORAL_SPACE: wals.read_arrays("embeddings.npz")["items"][data.items],
        SEMANTIC_SPACE: sentences.read_arrays("embeddings.npz")["items"],
    }


def _score(
    settings: ScoreSettings, embeddings: Mapping[str, np.ndarray], data: SoftAttributeData, stage: StageFolder
) -> None:
    """Writes cells.json and refused.json; an embedding that is done is kept when interrupted."""
    cells = stage.chunk(0, lambda: score_without_embedding(data, settings))
    refused = {}
    for index, (name, rows) in enumerate(embeddings.items(), start=1):
        embedding_cells, refused[name] = stage.chunk(
            index, lambda name=name, rows=rows: score_embedding(name, rows, data, settings)
        )
        cells += embedding_cells
    stage.write_json("cells.json", cells)
    stage.write_json("refused.json", refused)
    stage.finish()
