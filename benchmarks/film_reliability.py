"""How reliable the two parts of U are on real films, and how many ratings it takes.

    export EAGLE_EXTRAS=benchmarks EAGLE_DATA=<folder with ml-latest-small>   # scikit-learn
    bash launch/run.sh benchmarks.film_reliability --out=runs/film_rewards_benchmark

Films as in `benchmarks.film_rewards`, whose --out may be shared (features of plots are kept there). Four
folds of films are split in halves, an encoder with users is fitted to each half alone, and both are asked
about the films of the fifth: the correlation of what everybody likes, and of what a user (or a group of
users, found by k-means in the first half alone) likes. The curve draws a share of all ratings. The goal is
0.45 for the personal part. About 5 minutes on two quiet cores.

Axis letters: `U` users, `T` texts.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import rounds
from benchmarks.film_rewards import ALL, FIELDS, MINI_LM, Bench
from benchmarks.film_rows import HEAD, Row, wals_settings
from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.seeds import derive_seed
from eagle_jax.embeddings.reliability import (
    HalfSettings,
    UserTerms,
    agreement_of_halves,
    fit_half,
    halves,
    of_both_halves,
)

_PACKAGES = ("jax", "numpy", "scikit-learn")
_GOAL = 0.45
_MANY = 100  # ratings of a user who has many

_REWARDS_OUT = flags.DEFINE_string(
    "reliability_out", "runs/film_rewards_benchmark", "folder for the table and its parts"
)
_SHARES = flags.DEFINE_list("shares", "1,0.5,0.25,0.125", "of the ratings, of the curve")
_GROUPS = flags.DEFINE_list("groups", "4,16,64", "numbers of groups in place of users")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Which encoder, and of how many of the ratings."""

    fields: str = FIELDS
    width: int = 16
    users: str = "texts"
    share: float = 1.0

    @property
    def name(self) -> str:
        """Of its file."""
        return "reliability-" + "-".join(map(str, dataclasses.astuple(self))).replace(" ", "").replace(",", "_")


def cases() -> list[Case]:
    """Of the table: both kinds of users, both sets of fields, widths, and the curve."""
    curve = [Case(share=share) for share in map(float, _SHARES.value)]
    return [Case(users="ratings"), Case(fields=ALL), Case(width=4), *curve]


def told(case: Case, bench: Bench, seed: int) -> dict[str, Any]:
    """Reliabilities of the case, by who is asked for."""
    ratings, fold = bench.ratings, bench.fold
    rng = np.random.default_rng(derive_seed(seed, 0))
    kept = np.flatnonzero((fold[ratings.item_index] != 0) & (rng.random(len(ratings)) < case.share))
    features = bench.features(Row(fields=case.fields, features=MINI_LM if case.fields == ALL else "none"))
    settings = HalfSettings(wals_settings(case.width), HEAD, item_bias=True, users_from_texts=case.users == "texts")
    parts = halves(ratings.take(kept), np.flatnonzero(fold != 0), derive_seed(seed, 1))
    pair = [fit_half(part, features, settings, derive_seed(seed, 2, index)) for index, part in enumerate(parts)]
    first, second = (half.terms(features[fold == 0]) for half in pair)
    count = np.bincount(ratings.user_index[kept], minlength=ratings.num_users)
    groups = np.zeros(first.common.shape[0], int)

    def of_users(users: np.ndarray) -> dict[str, float]:
        return agreement_of_halves(first, second, groups, users)._asdict() | {"num": len(users)}

    found = {"all users": of_users(np.arange(ratings.num_users))}
    if (many := np.flatnonzero(count >= _MANY)).size > 1:
        found[f"users with {_MANY} ratings or more"] = of_users(many)
    for number in map(int, _GROUPS.value):
        halves_of_groups = grouped(first, second, number, seed)
        found[f"{number} groups"] = agreement_of_halves(*halves_of_groups, groups, np.arange(number))._asdict() | {
            "num": number
        }
    return {"ratings_per_user": float(np.mean(count) / 2), "found": found}


def grouped(first: UserTerms, second: UserTerms, number: int, seed: int) -> tuple[UserTerms, UserTerms]:
    """Means over groups of users that the first half alone has formed."""
    from sklearn.cluster import KMeans

    label = KMeans(number, n_init=4, random_state=seed).fit_predict(first.personal)
    member = (label[None] == np.arange(number)[:, None]) / np.bincount(label, minlength=number)[:, None]
    return UserTerms(first.common, member @ first.personal), UserTerms(second.common, member @ second.personal)


def page(made_by: dict[str, str], notes: list[str], rows: list[tuple[Case, dict[str, Any]]]) -> str:
    """The table, and whether anything reaches the goal."""
    lines = []
    for case, result in rows:
        for who, found in result["found"].items():
            lines.append(
                [case.fields, case.users, str(case.width), f"{result['ratings_per_user']:.0f}", who]
                + [f"{found[name]:.3f}" for name in ("common", "personal")]
                + [f"{of_both_halves(found['personal']):.3f}", f"{found['common_share']:.0%}"]
            )
    best = max(rows, key=lambda row: row[1]["found"]["all users"]["personal"])
    personal = best[1]["found"]["all users"]["personal"]
    reached = "reached" if personal >= _GOAL else "missed"
    return "\n".join(
        [
            "# How reliable the parts of U are\n",
            *(f"{note}\n" for note in notes),
            f"Goal {_GOAL} for the personal part over all users: {reached}, {personal:.3f} by {best[0].fields}, users "
            f"of {best[0].users}, width {best[0].width}, {best[1]['ratings_per_user']:.0f} ratings a user and half.\n",
            "## Rows\n",
            rounds.markdown_table(
                ["fields", "users of", "width", "ratings of a user in a half", "asked about", "common", "personal"]
                + ["personal, both halves", "common share"],
                lines,
            ),
            "## Made by\n",
            *(f"- {name}: {value}" for name, value in made_by.items()),
        ]
    )


def main(_) -> None:
    made_by, notes = rounds.machine(_PACKAGES), rounds.load_warning()
    out = Path(flags.FLAGS.out)  # film_rewards has the flag
    (out / "parts").mkdir(parents=True, exist_ok=True)
    bench, rows = Bench(Path(os.environ["EAGLE_DATA"]), out, 0), []
    for case in cases():
        path = out / "parts" / f"{case.name}.json"
        if not path.exists():
            text = json.dumps(told(case, bench, 0))
            write_atomically(path, lambda file, text=text: file.write(text.encode()))
        rows.append((case, json.loads(path.read_text())))
        print(case.name, rows[-1][1]["found"]["all users"], flush=True)
    written = page(made_by, notes, rows)
    record = [vars(case) | result for case, result in rows]
    write_atomically(out / "reliability.md", lambda file: file.write(written.encode()))
    write_atomically(out / "reliability.json", lambda file: file.write(json.dumps(record, indent=1).encode()))
    print(written)


if __name__ == "__main__":
    app.run(main)
