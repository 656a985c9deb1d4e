"""Where the study of kept subsets takes its problems from: made up, MiniLens, MovieLens.

Axis letters: P problems (anchors), K candidates, n = d embedding width, S users.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.settings import setting, settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.sources import CatalogueSettings, fingerprint, load_catalogue
from eagle_jax.eagle.run import run_to_candidates
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.embeddings.utility import UtilitySettings, catalogue_neighbor_limit, content_gap_utility
from eagle_jax.embeddings.wals import WALSSettings, fit_wals
from eagle_jax.stages.run import Run
from eagle_jax.studies.design_study.measures import DELTAS, EMBEDDINGS

_ROWS_AT_ONCE = 1024  # utilities are computed so many rows at a time
# The settings of an EAGLE experiment that its candidates depend on: no other makes them stale.
_UP_TO_CANDIDATES = (
    "seed",
    "prompts",
    "catalogue",
    "split",
    "models",
    "remote",
    "wals",
    "domain_encoder",
    "held_out_domain_encoder",
    "utility",
    "environment",
    "profiles",
    "candidates",
)


@settings
class SetSizes:
    """How large every set of problems is."""

    num_problems: int = setting("P anchors of each set; an interval needs two.", at_least=2)
    num_users: int = setting("S, for whom a candidate's utility is told.", at_least=1)


@settings
class SyntheticSettings:
    """Standard normal rows, and clustered ones; the anchor is the origin."""

    widths: tuple[int, ...] = setting("n.", at_least=1, distinct=True)
    num_candidates: tuple[int, ...] = setting("K.", at_least=1, distinct=True)
    num_clusters: int = setting("Standard normal centres of the clustered rows.", at_least=1)
    cluster_spread: float = setting("A row is a centre plus so many times standard normal noise.", at_least=0)


@settings
class MiniLensSetSettings:
    """An EAGLE experiment's candidates."""

    experiment: EagleExperiment
    eagle_workdir: str = setting(
        "A work directory of it (its finished stages are read, not made again), empty: a folder in the study's own."
    )
    num_candidates: tuple[int, ...] = setting("K.", at_least=1, distinct=True)


@settings
class MovieLensSettings:
    """Films in WALS embeddings; next embeddings are those of the nearest films."""

    catalogue: CatalogueSettings
    wals: WALSSettings
    utility: UtilitySettings
    widths: tuple[int, ...] = setting("wals.dim is replaced by each.", at_least=1, distinct=True)
    num_candidates: tuple[int, ...] = setting("K.", at_least=1, distinct=True)
    min_ratings: int = setting("Films with fewer are left out.", at_least=0)


class EmbeddingSet(NamedTuple):
    """P anchors with their candidates in the order in which the first K are taken."""

    name: str
    num_candidates: tuple[int, ...]
    footings: tuple[str, ...]
    anchor_embeddings: np.ndarray  # [P, d]
    next_embeddings: np.ndarray  # [P, K, d]
    gains: np.ndarray | None  # [P, S, K], U(z_a) - U(anchor)
    origin: str  # a sentence for the report


def synthetic_sets(synthetic: SyntheticSettings, sizes: SetSizes, seed: int) -> Iterator[EmbeddingSet]:
    """One set for each kind and width; the anchor is the origin, there is no utility."""
    for kind in ("isotropic", "clustered"):
        for width in synthetic.widths:
            rng = np.random.default_rng(derive_seed(seed, kind == "clustered", width))
            shape = (sizes.num_problems, max(synthetic.num_candidates), width)
            rows = rng.normal(size=shape)
            law = "standard normal"
            if kind == "clustered":
                centers = rng.normal(size=(sizes.num_problems, synthetic.num_clusters, width))
                label = rng.integers(synthetic.num_clusters, size=shape[:2])
                row_centers = np.take_along_axis(centers, label[:, :, None], axis=1)
                rows = row_centers + synthetic.cluster_spread * rows
                law = (
                    f"{synthetic.num_clusters} standard normal centres, each row one of them plus "
                    f"{synthetic.cluster_spread} times standard normal noise"
                )
            yield EmbeddingSet(
                f"{kind}, n = {width}",
                synthetic.num_candidates,
                (EMBEDDINGS,),
                np.zeros((sizes.num_problems, width)),
                rows,
                None,
                f"Made up, seeded: rows in {width} directions, {law}.",
            )


def minilens_set(chosen: MiniLensSetSettings, sizes: SetSizes, run: Run, seed: int) -> EmbeddingSet:
    """Next embeddings of an EAGLE run's candidates, each anchor's in random order."""
    read = {name: getattr(chosen.experiment, name) for name in _UP_TO_CANDIDATES}
    with run.stage(
        "minilens_rows",
        experiment=read,
        eagle_workdir=chosen.eagle_workdir,
        sizes=sizes,
        seed=seed,
        num_candidates=max(chosen.num_candidates),
    ) as stage:
        if not stage.is_complete():
            workdir = Path(chosen.eagle_workdir or run.workdir / "minilens")
            _write_minilens_rows(stage, chosen, sizes, workdir, seed)
    facts = stage.read_json("facts.json")
    arrays = stage.read_arrays("rows.npz")
    origin = (
        "Next embeddings of candidate actions, made by the stages of the experiment "
        f"“{chosen.experiment.title}”: {len(arrays['next_embeddings'])} of "
        f"{facts['num_anchors']} anchors ({facts['num_usable']} have "
        f"{max(chosen.num_candidates)} well-formed candidates)."
    )
    name = f"MiniLens, n = {arrays['next_embeddings'].shape[2]}"
    return EmbeddingSet(name, chosen.num_candidates, (EMBEDDINGS, DELTAS), **arrays, origin=origin)


