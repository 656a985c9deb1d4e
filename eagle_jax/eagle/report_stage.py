"""Stage 9: the report, made from what the other stages wrote."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.base.metrics import read_metrics
from eagle_jax.base.provenance import provenance
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.elm_baseline.facts import SEARCH, elm_facts, sweep
from eagle_jax.eagle.evaluation.rows import DPO, EAGLE, HOME, Row
from eagle_jax.eagle.report import ReportData, write_report
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN, Scorer
from eagle_jax.reports.figures import embedding_picture, learning_curve

WITHOUT_ELM = "The ELM decoder as a baseline (the first row of the paper's table)."
NOT_REPRODUCED = (
    "Human raters: no people were asked.",
    "The paper's scale: its policy has 3 billion parameters, its catalogue 62 thousand films.",
    WITHOUT_ELM,
    "Macro actions, the combined action space and the Amazon catalogue.",
)
_CURVES = ("validation/reward", "gain", "policy/kl", "malformed_actions")
_PREFERENCE = "preference_"  # what the names of stages of DPO agents begin with


def make_report(
    folder: Path,
    experiment: EagleExperiment,
    stages: Mapping[str, StageFolder],
    scorer: Scorer,
    seconds: Mapping[str, float],
    remote: Sequence[Mapping[str, Any]],
) -> tuple[Path, Path]:
    """Writes report.html and report.md into `folder`; `stages` are the finished ones by name,
    `remote` is the usage of remote models."""
    evaluation = stages["evaluation"]
    table = evaluation.read_json("table.json")
    reachable = evaluation.read_json("reachable.json")
    for row in table:
        row["cells"]["train/reachable_share"] = reachable.get("share", {}).get(row["row"])
    kind = (*experiment.evaluation.extra_kinds, *experiment.design.kinds)[0]
    told = _told_episodes(evaluation, kind, experiment.evaluation.num_told_episodes)
    data = ReportData(
        title=experiment.title,
        confidence=experiment.evaluation.bootstrap.confidence,
        table=table,
        comparisons=evaluation.read_json("comparisons.json"),
        malformed=evaluation.read_json("malformed.json"),
        episodes=told,
        curves=_curves(experiment, stages),
        embedding_picture=_picture(scorer, told),
        stages=_facts(stages, reachable, seconds),
        rater=_rater(experiment),
        remote=remote,
        decoder_sweep=sweep(stages),
        not_reproduced=[
            line for line in NOT_REPRODUCED if line != WITHOUT_ELM or SEARCH not in stages
        ],
        settings=json.loads(json.dumps(dataclasses.asdict(experiment))),
        provenance=provenance(),
    )
    return write_report(folder, data)


def _rater(experiment: EagleExperiment) -> str:
    """Who answered the rater form, and what it has in common with the encoders."""
    models = experiment.models
    if experiment.evaluation.rater is None:
        return "Here nobody answers it."
    told = f"Here the language model {models.rater} does: it "
    if models.rater in (models.features, models.held_out_features):
        told += "is also behind an encoder"
    else:
        told += "shares nothing with the encoders"
    if models.rater.startswith(f"{experiment.catalogue.source}/"):
        told += ", but it is small and was pretrained on the same world"
    return f"{told}. No people were asked."


def _curves(experiment: EagleExperiment, stages: Mapping[str, StageFolder]) -> list[dict[str, Any]]:
    """A DPO agent's rounds stand where REINFORCE has taken as many actions."""
    curves, training = [], experiment.agent.training
    runs = itertools.product(experiment.design.kinds, experiment.agent.seeds, (EAGLE, DPO))
    for kind, seed, system in runs:
        name = f"{_PREFERENCE if system == DPO else ''}agent_{kind}_{seed}"
        if name not in stages:
            continue
        rows = read_metrics(stages[name].path / "metrics" / "metrics.jsonl")
        if system == DPO:
            rounds = experiment.preference_agent.num_rounds(training)
            rows = [r | {"step": r["step"] * training.num_iterations / rounds} for r in rows]
        curves.append(learning_curve(Row(system=system, kind=kind).title, seed, rows, _CURVES))
    return curves


def _told_episodes(evaluation: StageFolder, kind: str, count: int) -> list[dict[str, Any]]:
    """Episodes at the quantiles of EAGLE's gain, from its best to its worst: no cherry-picking."""
    wanted = (EAGLE, kind, HOME)
    episodes = [
        record
        for record in evaluation.read_jsonl("records.jsonl")
        if (record["system"], record["kind"], record["environment"]) == wanted
    ]
    path = [record["scores"][TRAIN] for record in episodes]
    gains = np.array([scores[-1]["utility"] - scores[0]["utility"] for scores in path])
    order = np.argsort(-gains, kind="stable")
    places = np.linspace(0, len(order) - 1, count).round().astype(int)
    return [episodes[order[place]] for place in places]


