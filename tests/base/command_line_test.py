"""The command line: overrides reach the config; every mistake is one line, exit code 2, no file."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eagle_jax.base.command_line import load_config, with_one_line_errors
from eagle_jax.base.errors import UserError

CONFIG = """
from ml_collections import ConfigDict

def get_config(size="small"):
    if size not in ("small", "large"):
        raise ValueError(f"{size!r}: allowed are small, large")
    return ConfigDict({
        "steps": 3 if size == "small" else 300,
        "rate": 0.5,
        "widths": (8, 4),
        "clip": False,
        "name": "x",
        "rl": {"horizon": 5, "anchor": {"num": 2}},
    })
"""

PROGRAM = """
import json, logging, os, sys
from eagle_jax.base import command_line
from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import SettingsError

def main(config, workdir):
    action = config.name
    if action == "user_error":
        raise UserError("this is wrong,\\n  and two lines long")
    if action == "colour":
        raise UserError("the title \\x1b[31mred\\x1b[0m \\x9b1m \\u202e \\ud800 ä \\u2028")
    if action == "file":
        raise PermissionError(13, "denied", "\\x1b[2J")
    if action == "settings":
        raise SettingsError(f"config.steps: expected str, got {config.steps}")
    if action == "bug":
        raise ValueError("a mistake of the programmer")
    if action == "folder":
        workdir.mkdir()
    if action == "log":
        logging.getLogger("orbax").info("a save begins")
        logging.getLogger("orbax").warning("a save is slow")
    if action == "wait":
        print("waiting", flush=True)
        sys.stdin.read()
    print(json.dumps([config.to_dict(), config.is_locked, str(workdir)]))

command_line.run(main, config="x")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "experiments" / "configs").mkdir(parents=True)
    for default in ("config.py", "experiments/configs/x.py"):
        (tmp_path / default).write_text(CONFIG)
    (tmp_path / "new.py").write_text(f"SCHEMA = 99\n{CONFIG}")
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def start(folder, *arguments):
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "program.py", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder, *arguments):
    process = start(folder, *arguments)
    stdout, stderr = process.communicate()
    return process.returncode, stdout, stderr


def test_without_flags_the_default_config_and_folder_are_used(folder):
    code, stdout, _ = run(folder)
    config, is_locked, workdir = json.loads(stdout)
    assert (code, config["steps"], is_locked, workdir) == (0, 3, True, "runs/x")


def test_overrides_and_the_config_argument_reach_main(folder):
    code, stdout, _ = run(
        folder,
        "--config=config.py:large",
        "--config.rl.anchor.num=7",
        "--config.rate=2",
        "--config.widths=(1, 2, 3)",
        "--config.clip",
        "--workdir=elsewhere",
    )
    config, _, workdir = json.loads(stdout)
    assert (code, workdir) == (0, "elsewhere")
    assert config == {
        "steps": 300,
        "rate": 2.0,
        "widths": [1, 2, 3],
        "clip": True,
        "name": "x",
        "rl": {"horizon": 5, "anchor": {"num": 7}},
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config.step=1"], "unknown key 'step', did you mean config.steps\\?; config has: clip, name, rate, rl,"),
        (["--config.rl.anchor.n=1"], "unknown key 'n'; config.rl.anchor has: num"),
        (["--config.rl.horizon.n=1"], "config.rl.horizon is a single value, 5"),
        (["--config.steps=many"], "--config.steps=many: .* expected int, the config file has 3"),
        (["--config.steps=1.5"], "--config.steps=1.5: .* expected int"),
        (["--config.clip=perhaps"], "expected bool, the config file has False"),
        (["--config.rl=5"], "expected a group of keys"),
        (["--config=gone.py"], "--config=gone.py: there is no file gone.py"),
        (["--config=new.py"], "new.py is of schema 99, which a later program wrote"),
        (["--config", "gone.py"], "--config=gone.py: there is no file gone.py"),
        (["--config=config.py:huge"], "'huge': allowed are small, large"),
        (["--config.steps"], "Missing value for flag --config.steps"),
        (["--workdri=x"], "unknown flag --workdri; allowed are .* --workdir, --distributed"),
        (["stray"], "unexpected argument 'stray'"),
        (["--config.name=user_error"], "this is wrong, and two lines long$"),
        (["--config.name=colour"], r"the title \\x1b\[31mred\\x1b\[0m \\x9b1m \\u202e \\ud800 ä"),
        (["--config.name=file"], r"program.py: \\x1b\[2J: denied; make it writable or choose another work directory$"),
        (["--config=config.py", "--config.name=settings"], "--config=config.py: config.steps: expected str, got 3$"),
        (["--config.name=folder", "--workdir=program.py/x"], "program.py/x: Not a directory"),
        (["--workdir="], "--workdir= is empty; name the folder of this run"),
        (["--workdir=gs://bucket/run"], "gs://bucket/run is an address, and files are written to folders only: name a"),
        ([f"--workdir={'x' * 300}"], "File name too long; choose a folder that can be written to"),
        (["--workdir=program.py"], "--workdir=program.py: Not a directory; choose"),
        ([b"--workdir=\xff".decode("utf-8", "surrogateescape")], "its name is not UTF-8; choose"),
    ],
)
def test_every_mistake_is_one_line_with_code_2_and_nothing_is_written(folder, arguments, said):
    before = sorted(folder.rglob("*"))
    code, stdout, stderr = run(folder, *arguments)
    assert code == 2, stderr
    assert stdout == ""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("program.py: ")
    assert re.search(said, lines[0]), lines[0]
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "has no attribute 'get_config'"),
        ("def get_config(:", "SyntaxError: invalid syntax"),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("import sys; sys.exit('not today')", "SystemExit: not today"),
        ("get_config = {'seed': 0}", "'dict' object is not callable"),
        ("def get_config(size): return size", "missing 1 required positional argument: 'size'"),
        ("def get_config(): raise RuntimeError('no GPU')", "RuntimeError: no GPU"),
        ("def get_config(): return {'seed': 0}", "must return a ConfigDict, got a dict"),
        ("def get_config(): return '\0'", "null bytes"),
        ("def get_config(): return 1".encode("utf-16"), "null bytes"),
    ],
)
def test_a_faulty_config_file_is_named_with_its_fault(folder, source, said):
    path = folder / "faulty.py"
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    with pytest.raises(UserError, match=f"^--config={path}: .*{said}"):
        load_config(str(path))


