"""Is a kind of film that was taken out found to be missing, and is nothing missing from a catalogue that is complete?

    bash launch/run.sh benchmarks.gaps --out=runs/gaps_benchmark
    bash launch/run.sh benchmarks.gaps --environment=model --out=runs/gaps_model_benchmark

MiniLens' experiment, whole worlds of ten seeds (films, users, ratings), each three times: complete; without one of ten
k-means clusters of the films' true latent vectors (seed s: cluster s); without the tenth of the films that one of ten
k-means groups of users likes best (by the complete world's embeddings; seed s: group s). WALS and E_D are fitted anew
to what is left, walks start from what is left, and `eagle_jax.eagle.gaps` ranks regions. The cluster comes first where
the centre of the first region is nearer to its mean embedding than to that of any other, the liked tenth where the
group is the one, of the ten, that likes this centre best, in standard deviations of what each thinks of films. A world
is shown to lack something where the first region is told apart from chance.

Environment: MiniLens' grammar, which puts the words that an instruction names in their places in the text, or the
package's language model. Instructions are the grammar's own, all words in all templates. Each seed is kept in --out,
and the same command goes on from there.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags
from scipy.cluster.vq import kmeans2

from benchmarks import rounds
from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.command_line import load_config
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.settings import to_settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.minilens import grammar
from eagle_jax.data.minilens.world import draw_films, draw_world, make_catalogue
from eagle_jax.data.prompts import COMPACT, MOVIE, begin, end
from eagle_jax.data.ratings import restrict_items
from eagle_jax.data.splits import split_catalogue
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.eagle.gaps.imagined import walk_evenly
from eagle_jax.eagle.gaps.settings import GapSettings, WalkSettings
from eagle_jax.eagle.gaps.unmet_demand import as_wide, by_ratings, distances_between, largest_apart, unmet_demand, wants
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.eagle.user_space import known_items
from eagle_jax.embeddings.domain_encoder import DomainEncoder, compute_features
from eagle_jax.embeddings.regression_head import fit_head
from eagle_jax.embeddings.wals import fit_wals
from eagle_jax.language_model.generation import ScriptedGenerator, TextGenerator
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.stages.models import load_features, load_model

COMPLETE, CLUSTER, LIKED = "complete", "a cluster of films", "what a group likes best"
GRAMMAR, MODEL = "grammar", "model"
_NUM = 10  # clusters, and groups
_WORD = re.compile(r"[a-z]+")

# They may stand in one process with other commands' flags: tests import several.
_OUT = flags.DEFINE_string("out", "runs/gaps_benchmark", "folder for the table, and what is done", allow_override=True)
_SEEDS = flags.DEFINE_integer("seeds", 10, "worlds", allow_override=True)
_WALKS = flags.DEFINE_integer("walks", WalkSettings().num_walks, "of each world", allow_override=True)
_ENVIRONMENT = flags.DEFINE_enum("environment", GRAMMAR, [GRAMMAR, MODEL], "what rewrites texts", allow_override=True)


def edit_by_grammar(prompt, rng: np.random.Generator) -> str:
    """The environment's answer: the film with the words that the action names in their slots' places."""
    text = prompt.text
    start, stop = text.index(begin(MOVIE.blocks[0])), text.index(end(MOVIE.blocks[-1]))
    words, values = _WORD.findall(text[text.index(begin("ACTION")) :]), grammar.word_values()
    new = {values[word][0]: word for word in words if word in values}
    told = _WORD.sub(lambda word: new.get(values.get(word[0], ("",))[0], word[0]), text[start:stop])
    return told.removeprefix(prompt.opening).strip() + f" {end(MOVIE.blocks[-1])}"


def every_instruction() -> list[str]:
    """All words of all values in all templates of the grammar."""
    return sorted(
        template.format(word)
        for slot, values in grammar.LEXICON.items()
        for words in values
        for word in words
        for template in grammar.ACTIONS[slot]
    )


def without(catalogue: Catalogue, gone: np.ndarray) -> Catalogue:
    """The films that are left, with their ratings."""
    left = np.setdiff1d(np.arange(len(catalogue.entities)), gone)
    ratings = restrict_items(catalogue.ratings, left)
    return dataclasses.replace(
        catalogue, entities=tuple(catalogue.entities[film] for film in left), ratings=ratings, tags=()
    )


class Bench:
    """What all worlds share."""

    def __init__(self, out: Path, num_walks: int, environment: str):
        self.out, self.walks = out, num_walks
        self.experiment = to_settings(EagleExperiment, load_config("experiments/configs/eagle_minilens.py").to_dict())
        models = self.experiment.models
        self.features = load_features(models.features, models.batch_size, models.dtype, self.experiment.mesh)
        self.generator: TextGenerator = ScriptedGenerator(edit_by_grammar, GRAMMAR)
        if environment == MODEL:
            model = load_model(models.environment, models.dtype, self.experiment.mesh)
            self.generator = LocalGenerator(model, models.batch_size, models.length_multiple)

    def world(self, seed: int) -> list[dict[str, Any]]:
        """A row for each of the three catalogues of a seed; kept."""
        path = self.out / "parts" / f"{seed}.json"
        if not path.exists():
            found = json.dumps(self._world(seed))
            write_atomically(path, lambda file: file.write(found.encode()))
        return json.loads(path.read_text())

    def _world(self, seed: int) -> list[dict[str, Any]]:
        settings = dataclasses.replace(self.experiment.catalogue.minilens, seed=seed)
        catalogue = make_catalogue(settings)
        features = compute_features(self.features, catalogue.descriptions)
        films = draw_films(settings.num_films, np.random.default_rng(seed))  # those of the catalogue
        latent = draw_world().film_vectors(films)
        _, cluster = kmeans2(latent, _NUM, minit="++", rng=np.random.default_rng(derive_seed(seed, 1)))
        users, encoder = self._fitted(catalogue, features, seed)
        embedded = encoder.embed_features(features)
        tastes = users / np.linalg.norm(users, axis=1, keepdims=True)
        _, group = kmeans2(tastes, _NUM, minit="++", rng=np.random.default_rng(derive_seed(seed, 2)))
        number = seed % _NUM
        order = np.argsort(-embedded @ users[group == number].mean(axis=0), kind="stable")
        rows = []
        for kind, gone in (
            (COMPLETE, np.zeros(0, int)),
            (CLUSTER, np.flatnonzero(cluster == number)),
            (LIKED, order[: len(films) // 10]),
        ):
            left = without(catalogue, gone)
            keep = np.setdiff1d(np.arange(len(films)), gone)
            users, encoder = self._fitted(left, features[keep], seed)
            items, imagined = encoder.embed_features(features[keep]), encoder(self._imagined(left, seed, kind))
            found = GapSettings(seed=seed)
            places = as_wide(users, imagined, items)
            points = by_ratings(users, places)
            wanted = wants(users, places, items, found.wanted_share)
            balls = unmet_demand(wanted, points, by_ratings(users, items), found)
            (first,) = largest_apart(balls, points, 1)
            center = places[balls.center[first]]
            embedded = encoder.embed_features(features)
            row = {"kind": kind, "gone": len(gone), "chance": float(balls.chance[first])}
            row |= {"excess": float(balls.excess[first]), "is_shown": bool(balls.chance[first] <= found.level)}
            if kind == CLUSTER:
                of_clusters = np.stack([embedded[cluster == one].mean(axis=0) for one in range(_NUM)])
                row["place"] = _place(-_distances(users, center, of_clusters), number)
            elif kind == LIKED:
                likes = (users @ (center - embedded.mean(axis=0))) / (users @ embedded.T).std(axis=1)
                row["place"] = _place(np.array([likes[group == one].mean() for one in range(_NUM)]), number)
            rows.append(row)
            print(seed, row, flush=True)
        return rows

    def _fitted(self, catalogue: Catalogue, features: np.ndarray, seed: int) -> tuple[np.ndarray, DomainEncoder]:
        """Users [U, d] and E_D, as the experiment has them."""
        split = split_catalogue(catalogue, self.experiment.split)
        wals = fit_wals(split.train, self.experiment.wals, jax.random.key(derive_seed(seed, 3)))
        known = known_items(split)
        counts = np.bincount(split.train.item_index, minlength=len(features)).astype(np.float32)
        key = jax.random.key(derive_seed(seed, 4))
        targets = np.asarray(wals.item_embeddings)[known]
        fit = fit_head(features[known], targets, counts[known], self.experiment.domain_encoder, key)
        return np.asarray(wals.user_embeddings, np.float64), DomainEncoder(self.features, fit)

    def _imagined(self, catalogue: Catalogue, seed: int, kind: str) -> list[str]:
        settings = WalkSettings(seed=seed, num_walks=self.walks)
        environment = LLMEnvironment(
            generator=self.generator,
            book=COMPACT,
            entity_format=catalogue.entity_format,
            sampling=self.experiment.environment,
        )
        folder = self.out / "walks" / f"{seed}-{kind.replace(' ', '_')}"
        stage = StageFolder(folder, dataclasses.asdict(settings) | {"environment": self.generator.name})
        return walk_evenly(stage, environment, catalogue.descriptions, every_instruction(), settings)


def _distances(users: np.ndarray, center: np.ndarray, others: np.ndarray) -> np.ndarray:
    return distances_between(by_ratings(users, center[None]), by_ratings(users, others))[0]


def _place(values: np.ndarray, number: int) -> int:
    """How many of the values are larger than that one, from 1."""
    return 1 + int((values > values[number]).sum())


def page(made_by: dict[str, str], notes: list[str], rows: Sequence[dict[str, Any]], setting: str) -> str:
    """The table and its verdicts."""
    lines = ["# What is missing from MiniLens\n", *(f"{note}\n" for note in notes), f"{setting}\n"]
    table = []
    for kind in (COMPLETE, CLUSTER, LIKED):
        own = [row for row in rows if row["kind"] == kind]
        first = "-" if kind == COMPLETE else f"{sum(row['place'] == 1 for row in own)} of {len(own)}"
        shown = f"{sum(row['is_shown'] for row in own)} of {len(own)}"
        excess = ", ".join(f"{row['excess']:.1f}" for row in own)
        places = ", ".join(str(row.get("place", "-")) for row in own)
        table.append([kind, first, shown, places, excess])
    header = ["taken out", "ranks first", "told apart from chance", "place, by seed", "deviations, by seed"]
    lines += [rounds.markdown_table(header, table), "## Made by\n"]
    return "\n".join([*lines, *(f"- {name}: {value}" for name, value in made_by.items())]) + "\n"


def main(_) -> None:
    made_by, notes, out = rounds.machine(("jax", "numpy", "scipy")), rounds.load_warning(), Path(_OUT.value)
    (out / "parts").mkdir(parents=True, exist_ok=True)
    bench = Bench(out, _WALKS.value, _ENVIRONMENT.value)
    rows = [row for seed in range(_SEEDS.value) for row in bench.world(seed)]
    setting = f"Environment: {_ENVIRONMENT.value}; {_WALKS.value} walks; alarm level {GapSettings().level:.0%}."
    written = page(made_by, notes, rows, setting.replace("%", " %"))
    rounds.write_results(out, written, {"machine": made_by, "notes": notes, "rows": rows})
    print(written)


if __name__ == "__main__":
    app.run(main)
