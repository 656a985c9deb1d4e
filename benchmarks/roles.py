"""How well a model plays EAGLE's environment, by prompt format: real films, real instructions.

    bash launch/run.sh benchmarks.roles --model=weights/SmolLM2-135M-Instruct.Q4_1.gguf --data=<EAGLE_DATA> \\
        --encoder=<folder of all-MiniLM-L6-v2> --out=runs/roles_benchmark

Films of ml-latest-small that many have rated, instructions of the package's list, every film under every instruction.
Of the rewritings: which are accepted, at the first try and after all; which are changed as asked (by a sign of the
action that the anchor has not; its agreement with `role_readings.csv`, read by eye, is told); which are still nearest
to their own film among --num_others + --num_films films, by the sentence encoder; why tries were refused. All texts lie
in texts.jsonl. What was written is kept in generations.sqlite, so that the same command goes on after an end.
"""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags

from benchmarks import rounds
from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import COMPACT, MOVIE, Prompt, full_blocks
from eagle_jax.data.readers.movielens import read_movielens
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.eagle.roles.chat_words import SENTENCE, answer_start
from eagle_jax.eagle.roles.listed_actions import read_actions_file
from eagle_jax.eagle.roles.rewrite_formats import REWRITE_FORMATS, RewriteSettings
from eagle_jax.eagle.roles.signs import read_signs
from eagle_jax.embeddings.sentences.encoder import load_sentence_encoder
from eagle_jax.language_model.generation import Generation, SamplingSettings, TextGenerator
from eagle_jax.language_model.remote.cache import CachedGenerator
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.reports.markdown import Column, table
from eagle_jax.stages.models import load_model, without_thoughts

# They may stand in one process with other commands' flags: tests import several.
_MODEL = flags.DEFINE_string("model", None, "a GGUF file or a folder", allow_override=True)
_ENCODER = flags.DEFINE_string("encoder", None, "folder of a sentence encoder", allow_override=True)
_DATA = flags.DEFINE_string("data", "data", "folder with ml-latest-small and its texts.csv", allow_override=True)
_OUT = flags.DEFINE_string("out", "runs/roles_benchmark", "folder for the table and the texts", allow_override=True)
_FORMATS = flags.DEFINE_list("formats", list(REWRITE_FORMATS), "to compare", allow_override=True)
_FILMS = flags.DEFINE_integer("num_films", 20, "drawn", lower_bound=2, allow_override=True)
_ACTIONS = flags.DEFINE_integer("num_actions", 20, "drawn from the list", lower_bound=1, allow_override=True)
_OTHERS = flags.DEFINE_integer(
    "num_others", 180, "films that a rewriting may be nearer to", lower_bound=0, allow_override=True
)
_TRIES = flags.DEFINE_integer("max_tries", 4, "of a rewriting", lower_bound=1, allow_override=True)
_CHECKS = flags.DEFINE_bool("signs", False, "refuse an answer without a sign of its action", allow_override=True)
_TOKENS = flags.DEFINE_integer(
    "max_new_tokens", 48, "of a sentence; of other texts twice as many", lower_bound=1, allow_override=True
)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.6, "of the model", lower_bound=0, allow_override=True)
_BATCH = flags.DEFINE_integer("batch_size", 64, "rewritings at once", lower_bound=1, allow_override=True)
_SEED = flags.DEFINE_integer("seed", 0, "of films, instructions and texts", allow_override=True)
_FEWEST_RATINGS, _WORDS = 50, (20, 90)  # of a film that is drawn; words of its plot


class InPieces:
    """A `TextGenerator` that writes batch after batch, each of which is kept when it is there."""

    def __init__(self, inner: LocalGenerator, folder: Path):
        self._inner, self.name = CachedGenerator(inner, folder / "generations.sqlite"), inner.name

    def generate(self, prompts: Sequence[Prompt], sampling: SamplingSettings, seed: int) -> list[Generation]:
        made: list[Generation] = []
        starts = range(0, len(prompts), _BATCH.value)
        for start in progress(starts, len(starts), "texts", "batch"):
            piece = prompts[start : start + _BATCH.value]
            made += self._inner.generate(piece, sampling, derive_seed(seed, start))
        return made


