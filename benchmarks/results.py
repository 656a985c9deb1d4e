"""RESULTS.md, from the reports of finished runs and benchmarks.

    python -m benchmarks.results --runs=runs

A block of the page stands between `<!-- run: NAME -->` and `<!-- end -->`: who made it, and the
parts of the run's own report that `QUOTED` names, to the letter. The command makes the block of
every NAME that is a folder below --runs anew and leaves the others, so that a page is renewed run
by run. What stands outside of the blocks is written by hand and holds no measurement of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from benchmarks.rounds import ROOT
from eagle_jax.base.atomic_files import write_atomically

# Folder of a run -> headings of its report, in the order in which the page quotes them.
_EAGLE = (
    *("In short", "Does it steer? Scored by the training encoder", "The same texts under the held-out encoder"),
    "Which differences hold",
)
QUOTED = {
    "eagle_minilens": _EAGLE,
    "eagle_minilens_table2": _EAGLE,
    "eagle_minilens_dpo": _EAGLE,
    "eagle_minilens_expert": (*_EAGLE, "From where on training pays"),
    "eagle_minilens_planner": _EAGLE,
    "elm_minilens": ("In short", "The bar", "The paper's claims"),
    "rlaif_minilens": ("In short", "Start and trained"),
    "elm_toy": ("In short", "Runs"),
    "soft_attributes": ("In short", "Means"),
    "people_minilens": ("What helps, what does not", "One taste", "Two tastes, by the context"),
    "real_minilens": ("In short", "The paper's claims", "The labels", "What the policies write"),
    "real_hh_rlhf": ("In short", "Held-out pairs, the same for all", "Embeddings and metrics"),
    "g_optimal_benchmark": ("Promises recomputed", "Times"),
    "design_study": ("In short", "What the kept subsets cover"),
    "lm_benchmark": ("Times",),
    "readers_benchmark": ("Times", "Targets", "Machine"),
    "readers_whole_benchmark": ("Times", "Targets", "Machine"),
    "wals_benchmark": ("Times", "Targets", "Machine"),
    "nearest_benchmark": ("Times", "Targets", "Machine"),
}

_BLOCK = re.compile(r"(<!-- run: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_HEADING = re.compile(r"(#+) (.*)")
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)(?:\n.+)*\n*")  # and its caption


def section(report: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its level or above, without pictures.

    Raises `ValueError` where the report has no such heading.
    """
    level, found = 0, []
    for line in report.splitlines():
        if match := _HEADING.fullmatch(line):
            if level and len(match[1]) <= level:
                break
            if not level and match[2] == heading:
                level = len(match[1])
                continue
        if level:
            found.append(line)
    if not level:
        raise ValueError(f"the report has no heading {heading!r}")
    return _IMAGE.sub("", "\n".join(found)).strip()


def made_by(folder: Path) -> str:
    """Command, commit, versions and day of a benchmark, or of a run's last stage, in one line."""
    if page_of(folder).name == "results.md":  # a run has a results.json as well, of other contents
        made = json.loads((folder / "results.json").read_text())["machine"]
    else:
        manifests = [json.loads(path.read_text()) for path in folder.glob("*/MANIFEST.json")]
        made = max((manifest["provenance"] for manifest in manifests), key=lambda m: m["time"])
    command = re.sub(r" --(workdir|out)=\S+", "", made["command"])
    versions = made.get("versions") or f"jax {made['packages']['jax']}"
    return f"`{command}`, commit {str(made['commit'])[:7]}, Python {made['python']}, {versions}, {made['time'][:10]}."


def page_of(folder: Path) -> Path:
    """A benchmark's results.md or a run's report.md, whether it is there or not."""
    results = folder / "results.md"
    return results if results.is_file() else folder / "report.md"


def block(folder: Path, headings: Sequence[str]) -> str:
    """The quoted parts of the page in `folder`, below who made it."""
    report = page_of(folder).read_text()
    parts = [f"**{heading}**\n\n{section(report, heading)}" for heading in headings]
    return "\n\n".join([made_by(folder), *parts])


def renew(page: str, runs: Path) -> tuple[str, list[str]]:
    """The page with the blocks of the runs that are there made anew, and their names.

    Raises `ValueError` for a block of a run that `QUOTED` does not know.
    """
    renewed = []

    def replace(match: re.Match[str]) -> str:
        name = match[2]
        if name not in QUOTED:
            raise ValueError(f"run {name!r} is none of {', '.join(QUOTED)}")
        if not page_of(runs / name).is_file():
            return match[0]
        renewed.append(name)
        return f"{match[1]}{block(runs / name, QUOTED[name])}\n{match[3]}"

    return _BLOCK.sub(replace, page), renewed


_RUNS = flags.DEFINE_string("runs", "runs", "Folder of the runs' work directories.")


def main(_: Sequence[str]) -> None:
    path = ROOT / "RESULTS.md"
    page, renewed = renew(path.read_text(), Path(_RUNS.value))
    write_atomically(path, lambda file: file.write(page.encode()))
    print(f"RESULTS.md: {', '.join(renewed) or 'no run there'} renewed")


if __name__ == "__main__":
    app.run(main)
