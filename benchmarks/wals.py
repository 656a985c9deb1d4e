"""How long an iteration of WALS takes: this build, an earlier one, and the libraries cmfrec and implicit.

    git worktree add ../earlier d862271
    bash launch/run.sh benchmarks.wals --earlier=../earlier --peers_python=../peers/bin/python --out=runs/wals_benchmark

Ratings are drawn from a seed in the shapes of MovieLens 1M and 10M. Contenders are processes of their own on the same
cores and take turns. cmfrec minimises the same objective, whose value is told; implicit that of implicit feedback, as
many operations an iteration. `--peers_python` is an interpreter that has both (and NumPy, SciPy and pandas).
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import rounds

_PACKAGES = ("jax", "jaxlib", "numpy")
_SHAPES = {
    "tiny": {"num_users": 60, "num_items": 50, "num_ratings": 1_000},
    "ml-1m": {"num_users": 6_040, "num_items": 3_706, "num_ratings": 1_200_000},
    "ml-10m": {"num_users": 69_878, "num_items": 10_677, "num_ratings": 10_000_000},
}
_TARGETS = {"the earlier build": 3.0, "cmfrec": 8.0, "implicit": 4.0}

_OUT = flags.DEFINE_string("out", "runs/wals_benchmark", "folder for the table")
_EARLIER = flags.DEFINE_string("earlier", None, "checkout of the earlier build; none: left out")
_PEERS_PYTHON = flags.DEFINE_string("peers_python", sys.executable, "interpreter with cmfrec and implicit")
_SHAPE = flags.DEFINE_multi_enum("shape", ["ml-1m", "ml-10m"], list(_SHAPES), "of the ratings")
_DIM = flags.DEFINE_multi_integer("dim", [32, 64], "d", lower_bound=1)
_ITERATIONS = flags.DEFINE_integer("iterations", 5, "timed in a turn", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "turns of every contender", lower_bound=1)
_CORES = flags.DEFINE_integer("cores", 2, "processor cores that each may use", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of the ratings")


def compare(shape: str, dim: int) -> list[dict[str, Any]]:
    """A row for each contender; ratios are of its seconds and ours of the same round, wall and processor."""
    data = {**_SHAPES[shape], "seed": _SEED.value}
    common = {"data": data, "dim": dim, "iterations": _ITERATIONS.value}
    contenders = {"this build": ("ours", {"checkout": None}, sys.executable)}
    if _EARLIER.value:
        earlier = {"checkout": str(Path(_EARLIER.value).resolve())}
        contenders["the earlier build"] = ("ours", earlier, sys.executable)
    for peer in ("cmfrec", "implicit"):
        contenders[peer] = (peer, {"cores": _CORES.value}, _PEERS_PYTHON.value)
    rows, workers = [], {}
    with contextlib.ExitStack() as stack:
        for who, (function, settings, python) in contenders.items():
            name = f"benchmarks.wals_contenders:{function}"
            started = rounds.worker(name, {**common, **settings}, cores=_CORES.value, platform="cpu", python=python)
            process = stack.enter_context(started)
            try:
                process.wait_until_ready()
                workers[who] = process
            except rounds.MissingPeer as missing:
                rows.append({"who": who, "shape": shape, "dim": dim, "missing": str(missing)})
        turns = rounds.take_turns([worker.run for worker in workers.values()], [_ROUNDS.value] * len(workers))
    ours = turns[0]
    for who, mine in zip(workers, turns, strict=True):
        pairs = list(zip(mine, ours, strict=True))
        rows.append(
            {
                "who": who,
                "shape": shape,
                "dim": dim,
                "seconds": [turn.seconds for turn in mine],
                "processor_seconds": [turn.values["processor_seconds"] for turn in mine],
                "ratios": [turn.seconds / own.seconds for turn, own in pairs],
                "processor_ratios": [
                    turn.values["processor_seconds"] / own.values["processor_seconds"] for turn, own in pairs
                ],
                "peak_mebibytes": mine[-1].peak_mebibytes,
                "objective": mine[-1].values["objective"],
                "compile_seconds": mine[-1].values.get("compile_seconds"),
                "share_of_matmul": _share_of_matmul(mine[-1], data, dim),
            }
        )
    return rows


def _share_of_matmul(turn: rounds.Turn, data: dict[str, int], dim: int) -> float | None:
    """Of a large product's operations a second: two passes over the ratings' outer products, and the factors."""
    if "matmul_flops" not in turn.values:
        return None
    width, num_rows = dim + 1, data["num_users"] + data["num_items"]
    return (4 * data["num_ratings"] * width**2 + num_rows * width**3 / 3) / turn.seconds / turn.values["matmul_flops"]


def page(made_by: dict[str, str], notes: list[str], rows: list[dict[str, Any]]) -> str:
    """The tables in Markdown."""
    present = [row for row in rows if "missing" not in row]

    def optional(value: float | None, text: str) -> str:
        return "-" if value is None else format(value, text)

    header = ("shape", "d", "who", "s an iteration", "times ours", "processor s", "times ours (processor)", "objective",
              "of matmul's peak", "compiling, s", "peak MiB")  # fmt: skip
    times = rounds.markdown_table(
        header,
        (
            (
                row["shape"],
                str(row["dim"]),
                row["who"],
                rounds.spread(row["seconds"]),
                rounds.spread(row["ratios"]),
                rounds.spread(row["processor_seconds"]),
                rounds.spread(row["processor_ratios"]),
                optional(row["objective"], ",.0f"),
                optional(row["share_of_matmul"], ".0%"),
                optional(row["compile_seconds"], ".2f"),
                f"{row['peak_mebibytes']:,.0f}",
            )
            for row in present
        ),
    )
    targets = rounds.markdown_table(
        ("target", "setting", "reached", ""),
        (
            (verdict.target, verdict.setting, verdict.reached, rounds.OUTCOME[verdict.is_met])
            for verdict in map(_verdict, rows)
            if verdict
        ),
    )
    machine = "\n".join(f"- {name}: {value}" for name, value in made_by.items())
    remarks = "".join(f"- {note}\n" for note in notes)
    return f"# An iteration of WALS\n\n## Times\n\n{times}\n## Targets\n\n{targets}\n## Machine\n\n{machine}\n{remarks}"


def _verdict(row: dict[str, Any]) -> rounds.Verdict | None:
    """By processor seconds, which others on the machine disturb least; compilation is that of a fit of 15."""
    setting = f"{row['shape']}, d = {row['dim']}"
    if "missing" in row:
        return rounds.Verdict(f"{_TARGETS[row['who']]:g}x {row['who']}", setting, row["missing"], None)
    if row["who"] == "this build":
        share = row["compile_seconds"] / (row["compile_seconds"] + 15 * statistics.median(row["seconds"]))
        return rounds.Verdict("compiling at most a third of 15 iterations", setting, f"{share:.0%}", share <= 1 / 3)
    target, middle = _TARGETS[row["who"]], statistics.median(row["processor_ratios"])
    return rounds.Verdict(f"{target:g}x {row['who']}", setting, f"{middle:.2f}x", middle >= target)


def main(_) -> None:
    made_by, notes = rounds.machine(_PACKAGES), rounds.load_warning()
    rows = [row for shape in _SHAPE.value for dim in _DIM.value for row in compare(shape, dim)]
    written = page(made_by, notes, rows)
    rounds.write_results(Path(_OUT.value), written, {"machine": made_by, "notes": notes, "compared": rows})
    print(written)


if __name__ == "__main__":
    app.run(main)
