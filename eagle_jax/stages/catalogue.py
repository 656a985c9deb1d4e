"""Stage 1: the catalogue, what of it is held out, and behavioural embeddings from ratings.

Axis letters: `N` entities, `U` users.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.catalogue_report import RANKED_RATINGS
from eagle_jax.data.splits import Split
from eagle_jax.embeddings.rank_correlation import within_user_spearman
from eagle_jax.embeddings.wals import WALSOutput, WALSSettings, fit_wals, predict_ratings
from eagle_jax.language_model.sharding import MeshSettings, make_mesh
from eagle_jax.reports.markdown import fact, facts_of


def run_catalogue_stage(
    stage: StageFolder,
    catalogue: Catalogue,
    load_report: Mapping[str, Any],
    split: Split,
    settings: WALSSettings,
    seed: int,
    mesh: MeshSettings | None = None,
) -> WALSOutput:
    """WALS on the training ratings; writes wals.npz, facts.json, load_report.json, and whose the rows
    of arrays are: items.jsonl and users.jsonl.

    Without a mesh it runs on one device. Raises UserError for implicit feedback without a weight of what users did
    not do: it has no other side.
    """
    if catalogue.is_implicit and settings.unobserved_weight == 0:
        raise UserError("config.wals.unobserved_weight is 0, and the feedback is implicit: it has to be above 0")
    if not stage.is_complete():
        devices = None if mesh is None else make_mesh(mesh)
        output = fit_wals(split.train, settings, jax.random.key(seed), devices)
        # Without embeddings what is left is the regularised global-plus-bias baseline.
        biases = dataclasses.replace(settings, dim=0, bias="user_item")
        baseline = fit_wals(split.train, biases, jax.random.key(seed), devices)
        stage.write_arrays("wals.npz", output._asdict())
        stage.write_json("facts.json", wals_facts(catalogue, split, output, baseline))
        stage.write_json("load_report.json", load_report)
        write_names(stage, catalogue, range(len(catalogue.entities)), range(split.train.num_users))
        stage.finish()
    return WALSOutput(**stage.read_arrays("wals.npz"))


def write_names(stage: StageFolder, catalogue: Catalogue, items: Iterable[int], users: Iterable[int]) -> None:
    """Whose the rows of a stage's arrays are: items.jsonl and, where there are any, users.jsonl."""
    stage.write_jsonl("items.jsonl", ({"item_index": int(item)} | catalogue.item_names(item) for item in items))
    if users := list(users):
        stage.write_jsonl("users.jsonl", ({"user_index": user} | catalogue.user_names(user) for user in users))


def wals_facts(catalogue: Catalogue, split: Split, output: WALSOutput, baseline: WALSOutput) -> dict[str, Any]:
    """Held-out RMSE beside the bias baseline's, rank correlation within users, sizes.

    What cannot be computed is None, and `absent` says why.
    """
    test = split.test
    absent = {}
    scale = split.train.rating.min(), split.train.rating.max()
    predicted, by_bias = (
        np.clip(np.asarray(predict_ratings(fit, test.user_index, test.item_index)), *scale)
        for fit in (output, baseline)
    )
    try:
        correlation, num_users = within_user_spearman(
            test.user_index, predicted, test.rating, min_ratings=RANKED_RATINGS
        )
    except ValueError as error:
        correlation, num_users = None, 0
        absent["rank_correlation_within_users"] = f"of the held-out ratings: {error}"
    if not len(test):
        absent |= dict.fromkeys(("held_out_rmse", "baseline_rmse"), "no rating is held out")
    objective = np.asarray(output.objective)
    return {
        "num_entities": len(catalogue.entities),
        "num_users": split.train.num_users,
        "num_training_ratings": len(split.train),
        "num_held_out_ratings": len(test),
        "held_out_rmse": _rmse(predicted, test.rating),
        "baseline_rmse": _rmse(by_bias, test.rating),
        "rank_correlation_within_users": correlation,
        "num_users_ranked": num_users,
        "objective_first": float(objective[0]),
        "objective_last": float(objective[-1]),
        **({"absent": absent} if absent else {}),
    }


def _rmse(predicted: np.ndarray, rating: np.ndarray) -> float | None:
    return float(np.sqrt(np.mean((predicted - rating) ** 2))) if len(rating) else None


def catalogue_facts(stage: StageFolder) -> list[dict[str, Any]]:
    """What the finished stage says of itself."""
    meanings = {
        "num_entities": "entities of the catalogue",
        "num_users": "users",
        "num_training_ratings": "ratings that the embeddings were fitted to",
        "num_held_out_ratings": "ratings they were not",
        "held_out_rmse": "root mean squared error on the held-out ratings, in their unit",
        "baseline_rmse": "the same of mean plus user and item bias alone",
        "rank_correlation_within_users": "Spearman, predicted and held-out ratings of a user",
        "num_users_ranked": "users with at least five held-out ratings that are not all equal",
        "objective_first": "WALS objective at the start",
        "objective_last": "and at the end; it never rises",
    }
    facts = stage.read_json("facts.json")
    absent = {name: f"{meanings[name]}; absent: {why}" for name, why in facts.get("absent", {}).items()}
    rows = facts_of(facts, meanings | absent)
    loaded = stage.read_json("load_report.json")
    if "bad_rows" in loaded:
        num_bad_rows = loaded.get("num_bad_rows", len(loaded["bad_rows"]))
        rows.append(fact("bad rows", num_bad_rows, "rows of the input files that were left out"))
    return rows
