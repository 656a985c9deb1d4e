"""Stage 3: user profiles as text, and whether they say who the user is.

Axis letters: `U` users, `d` domain width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from scipy.spatial import KDTree

from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue, RatingTable
from eagle_jax.data.prompts import PromptBook
from eagle_jax.data.splits import Split
from eagle_jax.eagle.settings import ProfileSettings
from eagle_jax.eagle.user_profiles import write_profiles
from eagle_jax.embeddings.domain_encoder import FeaturesFn, compute_features
from eagle_jax.embeddings.regression_head import DomainEncoderSettings, apply_regression_head, fit_head
from eagle_jax.language_model.generation import TextGenerator
from eagle_jax.reports.markdown import fact


def rated_titles(
    catalogue: Catalogue, ratings: RatingTable, user: int, titles_per_side: int
) -> tuple[list[str], list[str]]:
    """Titles a user rated highest (best first) and lowest (worst last); no title on both sides."""
    rated = np.flatnonzero(ratings.user_index == user)
    order = rated[np.argsort(-ratings.rating[rated], kind="stable")]
    count = min(titles_per_side, len(order) // 2)
    titles = [catalogue.entities[item].title for item in ratings.item_index[order]]
    return titles[:count], titles[len(titles) - count :]


def run_profile_stage(
    stage: StageFolder,
    catalogue: Catalogue,
    split: Split,
    generator: TextGenerator,
    book: PromptBook,
    settings: ProfileSettings,
    features_fn: FeaturesFn,
    user_embeddings: np.ndarray,
    check: DomainEncoderSettings,
    seed: int,
) -> dict[int, str]:
    """Profiles of all users of the split, by user index; writes profiles.jsonl and facts.json."""
    if not stage.is_complete():
        users = np.concatenate([split.users[part] for part in sorted(split.users)]).tolist()
        titles = [rated_titles(catalogue, split.train, user, settings.titles_per_side) for user in users]
        profiles, malformed = write_profiles(
            generator,
            book,
            [liked for liked, _ in titles],
            [disliked for _, disliked in titles],
            settings.sampling,
            seed,
            settings.max_tries,
        )
        by_user = dict(zip(users, profiles, strict=True))
        rows = ({"user_index": user, **catalogue.user_names(user), "profile": text} for user, text in by_user.items())
        stage.write_jsonl("profiles.jsonl", rows)
        facts = check_profiles(by_user, split, features_fn, user_embeddings, check, seed)
        stage.write_json("facts.json", facts | {"malformed": dict(malformed)})
        stage.finish()
    return {row["user_index"]: row["profile"] for row in stage.read_jsonl("profiles.jsonl")}


def check_profiles(
    profiles: dict[int, str],
    split: Split,
    features_fn: FeaturesFn,
    user_embeddings: np.ndarray,
    settings: DomainEncoderSettings,
    seed: int,
) -> dict[str, Any]:
    """Profile -> user embedding, fitted on training users: the held-out L2 error has to be below
    the mean distance between nearest users (EAGLE, appendix: the check of the text profiles)."""
    known = split.users["train"]
    held_out = np.concatenate([split.users["validation"], split.users["test"]])
    # The profile check is a linear probe: few users, so the smallest head.
    probe = dataclasses.replace(settings, head="ridge")
    features = compute_features(features_fn, [profiles[user] for user in known])
    fit = fit_head(features, user_embeddings[known], np.ones(len(known), np.float32), probe, jax.random.key(seed))
    held_out_features = compute_features(features_fn, [profiles[user] for user in held_out])
    predicted = np.asarray(apply_regression_head(fit.head, held_out_features))
    errors = np.linalg.norm(predicted - user_embeddings[held_out], axis=1)
    mean = user_embeddings[known].mean(axis=0)
    distances, _ = KDTree(user_embeddings).query(user_embeddings, k=2)  # the first is oneself
    return {
        "held_out_error": float(errors.mean()),
        "error_of_the_mean": float(np.linalg.norm(user_embeddings[held_out] - mean, axis=1).mean()),
        "nearest_neighbor_distance": float(distances[:, 1].mean()),
        "passed": bool(errors.mean() < distances[:, 1].mean()),
    }


def profile_facts(stage: StageFolder) -> list[dict[str, Any]]:
    """What the finished stage says of itself."""
    facts = stage.read_json("facts.json")
    return [
        fact(
            "profile to user embedding, held-out error",
            facts["held_out_error"],
            "L2; has to be below the next number for profiles to say who the user is: "
            + ("it is" if facts["passed"] else "it is not"),
        ),
        fact("distance of nearest users", facts["nearest_neighbor_distance"], "mean, L2"),
        fact("error of the mean user", facts["error_of_the_mean"], "L2; knowing nothing"),
        fact("malformed profiles", sum(facts["malformed"].values()), "asked for again"),
    ]