class Material(NamedTuple):
    """What is rewritten: plots of films by title, others to be confused with, and instructions by kind."""

    titles: list[str]
    descriptions: list[str]
    others: list[str]
    actions: list[tuple[str, str]]


def draw_material(catalogue: Catalogue, rng: np.random.Generator) -> Material:
    """Films that many rated, with plots of usual length; instructions of every kind."""
    counts = np.bincount(catalogue.ratings.item_index, minlength=len(catalogue.entities))
    usual = [
        entity
        for entity, count in zip(catalogue.entities, counts, strict=True)
        if count >= _FEWEST_RATINGS and _WORDS[0] <= len(plot_of(entity.description).split()) <= _WORDS[1]
    ]
    drawn = [usual[place] for place in rng.permutation(len(usual))[: _FILMS.value + _OTHERS.value]]
    films, others = drawn[: _FILMS.value], drawn[_FILMS.value :]
    actions = read_actions_file("", MOVIE)
    kept = sorted(rng.permutation(len(actions))[: _ACTIONS.value].tolist())
    return Material(
        [film.title for film in films],
        [film.description for film in films],
        [plot_of(other.description) for other in others],
        [actions[place] for place in kept],
    )


def plot_of(description: str) -> str:
    return full_blocks(description, MOVIE.blocks)["PLOT"]


