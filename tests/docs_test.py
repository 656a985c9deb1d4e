"""The documentation builds as a site, its commands are run by tests, and so is its notebook."""

import json
import re
import subprocess
import sys

import pytest

from eagle_jax.eagle.environment import Start
from tests.programs import environment_of
from tests.readme_test import PAGES, ROOT, commands
from tests.tiny_runs import TINY_EAGLE

# Every command of the documentation: the tests that run it (small, or with other values), or why
# none does.
COMMANDS = {
    "bash launch/run.sh experiments.eagle": "tests/launch/run_test.py",
    "bash launch/run.sh pytest": "tests/readme_test.py",
    "bash launch/run.sh ruff": "tests/readme_test.py",
    "bash launch/run.sh experiments.designs": "tests/studies/catalogue_designs/run_test.py",
    "eagle-jax propose": "tests/eagle/serving/finished_run_test.py",
    "eagle-jax export": "tests/eagle/serving/finished_run_test.py",
    "eagle-jax gaps": "tests/eagle/gaps/gaps_test.py",
    "bash launch/run.sh experiments.elm": "tests/elm/run_test.py",
    "bash launch/run.sh experiments.real": "tests/real/run_test.py",
    "bash launch/run.sh benchmarks.g_optimal": "tests/benchmarks/g_optimal_test.py",
    "bash launch/run.sh benchmarks.language_models": "tests/benchmarks/language_models_test.py",
    "bash launch/run.sh benchmarks.pair_selection": "tests/benchmarks/pair_selection_test.py",
    "bash launch/run.sh benchmarks.sizing": "tests/benchmarks/sizing_test.py",
    "bash launch/run.sh benchmarks.wals_sizing": "tests/benchmarks/wals_sizing_test.py",
    "bash launch/run.sh benchmarks.results": "tests/benchmarks/results_test.py",
    "eagle-jax catalogue": "tests/data/catalogue_report_test.py",
    "bash launch/run.sh benchmarks.readers": "tests/benchmarks/readers_test.py",
    "bash launch/run.sh benchmarks.nearest": "tests/benchmarks/nearest_test.py",
    "bash launch/run.sh benchmarks.gaps": "tests/benchmarks/gaps_test.py",
    "bash launch/run.sh benchmarks.wals": "tests/benchmarks/wals_test.py",
    "bash launch/run.sh benchmarks.film_reliability": "tests/benchmarks/film_reliability_test.py",
    "bash launch/run.sh benchmarks.film_rewards": "tests/benchmarks/film_rewards_test.py",
    "bash launch/run.sh benchmarks.roles": "not run: it wants a published model; its parts are tested",
    "bash launch/run.sh benchmarks.quality": "not run: it wants a published model; its parts are tested",
    "bash launch/run.sh benchmarks.memory": "tests/benchmarks/memory_test.py",
    "git worktree add ../earlier": "not run: it checks an earlier build out",
    "eagle-jax rate": "tests/pages/rating_server_test.py",
    "eagle-jax explore": "tests/pages/explore_server_test.py",
    "EAGLE_EXTRAS=test bash launch/run.sh benchmarks.soak": "tests/benchmarks/soak_test.py",
    "EAGLE_EXTRAS=test bash launch/run.sh benchmarks.page_clients": "tests/benchmarks/page_clients_test.py",
    "eagle-jax sweep": "tests/studies/sweep/run_test.py",
    "eagle-jax check-model": "tests/studies/model_check_test.py",
    "eagle-jax convert": "tests/language_model/checkpoints/gguf_files_test.py",
    "tpu": "tests/launch/tpu_vm_test.py",
    "python launch/prepare_data.py": "tests/launch/prepare_data_test.py",
    "export EAGLE_EXTRAS=benchmarks": "not run: it sets a variable of the commands after it",
    "pip install": "not run: it installs packages, which .ci/run does in a fresh environment",
    "TPU_SKIP_MDS_QUERY=1": "not run: libtpu is no package of the tests, and takes minutes",
}


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.stem for path in tmp_path.glob("*.html")}


def test_every_command_is_run_by_a_test_or_has_a_reason_why_not():
    found = {command for page in (*PAGES, "launch/SIZING.md") for command in commands(page)}
    found = {command.removeprefix("EAGLE_DATA=<folder> ") for command in found}
    known = sorted(COMMANDS, key=len, reverse=True)
    runs = {command: next(filter(command.startswith, known), None) for command in found}
    assert [command for command, name in runs.items() if name is None] == []
    assert set(runs.values()) == set(COMMANDS)  # none is listed that no page has
    tests = [test for test in COMMANDS.values() if not test.startswith("not run: ")]
    assert [test for test in tests if not (ROOT / test).is_file()] == []


@pytest.mark.parametrize("page", ["adding_reward_term", "adding_baseline", "adding_experiment"])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / f"{page}.md").read_text(), re.S | re.M)
    names = {"__name__": page}
    exec(compile(block, f"{page}.md", "exec"), names)
    if "write_endings" in names:
        start = Start(0, 0, "A tale.", "")
        assert [step.description for step in names["write_endings"]([start], 0)] == ["A tale. To be continued."]


def test_the_notebook_runs(tmp_path, compilation_cache, finished):
    """As it is, but for the size of the experiment: its cells get settings and folder of the tests' tiny run."""
    finished.copy(tmp_path / "runs" / "notebook")
    notebook = json.loads((ROOT / "docs" / "first_agent.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(notebook["cells"]) == 10
    assert not any(cell["outputs"] for cell in cells)  # what a run showed is not kept
    program = "\n".join("".join(cell["source"]) for cell in cells)
    made = "experiment = to_settings(EagleExperiment, config)"
    assert program.count(made) == 1
    program = program.replace(
        made, f"with config.unlocked():\n    config.update_from_flattened_dict({TINY_EAGLE!r})\n{made}"
    )
    environment = environment_of(cache=compilation_cache) | {"MPLBACKEND": "agg"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^EAGLE, g_optimal +-?\d\.\d{3} +-?\d\.\d{3}$", done.stdout, re.MULTILINE)
    assert (tmp_path / "runs" / "notebook" / "space.png").stat().st_size > 1000
