"""What a text says of how users rate its film: fields of the text x features x heads x widths.

    export EAGLE_EXTRAS=benchmarks EAGLE_DATA=<folder with ml-latest-small>   # scikit-learn
    bash launch/run.sh benchmarks.film_rewards --out=runs/film_rewards_benchmark

Films of ml-latest-small with an overview and at least 5 ratings, in five folds: WALS and E_D are
fitted without a fold's films, then Spearman's correlation of each user's real ratings of these films
(at least 5 of them) with what is predicted for their texts, mean over users and folds. The goal is
0.23. "Both" is what everybody likes and what this user likes; "of WALS' users" are the embeddings
that WALS left, the others are users fitted again to what E_D says of the texts they rated
(`eagle_jax/embeddings/text_users.py`). Boosting is scikit-learn's, a yardstick. Every fold of every row
is kept in --out, and the same command goes on from there. About 15 minutes on two quiet cores.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from benchmarks import rounds
from benchmarks.film_rows import (
    HEADS,
    MEASURES,
    MIN_RATINGS,
    NUM_FOLDS,
    Row,
    cells,
    folds,
    measured,
    predicted,
    tfidf,
    wals_settings,
)
from benchmarks.sentence_contenders import packaged_folder
from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.metrics import progress
from eagle_jax.data.catalogue import Catalogue, RatingTable
from eagle_jax.data.film_fields import TEMPLATE, parse_film_fields
from eagle_jax.data.ratings import restrict_items
from eagle_jax.data.readers.movielens import read_movielens
from eagle_jax.embeddings.sentences.field_features import genre_and_year
from eagle_jax.embeddings.wals import WALSOutput, fit_wals, rating_embeddings
from eagle_jax.reports.markdown import format_interval
from eagle_jax.stages.models import load_features

_PACKAGES = ("jax", "numpy", "scikit-learn")
_GOAL = 0.23
PLOT, FIELDS, ALL = "plot", "genres, year", "genres, year, plot"
MINI_LM, TFIDF, LLAMA, MINI_LM_OF_ALL = "MiniLM", "TF-IDF", "small Llama's states", "MiniLM of the whole text"

# They may stand in one process with other commands' flags: tests import several.
_OUT = flags.DEFINE_string(
    "out", "runs/film_rewards_benchmark", "folder for the table, and what is done so far", allow_override=True
)
_SEED = flags.DEFINE_integer("seed", 0, "of folds and fits", allow_override=True)
_WIDTHS = flags.DEFINE_list("widths", "4,8,16,32", "of WALS, with ridge heads on all fields", allow_override=True)


def rows() -> list[Row]:
    """Of the table, in its order."""
    found = [Row(fields=PLOT, features=name) for name in (MINI_LM, TFIDF, LLAMA)]
    found += [Row(fields="genres", features="none"), Row(fields=FIELDS, features="none")]
    found += [Row(fields=ALL, features=name) for name in (MINI_LM_OF_ALL, TFIDF, LLAMA, MINI_LM)]
    found += [Row(fields=ALL, features=MINI_LM, head=head) for head in HEADS[1:]]
    return found + [
        Row(fields=ALL, features=MINI_LM, width=width) for width in map(int, _WIDTHS.value) if width != found[0].width
    ]


class Bench:
    """The films, and what is computed once for many rows."""

    def __init__(self, data: Path, out: Path, seed: int):
        folder = data / "ml-latest-small"
        catalogue, _ = read_movielens(folder, folder / "texts.csv", TEMPLATE)
        counts = np.bincount(catalogue.ratings.item_index, minlength=len(catalogue.entities))
        films = np.flatnonzero(counts >= MIN_RATINGS)
        self.ratings: RatingTable = restrict_items(catalogue.ratings, films)
        self.texts = [_plain(catalogue, film) for film in films]
        self.fields = [parse_film_fields(text) for text in self.texts]
        self.fold = folds(len(films), seed)
        self.data, self.out, self.seed = data, out, seed

    def features(self, row: Row) -> np.ndarray:
        """[N, F] of all films."""
        if row.features == MINI_LM_OF_ALL:
            return self._encoded(MINI_LM, whole=True)
        known = genre_and_year(self.fields)
        if row.fields == "genres":
            return known[:, :19]
        parts = [] if row.fields == PLOT else [known]
        return np.concatenate([*([] if row.features == "none" else [self._encoded(row.features)]), *parts], axis=1)

    @functools.cache  # noqa: B019 (one bench in a process)
    def _encoded(self, features: str, whole: bool = False) -> np.ndarray:
        texts = self.texts if whole else [own.plot for own in self.fields]
        if features == TFIDF:
            return tfidf(texts, 128, self.seed)
        folder = packaged_folder() if features == MINI_LM else str(self.data / "lm" / "tinystories-656k")
        encode, pieces = load_features(folder, 64), []
        for start in progress(range(0, len(texts), 250), -(-len(texts) // 250), features, "texts"):
            path = self.out / "parts" / f"{features.split()[0]}_{'whole' if whole else 'plot'}_{start}.npy"
            pieces.append(_kept(path, lambda start=start: encode(texts[start : start + 250])))
        return np.concatenate(pieces)

    def wals(self, width: int, fold: int) -> WALSOutput:
        """Of the ratings of the other folds' films."""
        train = self.ratings.take(np.flatnonzero(self.fold[self.ratings.item_index] != fold))
        names = WALSOutput._fields
        path = self.out / "parts" / f"wals_{width}_{fold}_{{}}.npy"
        fit = functools.cache(lambda: fit_wals(train, wals_settings(width), jax.random.key(self.seed)))
        return WALSOutput(
            *(_kept(Path(str(path).format(name)), lambda name=name: np.asarray(getattr(fit(), name))) for name in names)
        )

    def of_fold(self, row: Row, fold: int) -> dict[str, dict[int, float]]:
        """Measure -> user -> correlation."""
        path = self.out / "parts" / f"{row.name}-{fold}.json"
        if not path.exists():
            is_training = self.fold[self.ratings.item_index] != fold
            wals = self.wals(row.width, fold)
            weights = np.bincount(self.ratings.item_index[is_training], minlength=len(self.texts)).astype(np.float32)
            targets = np.asarray(rating_embeddings(wals)[1])
            embeddings = predicted(row.head, self.features(row), targets, weights, self.seed)
            found = json.dumps(measured(self.ratings, is_training, wals, embeddings))
            write_atomically(path, lambda file: file.write(found.encode()))
        return json.loads(path.read_text())


