"""Does the quality term tell broken texts from honest changes? Real films, a real small model.

    bash launch/run.sh benchmarks.quality --model=weights/SmolLM2-135M-Instruct.Q4_1.gguf --data=<EAGLE_DATA> \\
        --encoder=<folder of all-MiniLM-L6-v2> --out=runs/quality_benchmark

Films of ml-latest-small whose plots have two sentences or more, each broken in the fifty ways of
`tests/eagle/quality/broken_texts.py`: the share that is below its anchor (0), and which measures say so. Then honest
changes, which should lose nothing: those of the same module, and the sentences of `role_readings.csv` that a model of
this size added to plots, read as the change asked for or not.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags

from benchmarks import rounds
from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.metrics import progress
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import MOVIE, full_blocks
from eagle_jax.data.readers.movielens import read_movielens
from eagle_jax.eagle.quality.quality import Quality, QualitySettings, draw_sample, fit_quality
from eagle_jax.eagle.quality.readings import TextFluency, TextReader, split_sentences
from eagle_jax.embeddings.sentences.encoder import load_sentence_encoder
from eagle_jax.reports.markdown import Column, table
from eagle_jax.stages.models import load_model
from tests.eagle.quality.broken_texts import BROKEN, HONEST, broken, honest

# They may stand in one process with other commands' flags: tests import several.
_MODEL = flags.DEFINE_string("model", None, "a GGUF file or a folder", allow_override=True)
_ENCODER = flags.DEFINE_string("encoder", None, "folder of a sentence encoder", allow_override=True)
_DATA = flags.DEFINE_string("data", "data", "folder with ml-latest-small and its texts.csv", allow_override=True)
_OUT = flags.DEFINE_string("out", "runs/quality_benchmark", "folder for the tables", allow_override=True)
_FILMS = flags.DEFINE_integer("num_films", 10, "drawn", lower_bound=2, allow_override=True)
_TEXTS = flags.DEFINE_integer("num_texts", 400, "that limits are taken from", lower_bound=20, allow_override=True)
_QUANTILE = flags.DEFINE_float("quantile", 0.02, "outside of each limit", lower_bound=0, allow_override=True)
_BATCH = flags.DEFINE_integer("batch_size", 16, "texts at once", lower_bound=1, allow_override=True)
_SEED = flags.DEFINE_integer("seed", 0, "of films and limits", allow_override=True)
_BLOCK = MOVIE.blocks[0]
_PIECE = 64  # texts


def plots_of(catalogue: Catalogue) -> dict[str, str]:
    """Film's id -> its text, of the films that have a plot."""
    return {e.entity_id: e.description for e in catalogue.entities if full_blocks(e.description, MOVIE.blocks)}


class KeptFluency:
    """Texts -> fluency; what was computed is kept, so that the same command goes on after an end."""

    def __init__(self, inner: TextFluency, path: Path):
        self._inner, self._path = inner, path
        lines = path.read_text().splitlines() if path.exists() else []
        self._known: dict[str, list[float]] = dict(map(json.loads, lines))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        missing = sorted({text for text in texts if text not in self._known}, key=len)
        starts = range(0, len(missing), _PIECE)
        for start in progress(starts, len(starts), "fluency", "piece"):
            piece = missing[start : start + _PIECE]
            self._known |= zip(piece, self._inner(piece).tolist(), strict=True)
            lines = "".join(json.dumps(item) + "\n" for item in self._known.items())
            write_atomically(self._path, lambda file, lines=lines: file.write(lines.encode()))
        return np.array([self._known[text] for text in texts])


class Change(NamedTuple):
    """One row of a table: texts that were changed in one way, and their anchors."""

    name: str
    is_broken: bool
    texts: Sequence[str]
    anchors: Sequence[str]