def measure(
    name: str,
    generator: TextGenerator,
    material: Material,
    sampling: SamplingSettings,
    max_tries: int,
    checks: bool,
    seed: int,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for every film and instruction, and what was counted over all tries."""
    is_edit, signs = name == "edit", read_signs("", MOVIE)
    environment = LLMEnvironment(
        generator=generator,
        book=COMPACT,
        entity_format=MOVIE,
        sampling=sampling,
        rewriting=RewriteSettings(format=name, max_tries=max_tries),
        signs=signs if checks else {},
    )
    pairs = [(film, *action) for film in range(len(material.titles)) for action in material.actions]
    started = time.perf_counter()
    steps = environment.step([material.descriptions[film] for film, _, _ in pairs], [a for *_, a in pairs], seed)
    seconds, rows = time.perf_counter() - started, []
    for (film, kind, action), step in zip(pairs, steps, strict=True):
        before, after = plot_of(material.descriptions[film]), plot_of(step.description)
        written = after.removeprefix(before).lstrip() if is_edit else after
        start = answer_start(SENTENCE, action) if is_edit else ""
        is_accepted = step.malformed is None
        rows.append(
            {
                "format": name,
                "film": film,
                "title": material.titles[film],
                "kind": kind,
                "action": action,
                "written": written if is_accepted else None,
                "text": after,
                "malformed": step.malformed,
                "tries": step.num_tries,
                "changed": is_accepted and signs[action].is_new(before, written, start),
            }
        )
    return rows, {"calls": environment.num_calls, "refused": dict(environment.malformed_tries), "seconds": seconds}


def summed(name: str, rows: list[dict[str, Any]], counted: dict[str, Any]) -> dict[str, Any]:
    """Shares of all rows; of the accepted ones which are about their film."""
    accepted = [row for row in rows if row["malformed"] is None]
    refused = Counter(counted["refused"])
    return {
        "format": name,
        "rows": len(rows),
        "first": sum(row["tries"] == 1 for row in accepted) / len(rows),
        "accepted": len(accepted) / len(rows),
        "changed": sum(row["changed"] for row in rows) / len(rows),
        "about": sum(row["about"] for row in accepted) / max(len(accepted), 1),
        "calls": counted["calls"] / len(rows),
        "refused": ", ".join(f"{reason} {count}" for reason, count in refused.most_common()) or "none",
        "seconds": counted["seconds"],
    }


def add_nearest(rows: list[dict[str, Any]], material: Material) -> None:
    """Which accepted texts are nearer to their own film's plot than to any other's, by cosine."""
    encoder = load_sentence_encoder(_ENCODER.value, batch_size=32)
    plots = [*map(plot_of, material.descriptions), *material.others]
    accepted = [row for row in rows if row["malformed"] is None]
    embeddings = encoder([*plots, *(row["text"] for row in accepted)])
    embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    nearest = (embeddings[len(plots) :] @ embeddings[: len(plots)].T).argmax(axis=1)
    for row, place in zip(accepted, nearest, strict=True):
        row["about"] = bool(place == row["film"])


def agreement(catalogue: Catalogue) -> dict[str, Any]:
    """Of the rule with a reader of `role_readings.csv`, whose films are named by the ids of the catalogue.

    Those count that were read without knowing what the rule says; the others were read while the signs were found.
    """
    with open(Path(__file__).with_name("role_readings.csv"), newline="") as file:
        read = [row for row in csv.DictReader(file) if row["saw_rule"] == "no"]
    signs, plots = read_signs("", MOVIE), {film.entity_id: plot_of(film.description) for film in catalogue.entities}
    ours = [signs[r["action"]].is_new(plots[r["film"]], r["written"], r["start"]) for r in read]
    theirs = [r["changed"] == "yes" for r in read]
    return {"read": len(read), "yes": sum(theirs), "rule_yes": sum(ours), "kappa": kappa(ours, theirs)}


def kappa(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Cohen's: agreement beyond that of two who answer at random as often yes; 1 where both say the same of all."""
    count = len(ours)
    agreed = sum(one == other for one, other in zip(ours, theirs, strict=True)) / count
    yes = sum(ours) / count, sum(theirs) / count
    by_chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    return 1.0 if by_chance == 1 else (agreed - by_chance) / (1 - by_chance)


_COLUMNS = (
    Column("format", lambda row: row["format"], ":--"),
    *(
        Column(title, lambda row, name=name: f"{100 * row[name]:.1f} %")
        for name, title in (
            ("first", "accepted at once"),
            ("accepted", "accepted"),
            ("changed", "changed as asked"),
            ("about", "about their film"),
        )
    ),
    Column("calls", lambda row: f"{row['calls']:.2f}"),
    Column("refused tries", lambda row: row["refused"], ":--"),
    Column("seconds", lambda row: f"{row['seconds']:.0f}"),
)


def main(_) -> None:
    if not (_MODEL.value and _ENCODER.value):
        raise app.UsageError("--model and --encoder have to be given")
    folder = Path(_DATA.value) / "ml-latest-small"
    catalogue, _ = read_movielens(folder, folder / "texts.csv")
    material = draw_material(catalogue, np.random.default_rng(_SEED.value))
    model = without_thoughts(load_model(_MODEL.value))
    generator = InPieces(LocalGenerator(model, _BATCH.value, 64), Path(_OUT.value))
    rows, counted = [], {}
    for name in _FORMATS.value:
        tokens = _TOKENS.value if name == "edit" else 2 * _TOKENS.value
        sampling = SamplingSettings(temperature=_TEMPERATURE.value, top_k=0, top_p=0.95, max_new_tokens=tokens)
        made, counted[name] = measure(name, generator, material, sampling, _TRIES.value, _CHECKS.value, _SEED.value)
        rows += made
        print(f"{name}: {counted[name]}", flush=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(Path(_OUT.value) / "texts.jsonl", lambda file, text=text: file.write(text.encode()))
    add_nearest(rows, material)
    results = [summed(name, [row for row in rows if row["format"] == name], counted[name]) for name in counted]
    read, machine = agreement(catalogue), rounds.machine(("jax",))
    told = f"The rule says yes of {read['rule_yes']} of {read['read']} texts, a reader of {read['yes']}: "
    told += f"kappa {read['kappa']:.2f}.\n"
    page = f"# {Path(_MODEL.value).name}\n\n{table(results, _COLUMNS)}\n\n{told}"
    rounds.write_results(Path(_OUT.value), page, {"machine": machine, "compared": results, "agreement": read})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(Path(_OUT.value) / "texts.jsonl", lambda file: file.write(text.encode()))
    print(page)


if __name__ == "__main__":
    app.run(main)
