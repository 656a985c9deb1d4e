"""From scored outputs to means with intervals, to comparisons on the same rows, and to curves.

The unit of resampling is the item (of a pair: the first) or the user that an output is about: its
outputs for several tasks and seeds are one cluster. All results are plain values for JSON.

Axis letters: A positions of a curve, B outputs, N candidates, d width.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.elm.evaluation.consistency import EmbedFn, cosine_consistency, embed_outputs, is_readable
from eagle_jax.reports.statistics import BootstrapSettings, bootstrap_interval, paired_difference, separated


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyRecord:
    """One output. system: who wrote it, an ELM or a baseline; task: of `data.tasks`.

    entities: the items, or the user, that it is about; entities[0] is the unit of resampling.
    scores: measure -> value, for instance "sc", "bc/ndcg", "bc/spearman"; malformed: why the
    output could not be read (its scores are the worst values then), else None.
    """

    system: str
    task: str
    entities: tuple[int, ...]
    seed: int
    scores: Mapping[str, float]
    malformed: str | None


def summarize_consistency(
    records: Sequence[ConsistencyRecord], groups: Mapping[str, Sequence[str]], settings: BootstrapSettings
) -> list[dict[str, Any]]:
    """A row for each group of tasks and system that has outputs there, every output weighing 1.

    groups: name -> tasks; a task alone is a group of one. Items and users do not belong in one
    group: their numbers would share clusters. A row is {"group", "system", "num_outputs",
    "num_entities", "num_seeds", "malformed": reason -> count, "cells": measure -> {"mean", "low",
    "high"}}. Raises ValueError where outputs of one row have different measures or a nan.
    """
    rows = []
    for group, tasks in groups.items():
        by_system = defaultdict(list)
        for record in records:
            if record.task in tasks:
                by_system[record.system].append(record)
        for system, outputs in by_system.items():
            clusters = [record.entities[0] for record in outputs]
            reasons = Counter(r.malformed for r in outputs if r.malformed is not None)
            cells = {
                measure: bootstrap_interval(values, settings, clusters=clusters).as_cell()
                for measure, values in _columns(outputs, f"{group}, {system}").items()
            }
            rows.append(
                {
                    "group": group,
                    "system": system,
                    "num_outputs": len(outputs),
                    "num_entities": len(set(clusters)),
                    "num_seeds": len({record.seed for record in outputs}),
                    "malformed": dict(reasons),
                    "cells": cells,
                }
            )
    return rows


def compare_consistency(
    records: Sequence[ConsistencyRecord],
    group: str,
    tasks: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    settings: BootstrapSettings,
) -> list[dict[str, Any]]:
    """For each (system, baseline) and measure: is the system higher on a group's tasks, are they apart?

    Seeds are averaged within (task, entities), so that a baseline that draws nothing needs one
    seed. `difference` is paired by (task, entities); `separated` is stricter, the system's interval
    lies above the baseline's. Raises ValueError for systems that did not answer the same rows.
    """
    comparisons = []
    for names in pairs:
        means = [_row_means(records, name, tasks, group) for name in names]
        if means[0].keys() != means[1].keys():
            raise ValueError(f"{group}: {names[0]!r} and {names[1]!r} answered other rows")
        keys = sorted(means[0])
        measures = [list(row_means[keys[0]]) for row_means in means]
        if set(measures[0]) != set(measures[1]):
            raise ValueError(f"{group}: {names[0]!r}, {names[1]!r} have measures {measures}")
        clusters = [entities[0] for _, entities in keys]
        for measure in measures[0]:
            values = [[row_means[key][measure] for key in keys] for row_means in means]
            ours, theirs = (bootstrap_interval(value, settings, clusters=clusters) for value in values)
            comparisons.append(
                {
                    "group": group,
                    "system": names[0],
                    "baseline": names[1],
                    "measure": measure,
                    "system_mean": ours.as_cell(),
                    "baseline_mean": theirs.as_cell(),
                    "difference": paired_difference(*values, settings, clusters=clusters).as_cell(),
                    "separated": separated(ours, theirs),
                }
            )
    return comparisons


def semantic_path(
    embed: EmbedFn, texts: Sequence[Sequence[str | None]], targets: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """SC of what was decoded along a path, against its points and its ends: name -> [A, B].

    Args:
      texts: for each of A positions B texts.
      targets: name -> [A, B, d] (the decoded points) or [B, d] (an end of the path, its start).
    """
    width = np.shape(next(iter(targets.values())))[-1]
    outputs = embed_outputs(embed, [text for at_position in texts for text in at_position], width)
    shape = len(texts), len(texts[0]), width
    return {
        name: cosine_consistency(outputs, np.broadcast_to(target, shape).reshape(outputs.shape)).reshape(shape[:2])
        for name, target in targets.items()
    }


def consistency_curve(
    positions: Sequence[float],
    texts: Sequence[Sequence[str | None]],
    scores: Mapping[str, np.ndarray],
    clusters: Sequence[Hashable],
    settings: BootstrapSettings,
) -> list[dict[str, Any]]:
    """A row for each alpha or step (Figures 4 and 5), in the order of `positions` [A].

    Args:
      texts: [A][B], as scored: what could not be read is counted.
      scores: [A, B] each, of `semantic_path` for instance.
      clusters: [B], what the path of each column starts from; seeds share it.

    A row is {"position", "num_outputs", "num_malformed", "cells": name -> mean and interval}.
    """
    return [
        {
            "position": float(position),
            "num_outputs": len(outputs),
            "num_malformed": sum(not is_readable(text) for text in outputs),
            "cells": {
                name: bootstrap_interval(values[index], settings, clusters=clusters).as_cell()
                for name, values in scores.items()
            },
        }
        for index, (position, outputs) in enumerate(zip(positions, texts, strict=True))
    ]


def _columns(records: Sequence[ConsistencyRecord], named: str) -> dict[str, list[float]]:
    """measure -> values, in the order of the records."""
    measures = list(records[0].scores)
    for record in records:
        if set(record.scores) != set(measures):
            raise ValueError(f"{named}: task {record.task} has {sorted(record.scores)}, others {measures}")
    return {measure: [record.scores[measure] for record in records] for measure in measures}


def _row_means(
    records: Sequence[ConsistencyRecord], system: str, tasks: Sequence[str], group: str
) -> dict[tuple[str, tuple[int, ...]], dict[str, float]]:
    """(task, entities) -> measure -> mean over its seeds."""
    by_row = defaultdict(list)
    for record in records:
        if record.system == system and record.task in tasks:
            by_row[record.task, record.entities].append(record)
    if not by_row:
        raise ValueError(f"{group}: no output of {system!r}")
    _columns([record for outputs in by_row.values() for record in outputs], f"{group}, {system}")
    return {
        row: {name: float(np.mean(values)) for name, values in _columns(outputs, system).items()}
        for row, outputs in by_row.items()
    }
