#!/usr/bin/env bash
# Installs Debian's Chromium for the tests in a browser, where there is none and this may be done.
# Where not, it says why and ends well: these tests are skipped then. Downloads end after three minutes.
set -uo pipefail

skip() {
  echo "launch/chromium.sh: $*; the tests in a browser are skipped" >&2
  exit 0
}

# With the names of tests/pages/browser.py.
[ -z "${EAGLE_CHROMIUM:-}" ] || exit 0
for name in chromium chromium-browser google-chrome chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
command -v apt-get >/dev/null || skip "no Chromium, and no apt-get to install it by"
[ "$(id -u)" = 0 ] || skip "no Chromium, and only root may install it (apt-get install chromium)"

# Asks nothing, waits for no other apt-get for long, and tries an address that does not answer once.
apt() {
  DEBIAN_FRONTEND=noninteractive timeout --kill-after=5 "$1" apt-get -qq \
    -o Acquire::Retries=0 -o Acquire::http::Timeout=15 -o DPkg::Lock::Timeout=30 -o Dpkg::Use-Pty=0 "${@:2}" \
    </dev/null >&2
}

apt 60 update || skip "no Chromium, and the list of Debian's packages could not be read"
apt 120 install -y --no-install-recommends chromium || skip "Chromium could not be installed"
