"""The wheel has all that runs: programs, configs and the console script, from any folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13")
# All that reading flags takes, in pure Python: what this environment has serves every version.
NEEDED = ("absl", "ml_collections", "yaml")


def interpreter(version: str) -> str:
    """A Python of that version: on the PATH (where a shim may have nothing behind it) or of pyenv."""
    on_path = shutil.which(f"python{version}")
    of_pyenv = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
    for candidate in filter(None, (on_path, *map(str, sorted(of_pyenv)))):
        if not subprocess.run([candidate, "-c", ""], capture_output=True).returncode:
            return candidate
    pytest.skip(f"no Python {version} on the PATH or in ~/.pyenv")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The built wheel, unpacked, as an installer lays it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building leaves folders beside the sources
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "tests", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(folder), str(source)], check=True, capture_output=True)
    (wheel,) = folder.glob("eagle_jax-*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "installed")
    for name in NEEDED:
        package = Path(importlib.util.find_spec(name).origin).parent
        shutil.copytree(package, folder / "installed" / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return folder / "installed"


def run(python, installed, cwd, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(installed), "JAX_PLATFORMS": "cpu"}
    return subprocess.run([python, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_programs_and_the_console_script_run_from_an_empty_folder(version, installed, tmp_path):
    python = interpreter(version)
    assert run(python, installed, tmp_path, "-c", "import sys; print(sys.version)").stdout.startswith(version)
    program = run(python, installed, tmp_path, "-m", "experiments.eagle", "--help")
    script = run(python, installed, tmp_path, "-m", "eagle_jax", "run", "eagle", "--help")
    assert (program.returncode, program.stderr) == (0, "")
    assert program.stdout == script.stdout
    assert "keys of experiments/configs/eagle_minilens.py" in program.stdout
    config = "--config=experiments/configs/eagle_minilens.py:none"
    other = run(python, installed, tmp_path, "-m", "experiments.eagle", config)
    assert other.returncode == 2
    assert "unknown variant 'none': expected default or quick" in other.stderr
    assert list(tmp_path.iterdir()) == []


def test_data_and_entry_point_travel(installed):
    for part in (
        "eagle/report.md",
        "data/minilens/models/policy/model.safetensors",
        "pages/scripts/map.js",
        "py.typed",
    ):
        assert (installed / "eagle_jax" / part).is_file()
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "eagle-jax = eagle_jax.__main__:hand_on" in points.read_text()