def test_a_bug_keeps_its_traceback(folder):
    code, _, stderr = run(folder, "--config.name=bug")
    assert code == 1
    assert "Traceback" in stderr and "a mistake of the programmer" in stderr


@pytest.mark.parametrize(
    ("arguments", "said"), [([], ["slow"]), (["--verbosity=0"], ["begins", "slow"]), (["--verbosity=-2"], [])]
)
def test_libraries_are_heard_from_warnings_on_unless_told_otherwise(folder, arguments, said):
    code, _, stderr = run(folder, "--config.name=log", *arguments)
    assert code == 0, stderr
    assert re.findall(r"a save (?:is )?(\w+)$", stderr, re.MULTILINE) == said


def test_what_the_file_system_refuses_is_one_line_with_what_to_do(capsys):
    def fail(number, *names):
        raise OSError(number, os.strerror(number), *names)

    with pytest.raises(SystemExit) as caught:
        with_one_line_errors(lambda: fail(errno.EROFS, "/data/run"))
    said = "/data/run: Read-only file system; make it writable or choose another work directory\n"
    assert caught.value.code == 2 and capsys.readouterr().err.endswith(f": {said}")
    for nameless_or_odd in ((errno.EROFS,), (errno.EPIPE, "/data/run")):
        with pytest.raises(OSError):
            with_one_line_errors(lambda of=nameless_or_odd: fail(*of))


def test_ctrl_c_says_that_the_run_resumes(folder):
    process = start(folder, "--config.name=wait")
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr == "program.py: interrupted; the same command resumes\n"


def test_a_list_of_words_is_written_with_quotes(folder):
    path = folder / "experiments" / "configs" / "x.py"
    path.write_text(CONFIG.replace('"clip"', '"words": ("a",), "clip"'))
    code, _, stderr = run(folder, "--config.words=ann,bob")
    assert code == 2
    assert "--config.words=\"('ann', 'bob',)\"" in stderr
    code, stdout, _ = run(folder, "--config.words=('ann', 'bob',)")
    assert json.loads(stdout)[0]["words"] == ["ann", "bob"]


def test_a_group_that_is_none_takes_its_keys_from_flags(folder):
    path = folder / "experiments" / "configs" / "x.py"
    path.write_text(CONFIG.replace('"clip"', '"part": None, "clip"'))
    code, stdout, _ = run(folder, "--config.part.size=3", "--config.part.inner.name=word")
    assert code == 0
    assert json.loads(stdout)[0]["part"] == {"size": 3, "inner": {"name": "word"}}