def _plain(catalogue: Catalogue, film: int) -> str:
    """A film's text without its markers."""
    return " ".join(word for word in catalogue.descriptions[film].split() if not word.startswith(("#BEGIN_", "#END_")))


def _kept(path: Path, make) -> np.ndarray:
    if not path.exists():
        made = make()
        write_atomically(path, lambda file: np.save(file, made))
    return np.load(path)


def page(made_by: dict[str, str], notes: list[str], found: list[dict[str, Any]], num_films: int) -> str:
    """The table, best row named."""
    best = max(found, key=lambda row: row["cells"]["both"]["mean"])
    told = best["cells"]["both"]
    reached = "reached" if told["low"] >= _GOAL else "reached in the mean" if told["mean"] >= _GOAL else "missed"
    lines = [
        "# What a text says of how users rate its film\n",
        *(f"{note}\n" for note in notes),
        f"{num_films} films, {told['num_users']} users; Spearman within users, mean and 95 % interval (users "
        f"resampled). Goal {_GOAL}: {reached} by {best['fields']} with {best['features']}, {best['head']}, width "
        f"{best['width']}: {format_interval(told)}, in folds {', '.join(f'{v:.3f}' for v in told['by_fold'])}.\n",
        "## Rows\n",
        rounds.markdown_table(
            ["fields", "features", "head", "width", *MEASURES],
            (
                [row["fields"], row["features"], row["head"], str(row["width"])]
                + [format_interval(row["cells"][name]) for name in MEASURES]
                for row in found
            ),
        ),
        "## Made by\n",
        *(f"- {name}: {value}" for name, value in made_by.items()),
    ]
    return "\n".join(lines) + "\n"


def main(_) -> None:
    made_by, notes, out = rounds.machine(_PACKAGES), rounds.load_warning(), Path(_OUT.value)
    (out / "parts").mkdir(parents=True, exist_ok=True)
    bench = Bench(Path(os.environ["EAGLE_DATA"]), out, _SEED.value)
    found = []
    for row in rows():
        of_folds = [bench.of_fold(row, fold) for fold in range(NUM_FOLDS)]
        found.append({**vars(row), "cells": cells(of_folds)})
        print(row.name, format_interval(found[-1]["cells"]["both"]), flush=True)
    written = page(made_by, notes, found, len(bench.texts))
    rounds.write_results(out, written, {"machine": made_by, "notes": notes, "rows": found})
    print(written)


if __name__ == "__main__":
    app.run(main)