def measure(quality: Quality, changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Values of changed texts, and what the measures that find something find on average."""
    texts, anchors = (
        [text for one in changes for text in column(one)] for column in (lambda one: one.texts, lambda one: one.anchors)
    )
    parts = quality.parts(texts, anchors)
    ends = np.cumsum([len(one.texts) for one in changes])[:-1]
    split = {name: np.split(values, ends) for name, values in parts.items()}
    rows = []
    for place, change in enumerate(changes):
        own = {name: values[place] for name, values in split.items()}
        values = -sum(own.values())
        means = {name: float(found.mean()) for name, found in own.items()}
        found = sorted((name for name in means if means[name] >= 0.1), key=means.get, reverse=True)
        rows.append(
            {
                "name": change.name,
                "broken": change.is_broken,
                "texts": len(change.texts),
                "below": float(np.mean(values < 0)),
                "mean": float(values.mean()),
                "highest": float(values.max()),
                "lowest": float(values.min()),
                "by": ", ".join(f"{name} {means[name]:.1f}" for name in found[:4]),
            }
        )
    return rows


def read_changes(texts: Mapping[str, str]) -> list[Change]:
    """Plots with a sentence more, by what its reader said of it."""
    with open(Path(__file__).with_name("role_readings.csv"), newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["film"] in texts]
    changes = []
    for said in ("yes", "no"):
        own = [row for row in rows if row["changed"] == said]
        anchors = [texts[row["film"]] for row in own]
        plots = [full_blocks(anchor, MOVIE.blocks)[_BLOCK] for anchor in anchors]
        changed = [
            anchor.replace(plot, f"{plot} {row['written']}", 1)
            for anchor, plot, row in zip(anchors, plots, own, strict=True)
        ]
        changes.append(Change(f"a model's sentence, read as changed as asked: {said}", False, changed, anchors))
    return changes


_COLUMNS = (
    Column("change", lambda row: row["name"], ":--"),
    Column("texts", lambda row: row["texts"]),
    Column("below their anchor", lambda row: f"{100 * row['below']:.0f} %"),
    Column("mean", lambda row: f"{row['mean']:.2f}"),
    Column("highest", lambda row: f"{row['highest']:.2f}"),
    Column("lowest", lambda row: f"{row['lowest']:.2f}"),
    Column("by (spreads outside, mean)", lambda row: row["by"], ":--"),
)
_LIMITS = (
    Column("measure", lambda row: row[0], ":--"),
    Column("limit", lambda row: f"{row[1].limit:.3f}"),
    Column("spread", lambda row: f"{row[1].spread:.3f}"),
)


def main(_) -> None:
    if not (_MODEL.value and _ENCODER.value):
        raise app.UsageError("--model and --encoder have to be given")
    folder = Path(_DATA.value) / "ml-latest-small"
    catalogue, _ = read_movielens(folder, folder / "texts.csv")
    by_film = plots_of(catalogue)
    texts, blocks = list(by_film.values()), MOVIE.blocks
    rng = np.random.default_rng(_SEED.value)
    fluency = TextFluency(load_model(_MODEL.value), MOVIE, _BATCH.value)
    kept = KeptFluency(fluency, Path(_OUT.value) / "fluency.jsonl")
    reader = TextReader(MOVIE, kept, load_sentence_encoder(_ENCODER.value, batch_size=32))
    settings = QualitySettings(weight=1.0, quantile=_QUANTILE.value, num_texts=_TEXTS.value)
    sample = draw_sample(texts, MOVIE, settings.num_texts, _SEED.value)
    quality = fit_quality(sample, reader, settings)
    seen = set(sample.texts)
    several = [
        text for text in texts if len(split_sentences(full_blocks(text, blocks)[_BLOCK])) > 1 and text not in seen
    ]
    drawn = [several[place] for place in rng.permutation(len(several))[: 2 * _FILMS.value]]
    anchors, others = drawn[: _FILMS.value], drawn[_FILMS.value :]
    changes = [
        Change(name, True, [broken(name, *pair, blocks) for pair in zip(anchors, others, strict=True)], anchors)
        for name in BROKEN
    ]
    changes += [Change(name, False, [honest(name, anchor, blocks) for anchor in anchors], anchors) for name in HONEST]
    results = measure(quality, changes + read_changes(by_film))
    machine = rounds.machine(("jax",))
    tables = [table([row for row in results if row["broken"] == is_broken], _COLUMNS) for is_broken in (True, False)]
    page = "\n\n".join(map(str, [f"# {Path(_MODEL.value).name}", *tables, table(quality.limits.items(), _LIMITS)]))
    rounds.write_results(Path(_OUT.value), page, {"machine": machine, "compared": results})
    print(page)


if __name__ == "__main__":
    app.run(main)