def _picture(scorer: Scorer, told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    trajectories = {}
    for number, episode in enumerate(told, start=1):
        texts = [episode["anchor"], *(step["description"] for step in episode["steps"])]
        trajectories[f"episode {number}"] = scorer.embed(texts)
    return embedding_picture(scorer.catalogue_embeddings, trajectories)


def _fact(name: str, value: Any, meaning: str) -> dict[str, Any]:
    return {"name": name, "value": value, "meaning": meaning}


def _facts(
    stages: Mapping[str, StageFolder], reachable: Mapping[str, Any], seconds: Mapping[str, float]
) -> list[dict[str, Any]]:
    """What each stage found out about itself, with the meaning of every number."""
    groups = [
        ("Ratings and behavioural embeddings", _wals_facts(stages["catalogue"])),
        ("Domain encoders", _encoder_facts(stages["encoders"])),
        ("User profiles", _profile_facts(stages["profiles"])),
        ("Candidate actions and design", _design_facts(stages["candidates"], stages["design"])),
    ]
    pairs = [stage for name, stage in stages.items() if name.startswith(_PREFERENCE)]
    if pairs:
        groups.append(("Pairs of the DPO agents", _pair_facts(pairs)))
    if SEARCH in stages:
        groups.append(("The ELM decoder", elm_facts(stages)))
    if reachable:
        found = _fact(
            "best reachable utility",
            reachable["best_utility"],
            f"mean over {reachable['num_starts']} starts of the best text that a beam search over "
            "the world's own edits finds: the yardstick of the column 'share of reachable'",
        )
        groups.append(("What could be reached", [found]))
    times = [_fact(name, f"{value:.0f} s", "wall-clock time") for name, value in seconds.items()]
    groups.append(("Time of each stage (all runs of this work directory)", times))
    return [{"title": title, "facts": facts} for title, facts in groups]


def _wals_facts(stage: StageFolder) -> list[dict[str, Any]]:
    facts = stage.read_json("facts.json")
    meanings = {
        "num_entities": "entities of the catalogue",
        "num_users": "users",
        "num_training_ratings": "ratings that the embeddings were fitted to",
        "num_held_out_ratings": "ratings they were not",
        "held_out_rmse": "root mean squared error in stars on the held-out ratings",
        "baseline_rmse": "the same of mean plus user and item bias alone",
        "rank_correlation_within_users": "Spearman, predicted and held-out ratings of a user",
        "num_users_ranked": "users with at least five held-out ratings that are not all equal",
        "objective_first": "WALS objective at the start",
        "objective_last": "and at the end; it never rises",
    }
    rows = [_fact(name, facts[name], meaning) for name, meaning in meanings.items()]
    bad = stage.read_json("load_report.json").get("bad_rows")
    if bad is not None:
        rows.append(_fact("bad rows", len(bad), "rows of the input files that were left out"))
    return rows


def _encoder_facts(stage: StageFolder) -> list[dict[str, Any]]:
    rows = []
    facts = stage.read_json("facts.json")
    for encoder, title in ((TRAIN, "training encoder"), (HELD_OUT, "held-out encoder")):
        quality = facts[encoder]["held_out"]
        rows += [
            _fact(
                f"{title}: relative error",
                quality["relative_error"],
                "||E_D(text) - z|| / ||z|| on anchors that it was not fitted to",
            ),
            _fact(f"{title}: R squared", quality["r_squared"], "share of variance explained there"),
            _fact(
                f"{title}: rank correlation",
                quality["rank_correlation"],
                "Spearman of <z_u, E_D(text)> with <z_u, z>, mean over users",
            ),
        ]
    return rows


def _profile_facts(stage: StageFolder) -> list[dict[str, Any]]:
    facts = stage.read_json("facts.json")
    return [
        _fact(
            "profile to user embedding, held-out error",
            facts["held_out_error"],
            "L2; has to be below the next number for profiles to say who the user is: "
            + ("it is" if facts["passed"] else "it is not"),
        ),
        _fact("distance of nearest users", facts["nearest_neighbor_distance"], "mean, L2"),
        _fact("error of the mean user", facts["error_of_the_mean"], "L2; knowing nothing"),
        _fact("malformed profiles", sum(facts["malformed"].values()), "asked for again"),
    ]


def _design_facts(candidates: StageFolder, design: StageFolder) -> list[dict[str, Any]]:
    rows = [
        _fact(f"candidates: {name}", count, "count over all entities")
        for name, count in candidates.read_json("facts.json").items()
    ]
    by_kind = design.read_json("chosen.json")
    left_out = len(candidates.read_jsonl("candidates.jsonl")) - len(next(iter(by_kind.values())))
    rows.append(
        _fact("entities left out", left_out, "too few of their candidates were well-formed")
    )
    for kind, chosen in by_kind.items():
        for name, meaning in (
            ("approximation_factor", "of q; 1 is the optimum"),
            ("kept_approximation_factor", "of equal weights on the kept candidates"),
        ):
            factors = [np.inf if row[name] is None else row[name] for row in chosen]
            rows.append(
                _fact(
                    f"{kind}: {name}",
                    float(np.median(factors)),
                    f"median over entities, {meaning}; inf: a direction of change is missed",
                )
            )
        if any(row["num_draws"] for row in chosen):
            share = np.mean([row["accepted"] for row in chosen])
            rows.append(_fact(f"{kind}: accepted", float(share), "share of entities"))
    return rows


def _pair_facts(agents: Sequence[StageFolder]) -> list[dict[str, Any]]:
    """Sums and means over the rounds of all agents."""
    rows = [
        row
        for stage in agents
        for row in read_metrics(stage.path / "metrics" / "metrics.jsonl")
        if "pairs" in row  # not the validation before the first round
    ]
    meanings = {
        "pairs": "trained on: two samples of one choice, the one of higher utility chosen",
        "pairs/ties": "choices that gave none: the two selected samples have the same utility",
        "pairs/without_choice": "choices that gave none: fewer than two distinct samples",
        "pairs/repeated_samples": "samples left out: the text or the actions of one before",
        "pairs/unusable_samples": "samples left out: no similarity can be computed",
    }
    facts = [_fact(name, sum(row[name] for row in rows), told) for name, told in meanings.items()]
    trained = [row for row in rows if row["pairs"]]
    if trained:
        accuracy = float(np.mean([row["rewards/accuracy"] for row in trained]))
        told = "share of pairs with the higher implicit reward on the chosen side, mean over rounds"
        facts.append(_fact("rewards/accuracy", accuracy, told))
    return facts
