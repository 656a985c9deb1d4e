"""Whole or absent: what is on disk after a failed write, a full disk and a changed byte."""

import errno
import hashlib
import os
import shutil

import pytest

from eagle_jax.base.atomic_files import PARTIAL, checksums, remove_partial, verify, write_atomically
from eagle_jax.base.errors import CorruptArtifactError, DiskFullError, UnwritableError


def test_write_replaces_the_whole_file(tmp_path):
    target = tmp_path / "a.bin"
    write_atomically(target, lambda file: file.write(b"first, and long"))
    write_atomically(target, lambda file: file.write(b"second"))
    assert target.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
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


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_what_the_system_refuses_is_told_with_what_to_do(tmp_path, number):
    def fail(_):
        raise OSError(number, os.strerror(number))

    with pytest.raises(UnwritableError, match=f"a.bin: cannot be written: {os.strerror(number)}; [a-z]") as caught:
        write_atomically(tmp_path / "a.bin", fail)
    assert not isinstance(caught.value, DiskFullError) and os.listdir(tmp_path) == []


def test_a_folder_that_is_removed_or_replaced_and_a_long_name_are_told(tmp_path):
    folder = tmp_path / "run"

    def remove(_):
        shutil.rmtree(folder)

    def replace(_):
        shutil.rmtree(folder)
        folder.write_text("a file")

    for meanwhile, said in ((remove, "No such file or directory"), (replace, "Not a directory")):
        folder.mkdir()
        with pytest.raises(UnwritableError, match=f"run/a.bin: cannot be written: {said}; something else removed"):
            write_atomically(folder / "a.bin", meanwhile)
    with pytest.raises(UnwritableError, match="cannot be written: File name too long; choose a shorter name"):
        write_atomically(tmp_path / ("x" * 300), remove)


def test_other_errors_are_a_bug_and_keep_their_traceback(tmp_path):
    def fail(_):
        raise OSError(errno.EBADF, "no")

    with pytest.raises(OSError, match="no"):
        write_atomically(tmp_path / "a.bin", fail)
    assert os.listdir(tmp_path) == []


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
