"""ELM as EAGLE's baseline, second half: points of best utility near an anchor, and their texts.

Tennenholtz et al. 2024 (EAGLE), section 5; radius, metric and search are left open there.
Axes: N entities, P pairs of an anchor and a user, C centers of a pair, d domain width.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.elm_baseline.decoder import PointDecoder, nearest_distance
from eagle_jax.eagle.elm_baseline.settings import ElmSearchSettings, Metric
from eagle_jax.eagle.environment import Start, Step
from eagle_jax.eagle.evaluation.episodes import EpisodeRecord, Judging, evaluate_played
from eagle_jax.eagle.evaluation.table import Resampling, summarize
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.elm.model.pull_back_metric import expected_output_embedding, output_jacobian, pull_back_metrics
from eagle_jax.embeddings.nearest import find_nearest
from eagle_jax.embeddings.scorer import Scorer
from eagle_jax.embeddings.utility_search import FoundPoints, certify, search_balls
from eagle_jax.language_model.sharding import on_mesh_of
from eagle_jax.reports.statistics import BootstrapSettings

_TOLERANCE = 1e-4  # of the search's float32 in float64: utilities, and squared radii
_TIMED_RUNS = 3


@dataclasses.dataclass(frozen=True)
class PointSearch:
    """The catalogue that centers are taken from: behavioral embeddings [N, d] of all entities, of
    which `known` may be centers; `scorer` knows U."""

    embeddings: np.ndarray
    known: np.ndarray
    scorer: Scorer
    settings: ElmSearchSettings

    @property
    def unit(self) -> float:
        """What radii are multiples of: the median distance of a known entity to its nearest."""
        return nearest_distance(self.embeddings[self.known])

    def centers(self, starts: Sequence[Start]) -> np.ndarray:
        """The known entities [P, C] nearest to each anchor, by index; itself excluded."""
        anchors = np.array([start.entity_index for start in starts])
        count = min(self.settings.num_centers + 1, len(self.known))
        found, _ = find_nearest(self.embeddings[anchors], self.embeddings[self.known], count)
        near = zip(self.known[found], anchors, strict=True)
        return np.stack([known[known != anchor][: self.settings.num_centers] for known, anchor in near])

    def metrics(self, metric: Metric, centers: np.ndarray, decoder: PointDecoder, seed: int) -> np.ndarray:
        """G of each center [P, C, d, d]; the pull-back one is computed once for each entity."""
        if metric == "euclidean":
            width = self.embeddings.shape[1]
            return np.broadcast_to(np.eye(width), (*centers.shape, width, width))
        entities, places = np.unique(centers, return_inverse=True)
        points = self.embeddings[entities]
        token_ids = [generation.token_ids for generation in decoder.generate(points, seed)]
        prompts = decoder.prompts(points)
        made = pull_back_metrics(decoder.elm, prompts, token_ids, self.settings.ridge)
        return made[places.reshape(centers.shape)]

    def find(
        self, starts: Sequence[Start], centers: np.ndarray, metrics: np.ndarray, radius: float, seed: int
    ) -> FoundPoints:
        """The best points [P, d] of balls of `radius` units; UserError where float64 disagrees."""
        users = self.scorer.user_embeddings[[start.user_index for start in starts]]
        problem = (
            self.embeddings[centers],
            np.float32(metrics),
            np.float32(radius * self.unit),
            users,
            self.scorer.catalogue_embeddings,
        )
        utility, limit = self.scorer.settings, self.scorer.neighbor_limit
        searched = search_balls(*problem, jax.random.key(seed), utility, self.settings.ascent, limit)
        found = jax.device_get(searched)
        exact = certify(found, *problem, utility, limit)
        error = np.abs(exact.utilities - found.utilities).max()
        if not max(error, exact.excess.max()) < _TOLERANCE:  # NaN too
            raise UserError(
                f"radius {radius}: U in float32 is off by {error:.2g}, a point lies outside of its "
                f"ball by {exact.excess.max():.2g} of the squared radius: raise search.ridge"
            )
        return found


@dataclasses.dataclass(frozen=True)
class ElmWriter:
    """The baseline with its metric and radius: a text for each pair, without any environment."""

    search: PointSearch
    decoder: PointDecoder
    metric: Metric
    radius: float

    def __call__(self, starts: Sequence[Start], seed: int) -> list[Step]:
        """The text of the best point near each anchor; the anchor where it is malformed."""
        centers = self.search.centers(starts)
        metrics = self.search.metrics(self.metric, centers, self.decoder, derive_seed(seed, 0))
        found = self.search.find(starts, centers, metrics, self.radius, derive_seed(seed, 1))
        anchors = [start.description for start in starts]
        return self.decoder.steps(found.points, anchors, derive_seed(seed, 2))


def run_elm_search_stage(
    stage: StageFolder,
    world: EagleWorld,
    embeddings: np.ndarray,
    decoders: Mapping[int, PointDecoder],
    settings: ElmSearchSettings,
    bootstrap: BootstrapSettings,
    seed: int,
) -> dict[int, ElmWriter]:
    """Sweeps metrics and radii on validation pairs; the best by the training encoder, by seed.

    Writes sweep.json (a row for each metric and radius, over all seeds) and facts.json.
    """
    search = PointSearch(embeddings, world.split.entities["train"], world.scorer, settings)
    if not stage.is_complete():
        stage.begin()
        rng = np.random.default_rng(derive_seed(seed, 0))
        starts = world.draw_starts("validation", rng, settings.num_pairs)
        jobs = [(metric, of_seed) for metric in settings.metrics for of_seed in decoders]
        chunks = [
            stage.chunk(
                number,
                lambda metric=metric, of_seed=of_seed: _sweep(
                    search, metric, decoders[of_seed], starts, world.scorers, derive_seed(seed, 1, of_seed)
                ),
            )
            for number, (metric, of_seed) in enumerate(progress(jobs, len(jobs), stage.name, "sweep"))
        ]
        table = sweep_table(search, [metric for metric, _ in jobs], chunks, bootstrap)
        stage.write_json("sweep.json", table)
        best = max(table, key=lambda row: row["cells"]["train/utility"]["mean"])
        centers = np.unique(search.centers(starts))
        stage.write_json(
            "facts.json",
            {
                "metric": best["metric"],
                "radius": best["radius"],
                "unit": search.unit,
                "num_pairs": len(starts),
                "num_centers": len(centers),
                "num_centers_of_a_pair": settings.num_centers,
                **_cost(search.embeddings[centers], next(iter(decoders.values()))),
            },
        )
        stage.finish()
    chosen = stage.read_json("facts.json")
    return {
        of_seed: ElmWriter(search, decoder, chosen["metric"], chosen["radius"]) for of_seed, decoder in decoders.items()
    }


def _sweep(
    search: PointSearch,
    metric: Metric,
    decoder: PointDecoder,
    starts: Sequence[Start],
    scorers: Mapping[str, Scorer],
    seed: int,
) -> list[dict[str, Any]]:
    """For each radius U of the points and the records of their texts."""
    centers = search.centers(starts)
    rows = []
    metrics = search.metrics(metric, centers, decoder, derive_seed(seed, 0))
    for radius in search.settings.radii:
        found = search.find(starts, centers, metrics, radius, derive_seed(seed, 1))
        anchors = [start.description for start in starts]
        texts = decoder.steps(found.points, anchors, derive_seed(seed, 2))
        records = evaluate_played(Judging(scorers), starts, seed, [(text,) for text in texts])
        rows.append(
            {
                "radius": radius,
                "point_utilities": found.utilities.tolist(),
                "records": [record.to_json() for record in records],
            }
        )
    return rows


def sweep_table(
    search: PointSearch,
    metrics: Sequence[Metric],
    chunks: Sequence[Sequence[Mapping[str, Any]]],
    bootstrap: BootstrapSettings,
) -> list[dict[str, Any]]:
    """Rows as of `summarize`, with metric, radius, its length and U of the points themselves;
    the chunk i holds what was swept under metrics[i] with one of the decoders."""
    records: dict[tuple[Metric, float], list[EpisodeRecord]] = {}
    promised: dict[tuple[Metric, float], list[float]] = {}
    for metric, chunk in zip(metrics, chunks, strict=True):
        for row in chunk:
            key = metric, row["radius"]
            records.setdefault(key, []).extend(map(EpisodeRecord.from_json, row["records"]))
            promised.setdefault(key, []).extend(row["point_utilities"])
    table = summarize({f"{m}, {r:g}": swept for (m, r), swept in records.items()}, Resampling(bootstrap))
    return [
        row
        | {
            "metric": metric,
            "radius": radius,
            "length": radius * search.unit,
            "point_utility": float(np.mean(promised[metric, radius])),
        }
        for row, (metric, radius) in zip(table, records, strict=True)
    ]


def _cost(points: np.ndarray, decoder: PointDecoder) -> dict[str, float]:
    """Seconds of one Jacobian, and of one forward pass, in a batch of the first centers."""
    points = points[: decoder.elm.batch_size]
    token_ids = [generation.token_ids for generation in decoder.generate(points, seed=0)]
    elm = decoder.elm
    batch = elm.encode(decoder.prompts(points), token_ids)
    forward = jax.jit(expected_output_embedding, static_argnums=0)
    seconds = []
    with on_mesh_of(elm.model.params):
        for function in (output_jacobian, forward):
            times = []
            for _ in range(1 + _TIMED_RUNS):  # the first one compiles
                started = time.monotonic()
                jax.block_until_ready(function(elm.model.config, elm.model.params, batch))
                times.append(time.monotonic() - started)
            seconds.append(min(times[1:]))
    return {"seconds_per_jacobian": seconds[0] / len(points), "forward_passes_per_jacobian": seconds[0] / seconds[1]}