def _write_minilens_rows(
    stage: StageFolder, chosen: MiniLensSetSettings, sizes: SetSizes, workdir: Path, seed: int
) -> None:
    found, scorer = run_to_candidates(chosen.experiment, workdir)
    needed = max(chosen.num_candidates)
    usable = [row for row in found if row.is_valid.sum() >= needed]
    if len(usable) < 2:
        raise UserError(
            f"{workdir}: {len(usable)} of {len(found)} anchors have {needed} well-formed "
            "candidates, two are needed: lower config.minilens.num_candidates or ask for more"
        )
    rng = np.random.default_rng(seed)
    used = usable[: sizes.num_problems]
    rows = np.stack([row.next_embeddings[rng.permutation(np.flatnonzero(row.is_valid))[:needed]] for row in used])
    anchors = np.stack([scorer.catalogue_embeddings[row.entity_index] for row in used])
    gains = _gains(
        rows,
        anchors,
        scorer.user_embeddings,
        scorer.catalogue_embeddings,
        chosen.experiment.utility,
        sizes.num_users,
        rng,
    )
    stage.write_arrays("rows.npz", {"anchor_embeddings": anchors, "next_embeddings": rows, "gains": gains})
    stage.write_json("facts.json", {"num_anchors": len(found), "num_usable": len(usable)})
    stage.finish()


def movielens_set(chosen: MovieLensSettings, sizes: SetSizes, run: Run, seed: int, width: int) -> EmbeddingSet:
    """Films' WALS embeddings: random anchors, each with its nearest films, nearest first."""
    catalogue, _ = load_catalogue(chosen.catalogue)
    with run.stage(
        f"movielens_rows_{width}",
        data=fingerprint(catalogue),
        wals=chosen.wals,
        utility=chosen.utility,
        width=width,
        min_ratings=chosen.min_ratings,
        seed=seed,
        num_candidates=max(chosen.num_candidates),
        sizes=sizes,
    ) as stage:
        if not stage.is_complete():
            _write_movielens_rows(stage, catalogue, chosen, sizes, seed, width)
    num_films = stage.read_json("facts.json")["num_films"]
    origin = (
        f"WALS embeddings of the {num_films} films of {catalogue.name} with a text and at least "
        f"{chosen.min_ratings} ratings: for each of {sizes.num_problems} random films the "
        "embeddings of its nearest films stand for next embeddings. These are not edits by a "
        "language model; without one they are the only real embeddings next to an anchor."
    )
    return EmbeddingSet(
        f"MovieLens, n = {width}",
        chosen.num_candidates,
        (EMBEDDINGS, DELTAS),
        **stage.read_arrays("rows.npz"),
        origin=origin,
    )


def _write_movielens_rows(
    stage: StageFolder, catalogue: Catalogue, chosen: MovieLensSettings, sizes: SetSizes, seed: int, width: int
) -> None:
    wals_settings = dataclasses.replace(chosen.wals, dim=width)
    wals = jax.device_get(fit_wals(catalogue.ratings, wals_settings, jax.random.key(seed)))
    counts = np.bincount(catalogue.ratings.item_index, minlength=catalogue.ratings.num_items)
    films = wals.item_embeddings[counts >= chosen.min_ratings]
    needed = max(chosen.num_candidates)
    if len(films) <= max(needed, sizes.num_problems):
        raise UserError(
            f"config.movielens: {len(films)} films have {chosen.min_ratings} ratings, more "
            f"than {max(needed, sizes.num_problems)} are needed: lower min_ratings"
        )
    rng = np.random.default_rng(seed)
    picked = rng.choice(len(films), sizes.num_problems, replace=False)
    anchors = films[picked]
    distances = np.linalg.norm(films[None] - anchors[:, None], axis=2)
    distances[np.arange(len(picked)), picked] = np.inf  # not its own neighbour
    rows = films[np.argsort(distances, axis=1, kind="stable")[:, :needed]]
    gains = _gains(rows, anchors, wals.user_embeddings, films, chosen.utility, sizes.num_users, rng)
    stage.write_arrays("rows.npz", {"anchor_embeddings": anchors, "next_embeddings": rows, "gains": gains})
    stage.write_json("facts.json", {"num_films": len(films)})
    stage.finish()


def _gains(
    rows: np.ndarray,
    anchors: np.ndarray,
    user_embeddings: np.ndarray,
    catalogue_embeddings: np.ndarray,
    utility: UtilitySettings,
    num_users: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """[P, S, K]: U(z_a) - U(anchor) for S random users of each anchor."""
    num_problems, num_candidates, width = rows.shape
    users = np.stack(
        [user_embeddings[rng.choice(len(user_embeddings), num_users, replace=False)] for _ in range(num_problems)]
    )
    points = np.concatenate([anchors[:, None], rows], axis=1)  # [P, 1 + K, d]
    shape = (num_problems, num_users, 1 + num_candidates, width)
    flat_points = np.broadcast_to(points[:, None], shape).reshape(-1, width)
    flat_users = np.broadcast_to(users[:, :, None], shape).reshape(-1, width)
    padding = ((0, -len(flat_points) % _ROWS_AT_ONCE), (0, 0))
    blocks = zip(
        np.pad(flat_points, padding).reshape(-1, _ROWS_AT_ONCE, width),
        np.pad(flat_users, padding).reshape(-1, _ROWS_AT_ONCE, width),
        strict=True,
    )
    limit = catalogue_neighbor_limit(catalogue_embeddings, utility)
    utilities = [
        content_gap_utility(block, block_users, catalogue_embeddings, utility, neighbor_limit=limit).utility
        for block, block_users in blocks
    ]
    values = np.concatenate(utilities)[: len(flat_points)].reshape(shape[:-1]).astype(np.float64)
    return values[:, :, 1:] - values[:, :, :1]
