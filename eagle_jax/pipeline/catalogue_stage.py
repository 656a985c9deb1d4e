"""Stage 1: the catalogue, what of it is held out, and behavioural embeddings from ratings.

Axis letters: `N` entities, `U` users.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.types import Catalogue, RatingTable
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.minilens.world import make_catalogue
from eagle_jax.data.movielens import read_movielens
from eagle_jax.data.ratings import split_ratings
from eagle_jax.embeddings.rank_correlation import within_user_spearman
from eagle_jax.embeddings.wals import WALSOutput, WALSSettings, fit_wals, predict_ratings
from eagle_jax.pipeline.settings import CatalogueSettings, SplitSettings


def load_catalogue(settings: CatalogueSettings) -> tuple[Catalogue, dict[str, Any]]:
    """The catalogue and what its loading found (bad rows among it), JSON-able."""
    chosen = getattr(settings, settings.source)
    if chosen is None:
        raise UserError(f"config.catalogue.{settings.source}: needed by source {settings.source!r}")
    if settings.source == "minilens":
        return make_catalogue(settings.minilens), {}
    catalogue, report = read_movielens(
        Path(settings.movielens.folder), Path(settings.movielens.texts_file)
    )
    return catalogue, dataclasses.asdict(report)


def fingerprint(catalogue: Catalogue) -> str:
    """Changes when any text or rating does: artifacts of other data are then refused."""
    digest = hashlib.sha256()
    for entity in catalogue.entities:
        digest.update(f"{entity.entity_id}\0{entity.title}\0{entity.description}\0".encode())
    ratings = catalogue.ratings
    for array in (ratings.user_index, ratings.item_index, ratings.rating):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Split:
    """Indices of training, validation and test anchors and users, and the two rating tables."""

    train: RatingTable
    test: RatingTable
    entities: Mapping[str, np.ndarray]
    users: Mapping[str, np.ndarray]


PARTS = ("train", "validation", "test")


def split_catalogue(catalogue: Catalogue, settings: SplitSettings) -> Split:
    """Seeded; ratings are split within users, anchors and users are split apart.

    Raises `UserError` when a part would be empty.
    """
    ratings = split_ratings(
        catalogue.ratings, held_out_fraction=settings.rating_fraction, seed=settings.seed
    )
    rng = np.random.default_rng(settings.seed)
    table = ratings.train
    entity_counts = np.bincount(table.item_index, minlength=table.num_items)
    user_counts = np.bincount(table.user_index, minlength=table.num_users)
    entities = np.flatnonzero(entity_counts >= settings.min_anchor_ratings)
    users = np.flatnonzero(user_counts >= settings.min_user_ratings)
    return Split(
        ratings.train,
        ratings.test,
        _parts(entities, "entities", settings, rng),
        _parts(users, "users", settings, rng),
    )


def _parts(
    indices: np.ndarray, what: str, settings: SplitSettings, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    order = rng.permutation(indices)
    num_validation = int(round(settings.validation_fraction * len(order)))
    num_test = int(round(settings.test_fraction * len(order)))
    parts = np.split(order, [len(order) - num_validation - num_test, len(order) - num_test])
    for name, part in zip(PARTS, parts, strict=True):
        if not len(part):
            raise UserError(
                f"config.split: no {name} {what} left of {len(indices)} with enough ratings; "
                "lower min_anchor_ratings, min_user_ratings or raise the fractions"
            )
    return {name: np.sort(part) for name, part in zip(PARTS, parts, strict=True)}


def run_catalogue_stage(
    stage: StageFolder,
    catalogue: Catalogue,
    load_report: Mapping[str, Any],
    split: Split,
    settings: WALSSettings,
    seed: int,
) -> WALSOutput:
    """WALS on the training ratings; writes wals.npz, facts.json, load_report.json."""
    if not stage.is_complete():
        output = fit_wals(split.train, settings, jax.random.key(seed))
        # Without embeddings what is left is the regularised global-plus-bias baseline.
        biases = dataclasses.replace(settings, dim=0, bias="user_item")
        baseline = fit_wals(split.train, biases, jax.random.key(seed))
        stage.write_arrays("wals.npz", output._asdict())
        stage.write_json("facts.json", wals_facts(catalogue, split, output, baseline))
        stage.write_json("load_report.json", load_report)
        stage.finish()
    return WALSOutput(**stage.read_arrays("wals.npz"))


def wals_facts(
    catalogue: Catalogue, split: Split, output: WALSOutput, baseline: WALSOutput
) -> dict[str, Any]:
    """Held-out RMSE beside the bias baseline's, rank correlation within users, sizes."""
    test = split.test
    scale = split.train.rating.min(), split.train.rating.max()
    predicted, by_bias = (
        np.clip(np.asarray(predict_ratings(fit, test.user_index, test.item_index)), *scale)
        for fit in (output, baseline)
    )
    correlation, num_users = within_user_spearman(
        test.user_index, predicted, test.rating, min_ratings=5
    )
    objective = np.asarray(output.objective)
    return {
        "num_entities": len(catalogue.entities),
        "num_users": split.train.num_users,
        "num_training_ratings": len(split.train),
        "num_held_out_ratings": len(test),
        "held_out_rmse": float(np.sqrt(np.mean((predicted - test.rating) ** 2))),
        "baseline_rmse": float(np.sqrt(np.mean((by_bias - test.rating) ** 2))),
        "rank_correlation_within_users": correlation,
        "num_users_ranked": num_users,
        "objective_first": float(objective[0]),
        "objective_last": float(objective[-1]),
    }
