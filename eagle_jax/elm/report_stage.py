"""From the results of an ELM run to its report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from eagle_jax.base.provenance import provenance
from eagle_jax.data.tasks import SEMANTIC
from eagle_jax.elm.report import ReportInput, write_elm_report
from eagle_jax.elm.run import ElmRun
from eagle_jax.elm.settings import ElmExperiment
from eagle_jax.elm.space import Spaces
from eagle_jax.reports.figures import embedding_picture

_LEFT_OUT = (
    "Training from rewards (appendix H), and one stage of training against two (appendix D): they "
    "have experiments of their own, rlaif and elm_toy.",
)
_NOT_REPRODUCED = (
    "Human raters (table 2, columns 3 to 5): nobody was asked.",
    "MovieLens with plots and reviews by PaLM 2, and its 24 tasks answered by it: films, users and "
    "the teacher are those of MiniLens, a synthetic world whose grammar writes and reads texts.",
    "PaLM 2-XS as the model and 320,000 steps: a MiniLens-LM and the steps in the settings.",
    "PaLM 2-L and GPT 4 as text-only baselines (figure 3): here the model before it was given "
    "embeddings, which reads titles. It was never shown an example before a question: that row is "
    "the paper's form, not a fair chance.",
    "One model for films and another for profiles: here one for both.",
    "Amazon's products (appendix A, table 4): the six tasks are in the table of tasks, but this "
    "run has no products.",
)


def report_elm(run: ElmRun) -> Path:
    """Writes report.html and report.md of a finished run, returns the path of the first."""
    results, root, experiment = run.stages["results"], run.workdir.root, run.experiment
    facts: dict[str, Any] = dict(results.read_json("facts.json"))
    training = facts.pop("training")
    facts["seconds"] = run.times.seconds()
    curves = results.read_json("curves.json")
    data = ReportInput(
        title=experiment.title,
        task=_task(experiment),
        confidence=experiment.evaluation.bootstrap.confidence,
        consistency=results.read_json("consistency.json"),
        curves=curves,
        picture=_picture(curves, run.spaces),
        samples=results.read_jsonl("samples.jsonl"),
        training=training,
        facts=facts,
        left_out=_LEFT_OUT,
        not_reproduced=_NOT_REPRODUCED,
        settings=json.loads(json.dumps(dataclasses.asdict(experiment))),
        provenance=provenance(),
    )
    return write_elm_report(root, data)[0]


def _picture(curves: list[dict[str, Any]], spaces: Spaces) -> dict[str, Any] | None:
    """The paths of films whose texts could be read, at least in part."""
    told = {
        curve["name"]: [text for text in curve["texts"] if text is not None]
        for curve in curves if curve["kind"] == SEMANTIC and "texts" in curve
    }  # fmt: skip
    paths = {name: spaces.embed(texts) for name, texts in told.items() if texts}
    return embedding_picture(spaces.semantic, paths) if paths else None


def _task(experiment: ElmExperiment) -> str:
    catalogue = experiment.catalogue
    return (
        f"MiniLens with {catalogue.num_films} films and {catalogue.num_users} users. A film's "
        "embedding is the mean of its texts' in a semantic space, a user's comes from ratings by "
        f"matrix factorisation. {experiment.models.reader} learned to read them; the grammar of "
        "MiniLens, which sees titles, wrote what it learned to say."
    )
