"""Stage 3: user profiles as text, and whether they say who the user is.

Axis letters: `U` users, `d` domain width.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from scipy.spatial import KDTree

from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue, RatingTable
from eagle_jax.data.prompts import PromptBook, profile_prompt
from eagle_jax.data.splits import Split
from eagle_jax.eagle.roles.data_profiles import DataProfileSettings, check_fields, data_profile
from eagle_jax.eagle.roles.profile_groups import ProfileGroupSettings, group_users, pooled_ratings
from eagle_jax.eagle.settings import ProfileSettings
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.embeddings.domain_encoder import FeaturesFn, compute_features
from eagle_jax.embeddings.regression_head import DomainEncoderSettings, apply_regression_head, fit_head
from eagle_jax.language_model.generation import TextGenerator, write_block
from eagle_jax.reports.markdown import fact

User = TypeVar("User")  # an index or an id


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
    world: EagleWorld,
    generator: TextGenerator,
    features_fn: FeaturesFn,
    settings: ProfileSettings,
    check: DomainEncoderSettings,
    seed: int,
    data_profiles: DataProfileSettings | None = None,
    groups: ProfileGroupSettings | None = None,
) -> dict[int, str]:
    """Profiles of all users of the split, by user index; writes profiles.jsonl and facts.json.

    The generator writes them, or `data_profiles` says what they tell of the ratings; of `groups`, all their users have
    the same one.
    """
    if not stage.is_complete():
        split = world.split
        users = np.concatenate([split.users[part] for part in sorted(split.users)])
        ratings, told_of, group = split.train, users, np.arange(len(users))
        if groups is not None:
            group = group_users(world.scorer.user_embeddings[users], groups.min_users)
            told_of = np.arange(group.max() + 1)
            ratings = pooled_ratings(ratings, [users[group == number] for number in told_of])
        if data_profiles is None:
            per_side = settings.titles_per_side
            titles = {of: rated_titles(world.catalogue, ratings, of, per_side) for of in told_of.tolist()}
            written, malformed = write_profiles(generator, world.book, titles, settings, seed)
            texts = list(written.values())
        else:
            check_fields(world.catalogue, data_profiles)
            texts = [data_profile(world.catalogue, ratings, of, data_profiles) for of in told_of.tolist()]
            malformed = Counter()
        profiles = {user: texts[of] for user, of in zip(users.tolist(), group.tolist(), strict=True)}
        rows = (
            {"user_index": user, **world.catalogue.user_names(user), "profile": text} for user, text in profiles.items()
        )
        stage.write_jsonl("profiles.jsonl", rows)
        facts = check_profiles(profiles, split, features_fn, world.scorer.user_embeddings, check, seed)
        facts |= {"malformed": malformed}
        if groups is not None:
            facts["groups"] = len(told_of)
        stage.write_json("facts.json", facts)
        stage.finish()
    return {row["user_index"]: row["profile"] for row in stage.read_jsonl("profiles.jsonl")}


def write_profiles(
    generator: TextGenerator,
    book: PromptBook,
    titles: Mapping[User, tuple[Sequence[str], Sequence[str]]],
    settings: ProfileSettings,
    seed: int,
) -> tuple[dict[User, str], Counter[str]]:
    """The profile of each user, from titles rated high and low, and how many outputs were malformed,
    by reason.

    Raises `UserError` that names the users who have none after `max_tries`.
    """
    prompts = [profile_prompt(book, *of_user) for of_user in titles.values()]
    texts, malformed = write_block(generator, prompts, "USER_PROFILE", settings.sampling, seed, settings.max_tries)
    missing = [f"{user} ({malformed[row][-1]})" for row, user in enumerate(titles) if texts[row] is None]
    if missing:
        raise UserError(
            f"no profile after {settings.max_tries} tries for {len(missing)} of {len(titles)} users: "
            f"{', '.join(missing[:10])}; give the model more new tokens, more tries, or another prompt book"
        )
    return dict(zip(titles, texts, strict=True)), Counter(reason for reasons in malformed for reason in reasons)


def read_off_profiles(
    profiles: Mapping[int, str],
    split: Split,
    features_fn: FeaturesFn,
    user_embeddings: np.ndarray,
    settings: DomainEncoderSettings,
    seed: int,
) -> np.ndarray:
    """z_u of validation and test users as a probe that was fitted to training users reads it off their profiles; of all
    others as it is [U, d]."""
    known, held_out = split.users["train"], _held_out(split)
    # A linear probe: few users, so the smallest head.
    probe = dataclasses.replace(settings, head="ridge")
    features = compute_features(features_fn, [profiles[user] for user in known])
    fit = fit_head(features, user_embeddings[known], np.ones(len(known), np.float32), probe, jax.random.key(seed))
    found = np.array(user_embeddings)
    features = compute_features(features_fn, [profiles[user] for user in held_out])
    found[held_out] = np.asarray(apply_regression_head(fit.head, features))
    return found


def _held_out(split: Split) -> np.ndarray:
    return np.concatenate([split.users["validation"], split.users["test"]])


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
    known, held_out = split.users["train"], _held_out(split)
    predicted = read_off_profiles(profiles, split, features_fn, user_embeddings, settings, seed)[held_out]
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
        *([fact("groups", facts["groups"], "of users that have one profile")] if "groups" in facts else []),
    ]
