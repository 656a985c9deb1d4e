#!/usr/bin/env bash
# ml-collections 1.1.0 (absl-py 2.5.1), config_flags: two config files read one after the other in
# one process, as a sweep or a test does, each with a flag object of its own. Every file is run as
# the same module ("config_config" for a flag named config), by a loader that runs a file INTO the
# module of that name if there is one. So the second file starts with everything that the first one
# defined: a constant it forgot to define has the first file's value, and a file without get_config
# gives the first file's config, without an error. The same second file read alone raises.
#
# Guess: each file is a module of its own, and the second read raises as it does alone.
# Met while testing that faulty config files are refused: one passed, after others had been read.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check ml-collections==1.1.0 absl-py==2.5.1
cat >"$work/first.py" <<'PY'
from ml_collections import ConfigDict

RATE = 0.5


def get_config():
    return ConfigDict({"rate": RATE})
PY
cat >"$work/second.py" <<'PY'
from ml_collections import ConfigDict


def get_config():
    return ConfigDict({"rate": RATE, "file": "second"})
PY
touch "$work/empty.py"
cat >"$work/read.py" <<'PY'
import sys

from absl import flags
from ml_collections import config_flags


def read(path):
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_file("config", path, flag_values=values, sys_argv=[])
        values([""])
        return dict(sorted(values.config.items()))
    except Exception as error:
        return type(error).__name__


for path in sys.argv[1:]:
    print(path.rsplit("/", 1)[1], read(path))
PY
python="$work/env/bin/python -W ignore $work/read.py"
alone=$($python "$work/second.py"; $python "$work/empty.py")
after=$($python "$work/first.py" "$work/second.py" "$work/empty.py")
printf 'each file in a process of its own:\n%s\nafter first.py in the same process:\n%s\n' "$alone" "$after"
expected_after="first.py {'rate': 0.5}
second.py {'file': 'second', 'rate': 0.5}
empty.py {'file': 'second', 'rate': 0.5}"
if [ "$after" != "$expected_after" ] || grep -q "rate" <<<"$alone"; then
  echo "the behaviour has changed" >&2
  exit 1
fi
