"""launch/chromium.sh, with pretended programs: what it installs, and that it never stands in the way."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pages.browser import NAMES

SCRIPT = Path(__file__).parents[2] / "launch" / "chromium.sh"
SAYS = "the tests in a browser are skipped\n"


@pytest.fixture
def install(tmp_path):
    """Runs the script where there are only the named programs; returns its code, what it said and what it ran."""
    log = tmp_path / "log"
    bash = shutil.which("bash")

    def call(programs, **variables):
        folder = tmp_path / "programs"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, body in programs.items():
            (folder / name).write_text(f"#!{bash}\n{body}\n")
            (folder / name).chmod(0o755)
        log.unlink(missing_ok=True)
        environment = {"PATH": str(folder), "LOG": str(log), **variables}
        done = subprocess.run([bash, str(SCRIPT)], env=environment, capture_output=True, text=True)
        return done.returncode, done.stderr, log.read_text().splitlines() if log.exists() else []

    return call


ROOT = {"id": "echo 0"}
# Tells how long it lets a program run, and runs it.
TIMEOUT = {"timeout": 'echo "at most $2 s" >>"$LOG"; shift 2; "$@"'}
APT = {"apt-get": 'echo "${*: -1}" >>"$LOG"; exit "${APT_CODE:-0}"'}


def test_root_on_debian_installs_it_within_a_time(install):
    code, said, did = install(ROOT | TIMEOUT | APT)
    assert (code, said, did) == (0, "", ["at most 60 s", "update", "at most 120 s", "chromium"])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_there_is_left_alone(install, name):
    assert install(ROOT | TIMEOUT | APT | {name: ""}) == (0, "", [])


def test_a_browser_that_is_named_is_taken(install):
    assert install(ROOT | TIMEOUT | APT, EAGLE_CHROMIUM="/opt/browser") == (0, "", [])


@pytest.mark.parametrize(
    ("programs", "reason"),
    [
        (ROOT | TIMEOUT, "no apt-get"),
        (TIMEOUT | APT | {"id": "echo 1000"}, "only root may install it"),
        (ROOT | APT | {"timeout": "exit 124"}, "list of Debian's packages could not be read"),  # as after the time
        (ROOT | TIMEOUT | {"apt-get": '[ "${*: -1}" = update ]'}, "Chromium could not be installed"),
    ],
)
def test_where_it_cannot_be_installed_that_is_said_and_all_goes_on(install, programs, reason):
    code, said, _ = install(programs)
    assert code == 0 and reason in said and said.endswith(SAYS)
