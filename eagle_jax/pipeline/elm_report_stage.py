"""From the results of an ELM run to its report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from eagle_jax.base.provenance import provenance
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.evaluation.elm_report import ReportInput, write_elm_report
from eagle_jax.pipeline.elm_settings import PROFILE, ElmExperiment

_NOT_REPRODUCED = (
    "Human raters (table 2, columns 3 to 5): nobody was asked.",
    "MovieLens with plots and reviews by PaLM 2, and its 24 tasks answered by it: films, users and "
    "the teacher are those of MiniLens, a synthetic world whose grammar writes and reads texts.",
    "PaLM 2-XS as the model and 320,000 steps: a MiniLens-LM and the steps in the settings.",
    "PaLM 2-L and GPT 4 as text-only baselines (figure 3): here the model before it was given "
    "embeddings, which reads titles.",
    "One model for films and another for profiles: here one for both.",
    "Amazon's products (appendix A, table 4): the six tasks are in the table of tasks, but this "
    "run has no products.",
)


def report_elm(experiment: ElmExperiment, results: StageFolder, root: Path) -> Path:
    """Writes report.html and report.md into `root`, returns the path of the first."""
    facts: dict[str, Any] = dict(results.read_json("facts.json"))
    training = facts.pop("training")
    curves = results.read_json("curves.json")
    times = root / "times.json"
    if times.exists():
        facts["seconds"] = json.loads(times.read_text(encoding="utf-8"))
    data = ReportInput(
        title=experiment.title,
        task=_task(experiment),
        confidence=experiment.evaluation.bootstrap.confidence,
        consistency=results.read_json("consistency.json"),
        curves=curves,
        samples=results.read_jsonl("samples.jsonl"),
        training=training,
        facts=facts,
        left_out=_left_out(curves),
        not_reproduced=_NOT_REPRODUCED,
        settings=json.loads(json.dumps(dataclasses.asdict(experiment))),
        provenance=provenance(),
    )
    return write_elm_report(root, data)[0]


def _task(experiment: ElmExperiment) -> str:
    catalogue = experiment.catalogue
    return (
        f"MiniLens with {catalogue.num_films} films and {catalogue.num_users} users. A film's "
        "embedding is the mean of its texts' in a semantic space, a user's comes from ratings by "
        f"matrix factorisation. {experiment.models.reader} learned to read them; the grammar of "
        "MiniLens, which sees titles, wrote what it learned to say."
    )


def _left_out(curves: list[dict[str, Any]]) -> list[str]:
    has_users_along_tags = any(c["task"] == PROFILE and c["tag"] is not None for c in curves)
    return [] if has_users_along_tags else ["Profiles of users moved along tags (figure 5)."]
