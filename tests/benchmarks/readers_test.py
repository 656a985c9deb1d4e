"""Both builds read the drawn file, a plain loop agrees with them, and ratios are of the same round."""

import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np

from benchmarks.reader_table import page, write_ratings
from benchmarks.rounds import ROOT
from tests.programs import run_module

# What an earlier build looks like to the benchmark; it reads by a loop.
EARLIER = """
import re, types
import numpy as np

def read_ratings(path, *, known_items):
    item_of, users, rows, bad = {name: n for n, name in enumerate(known_items)}, {}, [], []
    for line in path.read_bytes().splitlines()[1:]:
        if not re.fullmatch(rb"\\d+,\\d+,\\d[.]\\d,\\d+", line):
            bad.append(line)
            continue
        row = line.decode().split(",")
        rows.append((users.setdefault(row[0], len(users)), item_of[row[1]], float(row[2])))
    user, item, rating = zip(*rows)
    class Table(types.SimpleNamespace):
        def __len__(self):
            return len(self.rating)
    index = [np.array(values, np.int32) for values in (user, item)]
    names = {"user_names": tuple(users), "user_index": index[0], "item_index": index[1]}
    return Table(rating=np.array(rating, np.float32), **names), bad
"""


def test_the_file_is_of_the_shape_that_is_promised(tmp_path):
    number = write_ratings(tmp_path / "ratings.csv", 20_000, 5, seed=1)
    header, *lines = (tmp_path / "ratings.csv").read_bytes().splitlines()
    assert header == b"userId,movieId,rating,timestamp"
    assert len(lines) == number and 0.9 < number / 20_000 < 1.2
    rows = [line.split(b",") for line in lines if re.fullmatch(rb"\d+,\d+,\d[.]\d,\d+", line)]
    assert len(rows) == number - 5
    pairs = [(int(row[0]), int(row[1])) for row in rows]
    assert pairs == sorted(set(pairs)) and min(Counter(user for user, _ in pairs).values()) >= 10
    assert {row[2].decode() for row in rows} == {str(half / 2) for half in range(1, 11)}


def test_the_script_compares_builds_and_writes_its_table(tmp_path):
    package = tmp_path / "earlier" / "eagle_jax" / "data"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package / "ratings.py").write_text(EARLIER)
    flags = [f"--earlier={tmp_path / 'earlier'}", "--rounds=2", "--rows=5000", "--bad=4", f"--out={tmp_path / 'out'}"]
    done = run_module("benchmarks.readers", *flags)
    assert done.returncode == 0, done.stderr
    ours, earlier = json.loads((tmp_path / "out" / "results.json").read_text())["compared"]
    assert (ours["who"], earlier["who"]) == ("this build", "earlier build")
    assert ours["table"] == earlier["table"] and ours["is_the_same"] and earlier["is_the_same"]
    assert ours["num_bad_rows"] == earlier["num_bad_rows"] == 4
    assert ours["num_ratings"] == ours["rows"] - 4
    spent = np.array(earlier["processor_seconds"]) / ours["processor_seconds"]
    np.testing.assert_allclose(earlier["ratios"], spent)
    assert (tmp_path / "out" / "results.md").read_text().strip() in done.stdout


def test_a_target_is_judged_by_the_median():
    common = {"rows": 100, "seconds": [1.0], "rows_per_second": [100.0], "processor_seconds": [1.0]}
    common |= {"is_the_same": True, "bad": 0, "peak_mebibytes": 4000.0}
    for ratios, said in (([19.0, 21.0, 30.0], "| 21.0x | met |"), ([30.0, 19.9, 2.0], "| 19.9x | **missed** |")):
        rows = [{"who": "this build", "ratios": [1.0], **common}, {"who": "earlier build", "ratios": ratios, **common}]
        assert said in page({}, [], rows)
        assert "3 GB" not in page({}, [], rows)
    whole = {"who": "this build", "ratios": [1.0], **common, "rows": 25_000_000}
    assert "| 3 GB | 25,000,000 rows, 0 of them bad | 4,000 MiB | **missed** |" in page({}, [], [whole])


def test_a_process_does_not_count_the_memory_of_its_parent():
    """getrusage does on Linux: the file is drawn in gigabytes by who starts the readers."""
    program = "import benchmarks.worker; print(benchmarks.worker.peak_mebibytes())"
    held = np.ones(60_000_000)  # 458 MiB
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert 1 < float(done.stdout) < held.nbytes / 2**20 / 4, done
