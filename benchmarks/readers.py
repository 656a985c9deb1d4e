"""How fast a file of ratings becomes a table: this build against an earlier one.

    git worktree add ../earlier d862271
    bash launch/run.sh benchmarks.readers --earlier=../earlier --out=runs/readers_benchmark

The file is drawn from a seed in the shape of MovieLens 25M (2019): users with about 154 ratings one
after the other, films by popularity, half stars, times, in its CSV; with some of its rows spoilt in four
ways on request. Each build is a process of its own on the same cores; they take turns, so that a ratio is of
neighbours in time, and both must give the same table. About 10 minutes on two quiet cores. The
memory of the whole, of this build alone:

    bash launch/run.sh benchmarks.readers --rows=25000000 --rounds=1 --out=runs/readers_whole_benchmark
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import rounds
from benchmarks.reader_table import NUM_FILMS, OURS, page, write_ratings

_PACKAGES = ("numpy", "pyarrow")
_CONTENDER = "benchmarks.reader_contenders:reading"

_OUT = flags.DEFINE_string("out", "runs/readers_benchmark", "folder for the table")
_EARLIER = flags.DEFINE_string("earlier", None, "checkout of the earlier build; none: ours alone")
_EARLIER_PYTHON = flags.DEFINE_string("earlier_python", None, "its interpreter; none: this one")
_SEED = flags.DEFINE_integer("seed", 0, "of the file")
_ROWS = flags.DEFINE_integer("rows", 5_000_000, "of the file", lower_bound=1)
_BAD = flags.DEFINE_multi_integer("bad", [0], "rows that are no ratings, a table's part each", lower_bound=0)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "turns of every build", lower_bound=1)
_CORES = flags.DEFINE_integer("cores", 2, "processor cores that each may use", lower_bound=1)


def compare(file: Path, num_rows: int, num_bad: int) -> list[dict[str, Any]]:
    """A row for each build, of a file with bad rows; ratios are of the earlier one's processor seconds and ours of the
    same round."""
    builds = {OURS: (None, None)}
    if _EARLIER.value:
        checkout = str(Path(_EARLIER.value).resolve())
        builds["earlier build"] = (checkout, _EARLIER_PYTHON.value)
    with contextlib.ExitStack() as stack:
        workers = []
        for checkout, python in builds.values():
            settings = {"file": str(file), "num_items": NUM_FILMS, "checkout": checkout}
            other = {"python": python} if python else {}
            workers.append(
                stack.enter_context(rounds.worker(_CONTENDER, settings, cores=_CORES.value, platform=None, **other))
            )
            workers[-1].wait_until_ready()
        turns = rounds.take_turns([worker.run for worker in workers], [_ROUNDS.value] * len(workers))
    ours = turns[0]
    busy = [[turn.values.pop("processor_seconds") for turn in mine] for mine in turns]
    return [
        {
            "who": who,
            "rows": num_rows,
            "bad": num_bad,
            "seconds": [turn.seconds for turn in mine],
            "processor_seconds": spent,
            "rows_per_second": [num_rows / seconds for seconds in spent],
            "ratios": [seconds / own for seconds, own in zip(spent, busy[0], strict=True)],
            "peak_mebibytes": max(turn.peak_mebibytes for turn in mine),
            "is_the_same": all(turn.values == ours[0].values for turn in mine),
            **mine[0].values,
        }
        for who, mine, spent in zip(builds, turns, busy, strict=True)
    ]


def main(_) -> None:
    made_by, notes = rounds.machine(_PACKAGES), rounds.load_warning()
    with tempfile.TemporaryDirectory() as folder:
        file, rows = Path(folder) / "ratings.csv", []
        for num_bad in _BAD.value:
            num_rows = write_ratings(file, _ROWS.value, num_bad, _SEED.value)
            rows += compare(file, num_rows, num_bad)
    written = page(made_by, notes, rows)
    rounds.write_results(Path(_OUT.value), written, {"machine": made_by, "notes": notes, "compared": rows})
    print(written)


if __name__ == "__main__":
    app.run(main)
