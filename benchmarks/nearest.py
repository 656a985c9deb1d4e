"""How long U takes beside a large catalogue, whose nearest entities it wants: this build and an earlier one.

    git worktree add ../earlier d862271
    bash launch/run.sh benchmarks.nearest --earlier=../earlier --out=runs/nearest_benchmark

Both are processes of their own on the same cores and take turns, on the same points and entities, drawn from a seed.
The earlier build goes from point to point, so it is given fewer of them, and seconds are those of a point. The bare
product is that of all points and entities, 2 d operations each, at the rate of a large one.
"""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import rounds

_TARGET, _OURS = 5.0, "this build"

_OUT = flags.DEFINE_string("out", "runs/nearest_benchmark", "folder for the table")
_EARLIER = flags.DEFINE_string("earlier", None, "checkout of the earlier build; none: left out")
_ITEMS = flags.DEFINE_integer("num_items", 1_000_000, "N", lower_bound=64)
_POINTS = flags.DEFINE_integer("num_points", 10_000, "of this build", lower_bound=64)
_EARLIER_POINTS = flags.DEFINE_integer("earlier_points", 128, "of the earlier build", lower_bound=64)
_WIDTHS = flags.DEFINE_multi_integer("width", [8, 32], "d", lower_bound=1)
_TURNS = flags.DEFINE_integer("turns", 3, "of each", lower_bound=1)


def compare(dim: int) -> list[dict[str, Any]]:
    """A row for each build; ratios are of its seconds and ours of the same round, wall and processor."""
    common, name = {"num_items": _ITEMS.value, "dim": dim}, "benchmarks.nearest_contenders:utility"
    builds = {_OURS: (None, _POINTS.value)}
    if _EARLIER.value:
        builds["the earlier build"] = (str(Path(_EARLIER.value).resolve()), _EARLIER_POINTS.value)
    with contextlib.ExitStack() as stack:
        workers = []
        for checkout, number in builds.values():
            given = {**common, "num_points": number, "checkout": checkout}
            workers.append(stack.enter_context(rounds.worker(name, given, cores=2)))
            workers[-1].wait_until_ready()
        turns = rounds.take_turns([worker.run for worker in workers], [_TURNS.value] * len(workers))
    rows = []
    for (who, (_, number)), mine in zip(builds.items(), turns, strict=True):
        row = {
            "who": who,
            "dim": dim,
            "points": number,
            "seconds": [turn.seconds / number for turn in mine],
            "processor_seconds": [turn.values["processor_seconds"] / number for turn in mine],
            "bound": 2 * _ITEMS.value * dim / mine[0].values["matmul_flops"],
            "peak_mebibytes": mine[-1].peak_mebibytes,
            # The first points of both are the same.
            "difference": float(np.abs(np.subtract(*(of[0].values["distances"] for of in (mine, turns[0])))).max()),
        }
        for key in ("seconds", "processor_seconds"):
            row[f"{key}_ratios"] = [theirs / own for theirs, own in zip(row[key], (rows or [row])[0][key], strict=True)]
        rows.append(row)
    return rows


def page(made_by: dict[str, str], notes: list[str], rows: list[dict[str, Any]]) -> str:
    """The tables in Markdown."""
    header = ("d", "who", "points", "ms a point", "times ours", "processor ms", "times ours (processor)",
              "ms of the bare product", "terms differ by", "peak MiB")  # fmt: skip
    times = rounds.markdown_table(
        header,
        (
            (
                str(row["dim"]),
                row["who"],
                f"{row['points']:,}",
                rounds.spread([1e3 * each for each in row["seconds"]]),
                rounds.spread(row["seconds_ratios"]),
                rounds.spread([1e3 * each for each in row["processor_seconds"]]),
                rounds.spread(row["processor_seconds_ratios"]),
                f"{1e3 * row['bound']:.2g}",
                f"{row['difference']:.1e}",
                f"{row['peak_mebibytes']:,.0f}",
            )
            for row in rows
        ),
    )
    reached = [(row, statistics.median(row["processor_seconds_ratios"])) for row in rows if row["who"] != _OURS]
    targets = rounds.markdown_table(
        ("target", "setting", "reached", ""),
        (
            (f"{_TARGET:g}x {row['who']}", f"d = {row['dim']}", f"{middle:.1f}x", rounds.OUTCOME[middle >= _TARGET])
            for row, middle in reached
        ),
    )
    machine = "\n".join(f"- {name}: {value}" for name, value in made_by.items())
    remarks = "".join(f"- {note}\n" for note in notes)
    title = f"# U beside {_ITEMS.value:,} entities, three neighbours"
    return f"{title}\n\n## Times\n\n{times}\n## Targets\n\n{targets}\n## Machine\n\n{machine}\n{remarks}"


def main(_) -> None:
    made_by, notes = rounds.machine(("jax", "jaxlib", "numpy")), rounds.load_warning()
    rows = [row for dim in _WIDTHS.value for row in compare(dim)]
    written = page(made_by, notes, rows)
    rounds.write_results(Path(_OUT.value), written, {"machine": made_by, "notes": notes, "compared": rows})
    print(written)


if __name__ == "__main__":
    app.run(main)
