"""Stage 2: E_D, the training encoder and an independent one, and the utility under each.

Axis letters: `B` texts, `N` entities, `U` users, `d` domain width.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.splits import Split
from eagle_jax.eagle.reliability import fit_halves
from eagle_jax.eagle.settings import UserSpaceSettings
from eagle_jax.eagle.user_space import UserSpace, fitted_to_texts
from eagle_jax.embeddings.domain_encoder import DomainEncoder, FeaturesFn, compute_features, encoder_quality
from eagle_jax.embeddings.regression_head import DomainEncoderSettings, fit_head
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN, Scorer
from eagle_jax.embeddings.utility import UtilitySettings
from eagle_jax.embeddings.wals import WALSOutput
from eagle_jax.reports.markdown import fact


def run_encoder_stage(
    stage: StageFolder,
    catalogue: Catalogue,
    split: Split,
    space: UserSpace,
    features: dict[str, FeaturesFn],
    settings: dict[str, DomainEncoderSettings],
    utility: UtilitySettings,
    user_space: UserSpaceSettings,
    seed: int,
) -> tuple[dict[str, Scorer], UserSpace]:
    """Fits both encoders on the texts that are not held-out anchors; {TRAIN, HELD_OUT} scorers, and
    the space with the users as `user_space` wants them.

    Writes <name>.npz, catalogue_<name>.npz, facts.json, with users "texts" users.npz, and where they
    are asked for the encoders of halves.
    """
    wals = space.wals
    if not stage.is_complete():
        facts = {}
        for index, name in enumerate((TRAIN, HELD_OUT)):
            key = jax.random.key(derive_seed(seed, index))
            fitted = _fit(catalogue, split, wals, features[name], settings[name], key)
            encoder, embeddings, facts[name] = fitted
            stage.write_arrays(f"{name}.npz", encoder.to_arrays())
            stage.write_arrays(f"catalogue_{name}.npz", {"embeddings": embeddings})
        if user_space.halves:
            facts["reliability"] = fit_halves(
                stage, catalogue, split, space, features[TRAIN], settings[TRAIN], user_space, seed
            )
        stage.write_json("facts.json", facts)
    catalogues = {name: stage.read_arrays(f"catalogue_{name}.npz")["embeddings"] for name in (TRAIN, HELD_OUT)}
    if user_space.users == "texts":
        # Those of the encoder that rewards, under the other one too: what differs is who reads the texts.
        space = fitted_to_texts(stage, space, split.train, catalogues[TRAIN])
    if not stage.is_complete():
        stage.finish()
    scorers = {
        name: Scorer(
            DomainEncoder.from_arrays(stage.read_arrays(f"{name}.npz"), features[name]),
            np.asarray(space.wals.user_embeddings),
            embeddings,
            utility,
        )
        for name, embeddings in catalogues.items()
    }
    return scorers, space


def _fit(
    catalogue: Catalogue,
    split: Split,
    wals: WALSOutput,
    features_fn: FeaturesFn,
    settings: DomainEncoderSettings,
    key: jax.Array,
) -> tuple[DomainEncoder, np.ndarray, dict[str, Any]]:
    texts = catalogue.descriptions
    targets = np.asarray(wals.item_embeddings)
    counts = np.bincount(split.train.item_index, minlength=len(texts)).astype(np.float32)
    held_out = np.concatenate([split.entities["validation"], split.entities["test"]])
    known = np.setdiff1d(np.flatnonzero(counts > 0), held_out)
    features = compute_features(features_fn, texts)  # once, for fitting and for D
    fit = fit_head(features[known], targets[known], counts[known], settings, key)
    encoder = DomainEncoder(features_fn, fit)
    embeddings = encoder.embed_features(features)
    users = np.asarray(wals.user_embeddings)
    quality = {
        part: encoder_quality(embeddings[rows], targets[rows], users)._asdict()
        for part, rows in (("known", known), ("held_out", split.entities["test"]))
    }
    return encoder, embeddings, quality | {"num_known_texts": len(known)}


def encoder_facts(stage: StageFolder) -> list[dict[str, Any]]:
    """What the finished stage says of itself."""
    facts = stage.read_json("facts.json")
    told = (
        ("relative_error", "relative error", "||E_D(text) - z|| / ||z|| on anchors that it was not fitted to"),
        ("r_squared", "R squared", "share of variance explained there"),
        ("rank_correlation", "rank correlation", "Spearman of <z_u, E_D(text)> with <z_u, z>, mean over users"),
    )
    return [
        fact(f"{title}: {name}", facts[encoder]["held_out"][key], meaning)
        for encoder, title in ((TRAIN, "training encoder"), (HELD_OUT, "held-out encoder"))
        for key, name, meaning in told
    ]
