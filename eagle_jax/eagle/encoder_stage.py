"""Stage 2: E_D, the training encoder and those that it is checked by, and the utility under each.

Axis letters: `B` texts, `N` entities, `U` users, `d` domain width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue, RatingTable
from eagle_jax.data.splits import Split
from eagle_jax.eagle.reliability import fit_halves
from eagle_jax.eagle.settings import UserSpaceSettings
from eagle_jax.eagle.user_space import UserSpace, fitted_to_texts, known_items
from eagle_jax.embeddings.domain_encoder import DomainEncoder, FeaturesFn, compute_features, encoder_quality
from eagle_jax.embeddings.regression_head import DomainEncoderSettings, HeadFit, fit_head
from eagle_jax.embeddings.reliability import HalfSettings, fit_half
from eagle_jax.embeddings.scorer import HELD_OUT, INDEPENDENT, TRAIN, Scorer
from eagle_jax.embeddings.utility import UtilitySettings
from eagle_jax.embeddings.wals import WALSOutput
from eagle_jax.reports.markdown import fact

_TEXTS = 4096  # between two steps of the progress; fewer are embedded at once, those of like length together


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
    apart: RatingTable | None = None,
) -> tuple[dict[str, Scorer], UserSpace]:
    """Fits the encoders on the texts that are not held-out anchors; {TRAIN, HELD_OUT} scorers, and
    the space with the users as `user_space` wants them.

    apart: ratings that the split is without; then there is an INDEPENDENT scorer as well, of these
    alone. Writes <name>.npz, catalogue_<name>.npz, facts.json, with users "texts" users.npz, and where
    they are asked for the encoders of halves.
    """
    wals = space.wals
    if not stage.is_complete():
        facts = {}
        of_texts = {}  # once, for all that is fitted to them, and for D
        for index, name in enumerate((TRAIN, HELD_OUT)):
            key = jax.random.key(derive_seed(seed, index))
            of_texts[name] = _features(features[name], catalogue.descriptions)
            fit = _fit(split, wals, of_texts[name], settings[name], key)
            encoder = DomainEncoder(features[name], fit)
            embeddings = encoder.embed_features(of_texts[name])
            facts[name] = _quality(split, wals, embeddings)
            _write(stage, name, encoder.to_arrays(), embeddings)
        own = HalfSettings(space.wals_settings, settings[TRAIN], user_space.item_bias, user_space.users == "texts")
        if user_space.halves:
            facts["reliability"] = fit_halves(stage, split, of_texts[TRAIN], own, seed)
        if apart is not None:
            judge = fit_half(apart, of_texts[TRAIN], own, derive_seed(seed, 4))
            embeddings = DomainEncoder(features[TRAIN], judge.fit).embed_features(of_texts[TRAIN])
            _write(stage, INDEPENDENT, judge.to_arrays(), embeddings)
        stage.write_json("facts.json", facts)
    if user_space.users == "texts":
        # Those of the encoder that rewards, under the other one too: what differs is who reads the texts.
        embeddings = stage.read_arrays(f"catalogue_{TRAIN}.npz")["embeddings"]
        space = fitted_to_texts(stage, space, split.train, embeddings)
    if not stage.is_complete():
        stage.finish()

    def scorer(name: str, features_fn: FeaturesFn, users: np.ndarray) -> Scorer:
        embeddings = stage.read_arrays(f"catalogue_{name}.npz")["embeddings"]
        encoder = DomainEncoder.from_arrays(stage.read_arrays(f"{name}.npz"), features_fn)
        return Scorer(encoder, users, embeddings, utility)

    users = np.asarray(space.wals.user_embeddings)
    scorers = {name: scorer(name, features[name], users) for name in (TRAIN, HELD_OUT)}
    if apart is not None:
        of_judge = stage.read_arrays(f"{INDEPENDENT}.npz")["user_embeddings"]
        scorers[INDEPENDENT] = scorer(INDEPENDENT, features[TRAIN], of_judge)
    return scorers, space


def _features(features_fn: FeaturesFn, texts: Sequence[str]) -> np.ndarray:
    """[N, F], with its progress."""
    starts = range(0, len(texts), _TEXTS)
    shown = progress(starts, len(starts), "features of texts", "chunk") if len(starts) > 1 else starts
    return np.concatenate([compute_features(features_fn, texts[start : start + _TEXTS]) for start in shown])


def _write(stage: StageFolder, name: str, encoder: Mapping[str, np.ndarray], embeddings: np.ndarray) -> None:
    stage.write_arrays(f"{name}.npz", encoder)
    stage.write_arrays(f"catalogue_{name}.npz", {"embeddings": embeddings})


def _fit(
    split: Split, wals: WALSOutput, features: np.ndarray, settings: DomainEncoderSettings, key: jax.Array
) -> HeadFit:
    """To the known texts; each counts as often as it was rated."""
    targets, known = np.asarray(wals.item_embeddings), known_items(split)
    counts = np.bincount(split.train.item_index, minlength=len(features)).astype(np.float32)
    return fit_head(features[known], targets[known], counts[known], settings, key)


def _quality(split: Split, wals: WALSOutput, embeddings: np.ndarray) -> dict[str, Any]:
    """Of E_D of all texts [N, d], by part."""
    targets, users = np.asarray(wals.item_embeddings), np.asarray(wals.user_embeddings)
    known = known_items(split)
    quality = {
        part: encoder_quality(embeddings[rows], targets[rows], users)._asdict()
        for part, rows in (("known", known), ("held_out", split.entities["test"]))
    }
    return quality | {"num_known_texts": len(known)}


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
