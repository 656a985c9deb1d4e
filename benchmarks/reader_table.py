"""The file that `readers` reads and the table that it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import rounds

TARGET = 20.0  # times the earlier build's speed per row
NUM_FILMS = 59_047  # rated ones of MovieLens 25M
_RATINGS_PER_USER = 154
_PIECE = 1_000_000  # rows in memory as Python's numbers


def write_ratings(path: Path, num_rows: int, num_bad: int, seed: int) -> int:
    """A ratings.csv in the shape of MovieLens 25M; returns its number of rows, about `num_rows`."""
    rng = np.random.default_rng(seed)
    num_users = max(1, num_rows // _RATINGS_PER_USER)
    share = rng.lognormal(0.0, 1.2, num_users)
    counts = np.maximum(20, (num_rows * share / share.sum()).astype(int))
    user = np.repeat(np.arange(1, num_users + 1), counts)
    film = (NUM_FILMS * rng.random(len(user)) ** 2).astype(np.int64) + 1  # a few have most of the ratings
    pair = np.unique(user * (NUM_FILMS + 1) + film)  # in the file's order, and nothing is rated twice
    rating = rng.integers(1, 11, len(pair)) / 2
    ratings = (rng.integers(1, 11, len(pair)) / 2).astype(str)
    times = rng.integers(789_652_009, 1_574_327_703, len(pair))
    spoilt = set(rng.choice(len(pair), num_bad, replace=False).tolist())
    with path.open("w") as file:
        file.write("userId,movieId,rating,timestamp\n")
        for start in range(0, len(pair), _PIECE):
            piece = slice(start, start + _PIECE)
            rows = zip(*np.divmod(pair[piece], NUM_FILMS + 1), ratings[piece], times[piece], strict=True)
            for place, (one, other, rating, when) in enumerate(rows, start):
                file.write(f"{one},{other},{rating},{when}{',0' * (place in spoilt)}\n")
    return len(pair)


def page(made_by, notes, rows) -> str:
    """The table in Markdown."""
    table = rounds.markdown_table(
        ("who", "rows", "seconds", "rows/s", "times ours", "peak MiB", "busy cores", "same table"),
        (
            (
                row["who"],
                f"{row['rows']:,}",
                rounds.spread(row["seconds"]),
                rounds.spread(row["rows_per_second"]),
                rounds.spread(row["ratios"]),
                f"{row['peak_mebibytes']:,.0f}",
                rounds.spread(row["busy_cores"], 2),
                "yes" if row["is_the_same"] else "**no**",
            )
            for row in rows
        ),
    )
    verdicts = [
        rounds.Verdict(f"{TARGET:.0f}x the earlier build", f"{row['rows']:,} rows", f"{middle:.1f}x", middle >= TARGET)
        for row in rows[1:]
        if (middle := float(np.median(row["ratios"])))
    ]
    targets = rounds.markdown_table(
        ("target", "setting", "reached", ""),
        ((v.target, v.setting, v.reached, rounds.OUTCOME[v.is_met]) for v in verdicts),
    )
    machine = "\n".join(f"- {name}: {value}" for name, value in made_by.items())
    remarks = "".join(f"- {note}\n" for note in notes)
    return (
        f"# Reading ratings, {rows[0]['num_bad_rows']} bad rows\n\n"
        f"Median [least, largest] of {len(rows[0]['seconds'])} rounds.\n\n"
        f"## Times\n\n{table}\n## Targets\n\n{targets}\n## Machine\n\n{machine}\n{remarks}"
    )
