#!/usr/bin/env bash
# scipy 1.17.1 (numpy 2.4.6), torch and jax not installed: None in sys.modules under a module's name is Python's own way
# to say that it cannot be imported, used to run a program as where an optional package is missing. Under "torch" it
# stops `import scipy.stats` ("'NoneType' object has no attribute 'Tensor'"), under "torch" or "jax" every call of
# scipy.special.logsumexp: the array API layer asks whether the name is in sys.modules, not what is there. Under "cupy"
# and "dask", which it looks for too, the same None changes nothing.
#
# Guess: what is None there counts as not imported, and all optional array libraries are treated alike.
# Met when tests started programs as if torch, which was installed, were not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check scipy==1.17.1 numpy==2.4.6
cat >"$work/show.py" <<'PY'
import sys

name, call = sys.argv[1:]
if name != "nothing":
    sys.modules[name] = None
try:
    if call == "import":
        import scipy.stats
    else:
        import scipy.special

        scipy.special.logsumexp([0.0, 0.0])
    print(name, call, "works")
except AttributeError as error:
    print(name, call, error)
PY
out=$(for name in nothing cupy dask jax torch; do for call in import logsumexp; do
  "$work/env/bin/python" "$work/show.py" "$name" "$call"
done; done)
echo "$out"
if [ "$(grep -c ' works$' <<<"$out")" != 7 ] || ! grep -q "^jax logsumexp 'NoneType' .* 'Array'" <<<"$out" ||
  [ "$(grep -c "^torch .* 'NoneType' object has no attribute 'Tensor'" <<<"$out")" != 2 ]; then
  echo "behaves otherwise than stated above" >&2
  exit 1
fi
