"""launch/tpu_vm.sh, with a gcloud that records what it is asked."""

import json
import os
import shlex
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "launch/tpu_vm.sh"
PREFIX = ["compute", "tpus", "tpu-vm"]

# Stands for gcloud: records its arguments, keeps what it would copy, fails where asked.
GCLOUD = """#!/usr/bin/env python3
import json, os, shutil, sys
with open(os.environ["LOG"], "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
for argument in sys.argv[1:]:
    if argument.endswith("eagle_jax.tar.gz") and os.path.exists(argument):
        shutil.copy(argument, os.environ["LOG"] + ".tar.gz")
sys.exit(int(os.environ.get("GCLOUD_CODE", 0)))
"""


@pytest.fixture
def tpu_vm(tmp_path):
    """Calls the script in a small repository: exit code, stdout, stderr, gcloud's arguments."""
    copy, programs, log = tmp_path / "copy", tmp_path / "programs", tmp_path / "log"
    (copy / "launch").mkdir(parents=True)
    shutil.copy(ROOT / SCRIPT, copy / SCRIPT)
    for name, text in (("kept.py", "x"), ("gone.py", "x"), (".gitignore", "secret\n"), ("a b", "")):
        (copy / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
    subprocess.run(["git", "add", "."], cwd=copy, check=True)
    (copy / "gone.py").unlink()
    (copy / "new.py").write_text("not added")
    (copy / "secret").write_text("ignored")
    programs.mkdir()
    (programs / "gcloud").write_text(GCLOUD)
    (programs / "gcloud").chmod(0o755)

    def call(*arguments, **variables):
        log.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", str(copy / SCRIPT), *arguments],
            env={"PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(log), **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return done.returncode, done.stdout, done.stderr, calls

    call.archive = tmp_path / "log.tar.gz"
    return call


@pytest.mark.parametrize(
    ("arguments", "version"),
    [
        (["v5litepod-16"], "v2-alpha-tpuv5-lite"),
        (["v4-32"], "tpu-ubuntu2204-base"),
        (["v6e-8", "v2-alpha-tpuv6e"], "v2-alpha-tpuv6e"),
    ],
)
def test_create_asks_for_the_slice_with_its_software(tpu_vm, arguments, version):
    code, _, stderr, calls = tpu_vm("create", "eagle", "us-a", *arguments)
    assert code == 0, stderr
    wanted = [f"--accelerator-type={arguments[0]}", f"--version={version}", "--zone=us-a"]
    assert calls == [[*PREFIX, "create", "eagle", *wanted]]


def test_copy_sends_what_git_knows_or_would_add(tpu_vm):
    code, _, stderr, calls = tpu_vm("copy", "eagle", "us-a")
    assert code == 0, stderr
    with tarfile.open(tpu_vm.archive) as archive:
        names = set(archive.getnames())
    assert names == {".gitignore", "kept.py", "new.py", "a b", SCRIPT}
    send, unpack = calls
    assert send[3] == "scp" and send[-3:] == ["eagle:eagle_jax.tar.gz", "--worker=all", "--zone=us-a"]
    assert unpack[3:6] == ["ssh", "eagle", "--worker=all"]
    assert "tar -xzf ../eagle_jax.tar.gz" in unpack[6]


def test_run_starts_the_module_on_all_workers_with_its_flags_intact(tpu_vm, tmp_path):
    flags = ["--workdir=/home/u/runs/a b", "--config.title=it's $HOME"]
    code, _, stderr, (call,) = tpu_vm("run", "eagle", "us-a", "experiments.eagle", *flags)
    assert code == 0, stderr
    assert call[3:6] == ["ssh", "eagle", "--worker=all"] and call[-1] == "--zone=us-a"
    # What the workers' shell makes of the command.
    home = tmp_path / "home" / "eagle_jax" / "launch"
    home.mkdir(parents=True)
    (home / "run.sh").write_text('printf "%s\\n" "$EAGLE_EXTRAS" "$@"')
    command = call[6].removeprefix("--command=")
    told = subprocess.run(["bash", "-c", command], cwd=home.parents[1], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["tpu", "experiments.eagle", *flags, "--distributed"]


def test_mount_fetch_and_delete(tpu_vm, tmp_path):
    _, _, _, (mount,) = tpu_vm("mount", "eagle", "us-a", "10.0.0.2:/share")
    assert "nfs -o lookupcache=positive 10.0.0.2:/share ~/runs" in mount[6]
    local = tmp_path / "new" / "first"
    _, _, _, (fetch,) = tpu_vm("fetch", "eagle", "us-a", "runs/first", str(local))
    expected = ["scp", "--recurse", "eagle:runs/first", str(local), "--worker=0", "--zone=us-a"]
    assert fetch[3:] == expected and local.parent.is_dir()
    _, _, _, (delete,) = tpu_vm("delete", "eagle", "us-a")
    assert delete[3:] == ["delete", "eagle", "--quiet", "--zone=us-a"]


def test_a_dry_run_prints_commands_that_a_shell_reads_back(tpu_vm):
    arguments = ("run", "eagle", "us-a", "experiments.eagle", "--config.title=a b")
    code, stdout, _, calls = tpu_vm("--dry-run", *arguments)
    assert (code, calls) == (0, [])
    assert shlex.split(stdout) == ["gcloud", *tpu_vm(*arguments)[3][0]]


def test_the_exit_code_of_gcloud_is_passed_on(tpu_vm):
    assert tpu_vm("delete", "eagle", "us-a", GCLOUD_CODE="3")[0] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "bash launch/tpu_vm.sh create NAME ZONE TYPE"),
        (["create", "eagle"], "bash launch/tpu_vm.sh create NAME ZONE TYPE"),
        (["create", "eagle", "us-a"], "create got 0 arguments"),
        (["create", "eagle", "us-a", "v9-8"], "say the VERSION of the software for v9-8"),
        (["run", "eagle", "us-a"], "say which module to run"),
        (["fetch", "eagle", "us-a", "runs"], "fetch got 1 arguments"),
        (["start", "eagle", "us-a"], "unknown action start"),
    ],
)
def test_a_wrong_command_does_nothing_and_says_why(tpu_vm, arguments, said):
    code, _, stderr, calls = tpu_vm(*arguments)
    assert (code, calls) == (2, []) and said in stderr
