"""Whole or absent: what is on disk after a failed write, a full disk and a changed byte."""

import errno
import hashlib
import os
import resource
import subprocess
import sys

import pytest

from eagle_jax.base.atomic_files import PARTIAL, checksums, remove_partial, verify, write_atomically
from eagle_jax.base.errors import CorruptArtifactError, DiskFullError


def test_write_replaces_the_whole_file(tmp_path):
    target = tmp_path / "a.bin"
    write_atomically(target, lambda file: file.write(b"first, and long"))
    write_atomically(target, lambda file: file.write(b"second"))
    assert target.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_names_the_file_and_keeps_the_one_before(tmp_path, number):
    target = tmp_path / "a.bin"
    write_atomically(target, lambda file: file.write(b"before"))

    def half_then_full(file):
        file.write(b"ha")
        raise OSError(number, os.strerror(number))

    with pytest.raises(DiskFullError, match="a.bin: cannot be written"):
        write_atomically(target, half_then_full)
    assert target.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_other_errors_of_the_system_are_not_called_a_full_disk(tmp_path):
    def fail(_):
        raise PermissionError(errno.EACCES, "no")

    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "a.bin", fail)
    assert os.listdir(tmp_path) == []


def test_a_real_file_size_limit_of_the_system(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"before")
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from eagle_jax.base.atomic_files import write_atomically\n"
        "from eagle_jax.base.errors import DiskFullError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_atomically(Path(sys.argv[1]), lambda f: f.write(bytes(100_000)))\n"
        "except DiskFullError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(target)], capture_output=True, text=True, check=True)
    assert f"{target}: cannot be written" in done.stdout
    assert target.read_bytes() == b"before"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000  # only the child was limited


def test_checksums_are_sha256_of_every_file_below(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.txt").write_bytes(b"bee")
    (tmp_path / "a.txt").write_bytes(b"")
    assert checksums(tmp_path) == {
        "a.txt": {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()},
        "inner/b.txt": {"size": 3, "sha256": hashlib.sha256(b"bee").hexdigest()},
    }


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b"be"), "has 2 bytes where 3"),
        (lambda path: path.write_bytes(b"bex"), "content is not what was written"),
    ],
)
def test_verify_names_the_damaged_file(tmp_path, damage, message):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"bee")
    recorded = checksums(tmp_path)
    verify(tmp_path, recorded, "MANIFEST.json")
    damage(tmp_path / "b.txt")
    with pytest.raises(CorruptArtifactError, match=f"b.txt: .*{message}"):
        verify(tmp_path, recorded, "MANIFEST.json")


def test_remove_partial_removes_only_what_was_interrupted(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / ("x" + PARTIAL)).write_bytes(b"")
    (tmp_path / ("folder" + PARTIAL)).mkdir()
    (tmp_path / ("folder" + PARTIAL) / ("y" + PARTIAL)).write_bytes(b"")
    (tmp_path / "kept").write_bytes(b"")
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inner", "kept"]
