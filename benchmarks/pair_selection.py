"""How fast pairs of responses are selected: ours against loops of NumPy and scikit-learn.

    export EAGLE_EXTRAS=benchmarks                                       # scikit-learn
    bash launch/run.sh benchmarks.pair_selection --out=runs/pair_selection_benchmark

easy against a loop of NumPy's cosines and centroid against a loop of scikit-learn's KMeans, on the
same prompts; each contender is a process of its own on the same cores, and they take turns, so that
a ratio is of neighbours in time. Ours is the whole call after one that compiles: float32 arrays in,
NumPy pairs out. Then 10^6 prompts in shards, with the process's memory at its highest (the making
of the shards is in the seconds). About 6 minutes on two quiet cores.

Axis letters: K responses, D width of an embedding.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import rounds
from benchmarks.pair_table import rows_of

_PACKAGES = ("jax", "jaxlib", "numpy", "scikit-learn")
_CONTENDERS = "benchmarks.pair_contenders"

_OUT = flags.DEFINE_string("out", "runs/pair_selection_benchmark", "folder for the table")
_SEED = flags.DEFINE_integer("seed", 0, "of the embeddings")
_STRATEGIES = flags.DEFINE_list("strategies", "easy,centroid", "what is timed")
_RESPONSES = flags.DEFINE_list("responses", "8,64", "K")
_WIDTH = flags.DEFINE_integer("width", 384, "D", lower_bound=1)
_PROMPTS = flags.DEFINE_integer("prompts", 4096, "prompts of a turn of ours with K = 8")
_PEER_PROMPTS = flags.DEFINE_integer("peer_prompts", 256, "prompts of a turn of the peers")
_STARTS = flags.DEFINE_list("starts", "1,10", "n_init of scikit-learn's k-means")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "turns of every contender", lower_bound=1)
_CORES = flags.DEFINE_integer("cores", 2, "processor cores that each may use", lower_bound=1)
_PIECE = flags.DEFINE_integer("piece", 512, "rows_per_program with K = 8", lower_bound=1)
_STREAM = flags.DEFINE_integer("stream", 1_000_000, "prompts in shards, K = 8; 0: left out")
_SHARD = flags.DEFINE_integer("shard", 16_384, "prompts of a shard", lower_bound=1)


def compare(strategy: str, num_responses: int) -> list[dict[str, Any]]:
    """A row for ours, and one for each peer that is there, with ratios of seconds per prompt."""
    share = max(1, num_responses // 8) ** 2  # distances are K x K
    common = {"strategy": strategy, "num_responses": num_responses, "width": _WIDTH.value, "seed": _SEED.value}
    number = max(_PROMPTS.value // share, _PEER_PROMPTS.value)
    piece = max(1, min(_PIECE.value // max(1, num_responses // 8), number))
    settings = {"ours": common | {"number": number, "rows_per_program": piece}}
    for starts in map(int, _STARTS.value) if strategy == "centroid" else (0,):
        name = f"scikit-learn, {starts} starts" if starts else "NumPy"
        settings[name] = common | {"number": _PEER_PROMPTS.value, "num_starts": starts}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, own in settings.items():
            function = "ours" if name == "ours" else "loops"
            contender = rounds.worker(f"{_CONTENDERS}:{function}", own, cores=_CORES.value)
            worker = stack.enter_context(contender)
            try:
                worker.wait_until_ready()
            except rounds.MissingPeer as missing:
                print(f"{name}: {missing}")
                continue
            workers[name] = worker
        turns = rounds.take_turns([worker.run for worker in workers.values()], [_ROUNDS.value] * len(workers))
    return rows_of(strategy, num_responses, dict(zip(workers, turns, strict=True)), settings)


def streamed(strategy: str) -> dict[str, Any]:
    """Prompts a second and MiB of many prompts in shards."""
    settings = {
        "strategy": strategy,
        "num_responses": 8,
        "width": _WIDTH.value,
        "number": _STREAM.value,
        "seed": _SEED.value,
        "rows_per_shard": _SHARD.value,
        "rows_per_program": _PIECE.value,
    }
    with rounds.worker(f"{_CONTENDERS}:stream", settings, cores=_CORES.value) as worker:
        before = worker.wait_until_ready()
        turn = worker.run()
    return {
        **settings,
        "seconds": turn.seconds,
        "prompts_per_second": _STREAM.value / turn.seconds,
        "selected": turn.values["selected"],
        "peak_mebibytes": turn.peak_mebibytes,
        "mebibytes_before": before,
    }


def page(made_by, notes, compared, streams) -> str:
    """The table in Markdown."""
    tables = rounds.markdown_table(
        ("strategy", "K", "who", "us per prompt", "times ours", "equal pairs", "busy cores"),
        (
            (
                row["strategy"],
                str(row["num_responses"]),
                row["who"],
                rounds.spread(row["microseconds"]),
                rounds.spread(row["ratios"]),
                f"{row['equal_pairs']:.0%}",
                rounds.spread(row["busy_cores"], 2),
            )
            for row in compared
        ),
    )
    streams_table = rounds.markdown_table(
        ("strategy", "prompts", "K", "prompts/s", "peak MiB", "MiB before the first shard"),
        (
            (
                row["strategy"],
                f"{row['selected']:,}",
                str(row["num_responses"]),
                f"{row['prompts_per_second']:,.0f}",
                f"{row['peak_mebibytes']:,.0f}",
                f"{row['mebibytes_before']:,.0f}",
            )
            for row in streams
        ),
    )
    machine = "\n".join(f"- {name}: {value}" for name, value in made_by.items())
    remarks = "".join(f"- {note}\n" for note in notes)
    return (
        f"# Pair selection, cosine, D = {_WIDTH.value}\n\nMedian [least, largest] of "
        f"{_ROUNDS.value} rounds.\n\n{tables}\n## In shards\n\n{streams_table}\n"
        f"## Machine\n\n{machine}\n{remarks}"
    )


def main(_) -> None:
    made_by, notes = rounds.machine(_PACKAGES), rounds.load_warning()
    compared = [
        row
        for strategy in _STRATEGIES.value
        for num_responses in map(int, _RESPONSES.value)
        for row in compare(strategy, num_responses)
    ]
    streams = [streamed(strategy) for strategy in _STRATEGIES.value if _STREAM.value]
    written = page(made_by, notes, compared, streams)
    record = {"machine": made_by, "notes": notes, "compared": compared, "streams": streams}
    rounds.write_results(Path(_OUT.value), written, record)
    print(written)


if __name__ == "__main__":
    app.run(main)
