"""The file that `readers` reads and the table that it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from benchmarks import rounds

OURS = "this build"
_WHOLE_ROWS = 20_000_000  # from which on memory is judged
TARGET = 20.0  # times the earlier build's speed per row
NUM_FILMS = 59_047  # rated ones of MovieLens 25M
_RATINGS_PER_USER = 154
_PIECE = 1_000_000  # rows in memory as text
# What spoils a row: one field more, bytes that are not UTF-8, a quote that nothing closes, no number.
_FAULTS = (
    lambda line: line + b",0",
    lambda line: b"\xff" + line,
    lambda line: b'"' + line,
    lambda line: line.replace(b".", b"_"),
)


def write_ratings(path: Path, num_rows: int, num_bad: int, seed: int) -> int:
    """A ratings.csv in the shape of MovieLens 25M; returns its number of rows, about `num_rows`."""
    rng = np.random.default_rng(seed)
    num_users = max(1, num_rows // _RATINGS_PER_USER)
    share = rng.lognormal(0.0, 1.2, num_users)
    counts = np.maximum(20, (num_rows * share / share.sum()).astype(int))
    user = np.repeat(np.arange(1, num_users + 1), counts)
    film = (NUM_FILMS * rng.random(len(user)) ** 2).astype(np.int64) + 1  # a few have most of the ratings
    pair = np.unique(user * (NUM_FILMS + 1) + film)  # in the file's order, and nothing is rated twice
    ratings = (rng.integers(1, 11, len(pair)) / 2).astype(str)
    times = rng.integers(789_652_009, 1_574_327_703, len(pair))
    spoilt = np.sort(rng.choice(len(pair), num_bad, replace=False))
    with path.open("wb") as file:
        file.write(b"userId,movieId,rating,timestamp\n")
        for start in range(0, len(pair), _PIECE):
            piece = slice(start, start + _PIECE)
            of_piece = [*np.divmod(pair[piece], NUM_FILMS + 1), ratings[piece], times[piece]]
            written = pa.BufferOutputStream()
            table = pa.Table.from_arrays(list(map(pa.array, of_piece)), list("abcd"))
            csv.write_csv(table, written, csv.WriteOptions(include_header=False, quoting_style="none"))
            lines = written.getvalue().to_pybytes().split(b"\n")
            for number, place in enumerate(spoilt):
                if start <= place < start + _PIECE:
                    lines[place - start] = _FAULTS[number % len(_FAULTS)](lines[place - start])
            file.write(b"\n".join(lines))
    return len(pair)


def page(made_by, notes, rows) -> str:
    """The table in Markdown."""
    table = rounds.markdown_table(
        ("who", "rows", "bad ones", "processor s", "times ours", "rows a processor s", "s", "peak MiB", "same table"),
        (
            (
                row["who"],
                f"{row['rows']:,}",
                f"{row['bad']:,}",
                rounds.spread(row["processor_seconds"]),
                rounds.spread(row["ratios"]),
                rounds.spread(row["rows_per_second"]),
                rounds.spread(row["seconds"]),
                f"{row['peak_mebibytes']:,.0f}",
                "yes" if row["is_the_same"] else "**no**",
            )
            for row in rows
        ),
    )
    verdicts = []
    for row in rows:
        setting = f"{row['rows']:,} rows, {row['bad']:,} of them bad"
        if row["who"] != OURS:
            middle = float(np.median(row["ratios"]))
            target = f"{TARGET:.0f}x the earlier build"
            verdicts.append(rounds.Verdict(target, setting, f"{middle:.1f}x", middle >= TARGET))
        elif row["rows"] >= _WHOLE_ROWS:
            peak = row["peak_mebibytes"]
            verdicts.append(rounds.Verdict("3 GB", setting, f"{peak:,.0f} MiB", peak * 2**20 <= 3e9))
    targets = rounds.markdown_table(
        ("target", "setting", "reached", ""),
        ((v.target, v.setting, v.reached, rounds.OUTCOME[v.is_met]) for v in verdicts),
    )
    machine = "\n".join(f"- {name}: {value}" for name, value in made_by.items())
    remarks = "".join(f"- {note}\n" for note in notes)
    return (
        "# Reading ratings\n\n"
        f"Median [least, largest] of {len(rows[0]['seconds'])} rounds; speeds and ratios are of processor seconds, "
        "which others on the machine disturb least.\n\n"
        f"## Times\n\n{table}\n## Targets\n\n{targets}\n## Machine\n\n{machine}\n{remarks}"
    )
