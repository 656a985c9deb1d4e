"""RESULTS.md quotes runs to the letter, and keeps what it has of runs that are not there."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import results

REPORT = """# A run

## In short

- it steers.

## Results

![a picture.](report_a.png)
Its caption.

### A table

| a | b |
| --- | ---: |
| x | 1 |

Words.

### Another

no
"""
MADE = {
    "command": "python -m experiments.eagle --workdir=/home/x/runs/a --config.seed=1",
    "commit": "0123456789abcdef",
    "python": "3.11.7",
    "packages": {"jax": "0.10.2"},
}
PAGE = """# Results

By hand.
<!-- run: a -->
old
<!-- end -->
Between.
<!-- run: b -->
kept
<!-- end -->
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for stage, time in (("first", "2026-01-01T00:00:00"), ("last", "2026-02-03T00:00:00")):
        folder = tmp_path / "a" / stage
        folder.mkdir(parents=True)
        made = MADE | {"time": time, "commit": stage + "xxxxxxx"}
        (folder / "MANIFEST.json").write_text(json.dumps({"provenance": made}))
    (tmp_path / "a" / "report.md").write_text(REPORT)
    (tmp_path / "a" / "results.json").write_text('{"report": "eagle/report"}')  # of the report, not of a benchmark
    monkeypatch.setattr(results, "QUOTED", {"a": ("In short", "A table"), "b": ("In short",)})
    return tmp_path


def test_a_section_ends_at_the_next_heading_of_its_level_and_has_no_picture():
    assert results.section(REPORT, "A table") == "| a | b |\n| --- | ---: |\n| x | 1 |\n\nWords."
    assert results.section(REPORT, "Results").startswith("### A table")
    assert results.section(REPORT, "Results").endswith("no")
    with pytest.raises(ValueError, match="no heading 'Nothing'"):
        results.section(REPORT, "Nothing")


def test_only_runs_that_are_there_are_renewed(runs):
    page, renewed = results.renew(PAGE, runs)
    assert renewed == ["a"]
    assert page == PAGE.replace(
        "old\n",
        "`python -m experiments.eagle --config.seed=1`, commit lastxxx, Python 3.11.7, "
        "jax 0.10.2, 2026-02-03.\n\n**In short**\n\n- it steers.\n\n**A table**\n\n| a | b |\n"
        "| --- | ---: |\n| x | 1 |\n\nWords.\n",
    )
    assert results.renew(page, runs)[0] == page


def test_an_unknown_run_is_named(runs):
    with pytest.raises(ValueError, match="run 'c' is none of a, b"):
        results.renew(PAGE.replace("run: b", "run: c"), runs)


def test_the_page_has_a_block_for_every_run_that_is_quoted():
    page = (results.ROOT / "RESULTS.md").read_text()
    assert sorted(re.findall(r"<!-- run: (\S+) -->", page)) == sorted(results.QUOTED)
    assert page.count("<!-- end -->") == len(results.QUOTED)


def test_a_benchmark_is_quoted_from_its_own_page(runs):
    folder = runs / "b"
    folder.mkdir()
    (folder / "results.md").write_text("# B\n\n## In short\n\nfast\n")
    machine = {
        "command": "python -m benchmarks.b --out=x",
        "commit": "abcdefghi",
        "python": "3.13.1",
        "versions": "jax 0.12",
        "time": "2026-03-04T00:00:00",
    }
    (folder / "results.json").write_text(json.dumps({"machine": machine}))
    page, renewed = results.renew(PAGE, runs)
    assert renewed == ["a", "b"]
    made = "`python -m benchmarks.b`, commit abcdefg, Python 3.13.1, jax 0.12, 2026-03-04."
    assert f"{made}\n\n**In short**\n\nfast\n<!-- end -->" in page
