"""What the terminal shows of an EAGLE run: its stages, a figure of each, its table of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.ceiling.report import ceiling_sentences
from eagle_jax.eagle.evaluation.report_tables import ENCODERS
from eagle_jax.eagle.policy_stages import validation_gain
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.eagle.world_run import CEILING
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN, judge_of
from eagle_jax.reports.markdown import format_interval


def planned_stages(experiment: EagleExperiment, stop_after: str | None = None) -> list[str]:
    """The names of a run's stages, in their order."""
    names = ["catalogue", "encoders", *(["quality"] if experiment.quality else []), "profiles"]
    if experiment.ceiling is not None:
        names.append(CEILING)
    if stop_after == CEILING:
        return names
    names += ["candidates", *(["reliability"] if experiment.user_space.halves else []), "design"]
    of_seed = ["expert"] if experiment.expert is not None else []
    of_seed += ["agent"] if experiment.preference_agent is None else ["agent", "preference_agent"]
    for kind in experiment.design.kinds:
        names.append(f"reference_{kind}")
        names += [f"{stage}_{kind}_{seed}" for seed in experiment.agent.seeds for stage in of_seed]
    if experiment.planner is not None:
        names += [f"planner_{seed}" for seed in experiment.agent.seeds]
    if experiment.elm_baseline is not None:
        names += [*(f"elm_{seed}" for seed in experiment.elm_baseline.seeds), "elm_search"]
    return [*names, "evaluation"]


def leaving_lines(experiment: EagleExperiment) -> list[str]:
    """What leaves this machine, and to where, by role; nothing where no model is remote."""
    endpoints = experiment.remote_models()
    lines = []
    for one in experiment.leaving():
        host = endpoints[one.model].base_url
        lines.append(f"  {one.model} ({one.role}, {host}) is sent: {', '.join((*one.of_items, *one.of_users))}")
    if lines:
        lines.append("  No ids are sent. config.user_data_stays=True refuses what would send profiles or titles.")
    return lines


def _catalogue(facts: Mapping[str, Any], stage: StageFolder) -> str:
    told = f"{facts['num_entities']:,} items, {facts['num_users']:,} users, {facts['num_training_ratings']:,} ratings"
    if facts["held_out_rmse"] is None:
        return told
    return f"{told}; held-out error {facts['held_out_rmse']:.3f}, with biases alone {facts['baseline_rmse']:.3f}"


def _encoders(facts: Mapping[str, Any], stage: StageFolder) -> str:
    own, other = (facts[name]["held_out"]["rank_correlation"] for name in (TRAIN, HELD_OUT))
    return f"on texts they were not fitted to, rank correlation {own:.2f}, held-out encoder {other:.2f}"


def _profiles(facts: Mapping[str, Any], stage: StageFolder) -> str:
    error, distance = facts["held_out_error"], facts["nearest_neighbor_distance"]
    if facts["passed"]:
        return f"check passed: their error {error:.2f} is below {distance:.2f}, the distance of nearest users"
    return (
        f"CHECK FAILED: their error {error:.2f} is not below {distance:.2f}, the distance of nearest users; "
        "policies are told too little of who the user is"
    )


def _agent(facts: Mapping[str, Any], stage: StageFolder) -> str:
    return f"gain in U {validation_gain(stage.path):+.3f} on validation starts; {facts['environment_calls']:,} calls"


# By the beginning of a stage's name: (its facts, its folder) -> a sentence's part.
_FIGURES: dict[str, Callable[[Mapping[str, Any], StageFolder], str]] = {
    "catalogue": _catalogue,
    "encoders": _encoders,
    "profiles": _profiles,
    CEILING: lambda facts, stage: ceiling_sentences(facts)[0],
    # A count of what did not happen is not among the facts.
    "candidates": lambda facts, stage: f"{facts['candidates']:,} actions, {facts.get('duplicates', 0):,} of them twice",
    "reference_": lambda facts, stage: f"learned from {facts['num_pairs']:,} actions",
    "expert_": lambda facts, stage: f"chosen actions gain {facts['gain']:+.3f}; {facts['environment_calls']:,} calls",
    "planner_": lambda facts, stage: (
        f"explains {facts['explained']:.2f} of what {facts['num_actions']:,} actions do; "
        f"{facts['environment_calls']:,} calls"
    ),
    "agent_": _agent,
    "preference_agent_": _agent,
}


def key_figure(stage: StageFolder) -> str:
    """What is told of a finished stage beside its time."""
    for beginning, figure in _FIGURES.items():
        if stage.name.startswith(beginning):
            return figure(stage.read_json("facts.json"), stage)
    return ""


def result_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """U of each row of the evaluation's table under the training encoder and its most independent judge."""
    judge = judge_of({name.split("/")[0] for name in rows[0]["cells"]})
    names = f"{TRAIN}/utility", f"{judge}/utility"
    width = max(len(row["row"]) for row in rows)
    lines = [f"{'':{width}}  {'U':25}U, {ENCODERS[judge]}"]
    for row in rows:
        cells = (str(format_interval(row["cells"].get(name))) for name in names)
        lines.append(f"{row['row']:{width}}  " + "".join(f"{cell:25}" for cell in cells).rstrip())
    return lines
