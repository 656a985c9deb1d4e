#!/usr/bin/env bash
# Sets up what is needed, once, and runs a module of this repository or its tests.
#
#   bash launch/run.sh experiments.eagle [flags]     a module, `python -m` style
#   bash launch/run.sh pytest [arguments]            the tests
#
# An active Python environment that already has the package is used as it is. Otherwise the pinned
# versions of launch/constraints.txt are installed into a virtual environment in .venv. A stamp file
# there says what was installed: later calls start at once, a changed setup.cfg or constraints.txt
# is installed again, and an installation that was interrupted is begun anew. EAGLE_EXTRAS names
# extras of setup.cfg that are wanted as well, such as tpu.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "launch/run.sh: $*" >&2
  exit 2
}

[ $# -ge 1 ] || fail "say what to run: a module (experiments.eagle) or pytest"
case "$1" in
  pytest | ruff) extra=test needed="eagle_jax $1" ;;
  *) extra=run needed=eagle_jax ;;
esac

# Asked from another folder, because every Python finds the sources in the current one.
has_needed() {
  (cd / && "$1" - $needed <<'PY'
import importlib.metadata, sys
for name in sys.argv[1:]:
    importlib.metadata.version(name)
PY
  ) >/dev/null 2>&1
}

# Runs each candidate: a name on the PATH may be a shim without a Python behind it.
find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys, venv, ensurepip
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  fail "needs Python 3.11, 3.12 or 3.13 with its venv module (Debian: apt install python3-venv);" \
    "python3 here is: $(python3 --version 2>&1 | head -n 1)"
}

install() {
  local python target=".${EAGLE_EXTRAS:+[$EAGLE_EXTRAS]}"
  [ "$extra" = run ] || target=".[$extra]"
  if [ -e .venv/unfinished ] || ! .venv/bin/python -c '' 2>/dev/null; then
    python=$(find_python)
    echo "Setting up .venv with $("$python" --version) (once; a minute or two) ..." >&2
    rm -rf .venv
    mkdir .venv
    touch .venv/unfinished
    "$python" -m venv .venv
  else
    echo "Updating .venv ..." >&2
    touch .venv/unfinished
  fi
  # Modules are compiled where they are first imported: most of what is installed never is, and all takes a minute.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
    --constraint launch/constraints.txt --editable "$target" ||
    fail "the installation failed (see above); the same command tries again"
  rm -f .venv/installed_*
  echo "$wanted" >".venv/installed_$extra"
  rm .venv/unfinished
}

if has_needed python; then
  python=python
else
  wanted="$(cat setup.cfg pyproject.toml launch/constraints.txt | cksum) ${EAGLE_EXTRAS:-}"
  stamp=.venv/installed_$extra
  [ -e "$stamp" ] || stamp=.venv/installed_test # the tests' environment runs everything
  if [ -e .venv/unfinished ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] ||
    ! .venv/bin/python -c '' 2>/dev/null; then
    install
  fi
  python=.venv/bin/python
  # Where Python may not keep what it compiles, every process compiles all libraries again: twice the time to start.
  unset PYTHONDONTWRITEBYTECODE
fi

# Weights that the command or its config names, and that are not there yet.
config=
for argument in "$@"; do
  case "$argument" in --config=*) config=${argument#--config=} ;; esac
done
case "$* $(cat "${config%%:*}" 2>/dev/null)" in
  *weights/*.gguf*) "$python" launch/weights.py "$@" || exit 2 ;;
esac
exec "$python" -m "$@"
