"""The README does not drift: what it names exists, and CI runs its test command."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "WORKSPACE.md", "RESULTS.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")))
RUN = "bash launch/run.sh experiments.eagle"
TEST = "bash launch/run.sh pytest"
# What a path in a page begins with; anything else in backquotes is not taken for a path.
TOPS = ("eagle_jax/", "experiments/", "launch/", "benchmarks/", "tests/", "docs/", ".ci/")
SCRIPTS = [ROOT / ".ci" / "run", *sorted((ROOT / "launch").glob("*.sh"))]


def commands(page: str) -> list[str]:
    """The lines of the page's code blocks that are typed into a shell."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip()]


def test_the_two_commands_come_first_and_as_they_are():
    assert commands("README.md")[:2] == [RUN, TEST]


@pytest.mark.parametrize("page", PAGES)
def test_every_module_that_a_command_runs_exists(page):
    text = (ROOT / page).read_text()
    for module in re.findall(r"(?:python -m|launch/run\.sh) ([A-Za-z_][\w.]*)", text):
        assert importlib.util.find_spec(module), f"{page} names {module}, which is not there"


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_is_named_exists(page):
    text = (ROOT / page).read_text()
    named = re.findall(r"`([^`\s]+)`", text) + re.findall(r"--\w+=(\S+?\.py)", text)
    linked = re.findall(r"\]\(([^)#:]+)\)", text)
    paths = {name.rstrip("/") for name in named if name.startswith(TOPS)}
    missing = [path for path in sorted(paths) if not list(ROOT.glob(path))]
    missing += [link for link in linked if not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


def test_the_python_of_the_design_solver_runs():
    page = ROOT / "docs" / "design_solver.md"
    (block,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M)
    names = {}
    exec(compile(block, page.name, "exec"), names)
    assert (names["kept"].counts.sum(axis=-1) == 12).all()


def test_ci_runs_the_test_command_of_the_readme():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert TEST in [line.strip() for line in lines]
    assert "bash launch/run.sh ruff check ." in lines
    assert "bash launch/run.sh ruff format --check ." in lines


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_valid_bash(script):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
