#!/usr/bin/env bash
# A TPU VM slice: make it, put this repository there, run on all its workers, fetch, delete.
#
#   bash launch/tpu_vm.sh create NAME ZONE TYPE [VERSION]     e.g. v5litepod-16, v4-32
#   bash launch/tpu_vm.sh mount  NAME ZONE SERVER:/PATH       a shared NFS folder as ~/runs
#   bash launch/tpu_vm.sh copy   NAME ZONE                    this repository as ~/eagle_jax
#   bash launch/tpu_vm.sh run    NAME ZONE MODULE [FLAGS]     on every worker, in ~/eagle_jax
#   bash launch/tpu_vm.sh fetch  NAME ZONE REMOTE LOCAL       a folder, from the first worker
#   bash launch/tpu_vm.sh delete NAME ZONE
#
# With --dry-run before the action it prints the commands instead. Project and account are those of
# `gcloud config`. The work directory of a run has to lie in the shared folder: process 0 writes
# what the others read. For example, from nothing to a report:
#
#   tpu() { bash launch/tpu_vm.sh "$1" eagle us-central1-a "${@:2}"; }
#   tpu create v5litepod-16
#   tpu mount 10.0.0.2:/share          # e.g. a Filestore instance in the same network
#   tpu copy
#   tpu run experiments.eagle --workdir=/home/$USER/runs/first --config.mesh.data=16
#   tpu fetch runs/first runs/first
#   tpu delete
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  sed -n '2,/^set -euo/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
}

fail() {
  echo "launch/tpu_vm.sh: $*" >&2
  exit 2
}

# Runs a command, or prints it such that a shell reads it back.
run() {
  if [ "$dry_run" = yes ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

tpu() {
  run gcloud compute tpus tpu-vm "$@" "--zone=$zone"
}

# Runs a shell command on every worker; the exit code is not 0 if it failed on any.
on_all() {
  tpu ssh "$name" --worker=all "--command=$1"
}

# Everything but what git ignores, so that changes need no commit; .venv and data stay there.
copy() {
  local archive
  archive=$(mktemp -d)/eagle_jax.tar.gz
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --null --files-from=- -czf "$archive"
  tpu scp "$archive" "$name:eagle_jax.tar.gz" --worker=all
  on_all "set -e; mkdir -p eagle_jax; cd eagle_jax
find . -mindepth 1 -maxdepth 1 ! -name .venv ! -name data -exec rm -rf {} +
tar -xzf ../eagle_jax.tar.gz
python3.11 -c 'import venv, ensurepip' 2>/dev/null ||
  { sudo apt-get update -q && sudo apt-get install -qy python3.11-venv; }"
  rm -r "$(dirname "$archive")"
}

dry_run=no
if [ "${1:-}" = --dry-run ]; then
  dry_run=yes
  shift
fi
if [ $# -lt 3 ]; then
  usage
  exit 2
fi
action=$1 name=$2 zone=$3
shift 3
case "$action:$#" in
  create:1 | create:2)
    case "$1:${2:-}" in
      v5litepod-*:) version=v2-alpha-tpuv5-lite ;;
      v4-*:) version=tpu-ubuntu2204-base ;;
      *:) fail "say the VERSION of the software for $1 (gcloud compute tpus tpu-vm versions list)" ;;
      *) version=$2 ;;
    esac
    tpu create "$name" "--accelerator-type=$1" "--version=$version"
    ;;
  mount:1)
    # What one worker has written the others must see at once: no memory of absent files.
    on_all "set -e; mkdir -p ~/runs; ! mountpoint -q ~/runs || exit 0
sudo apt-get update -q; sudo apt-get install -qy nfs-common
sudo mount -t nfs -o lookupcache=positive $(printf %q "$1") ~/runs
sudo chown \"\$USER\" ~/runs"
    ;;
  copy:0) copy ;;
  run:0) fail "say which module to run, such as experiments.eagle" ;;
  run:*)
    on_all "cd eagle_jax && EAGLE_EXTRAS=tpu bash launch/run.sh $(printf '%q ' "$@" --distributed)"
    ;;
  fetch:2)
    run mkdir -p "$(dirname "$2")"
    tpu scp --recurse "$name:$1" "$2" --worker=0
    ;;
  delete:0) tpu delete "$name" --quiet ;;
  create:* | mount:* | copy:* | fetch:* | delete:*)
    fail "$action got $# arguments after NAME and ZONE; without arguments this script tells its usage"
    ;;
  *) fail "unknown action $action: create, mount, copy, run, fetch or delete" ;;
esac
