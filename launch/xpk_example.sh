#!/usr/bin/env bash
# EAGLE on TPU slices of Google Kubernetes Engine with xpk (https://github.com/AI-Hypercomputer/xpk),
# an example to copy and change: not run here, where there is no cluster.
#
#   CLUSTER=... ZONE=... IMAGE=... RUNS=/path bash launch/xpk_example.sh
#
# CLUSTER   made before by `xpk cluster create --cluster=$CLUSTER --zone=$ZONE
#           --tpu-type=v5litepod-16 --num-slices=1`
# IMAGE     an image with Python 3.11 to 3.13 and pip: xpk puts this folder on top of it
# RUNS      a folder that all pods see, from a volume attached with `xpk storage attach`
#
# On GKE jax.distributed.initialize() finds the other pods by itself: --distributed is all it takes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

xpk workload create \
  --cluster="${CLUSTER:?}" --zone="${ZONE:?}" \
  --workload=eagle --tpu-type="${TPU_TYPE:-v5litepod-16}" --num-slices=1 \
  --base-docker-image="${IMAGE:?}" --script-dir=. \
  --command="EAGLE_EXTRAS=tpu bash launch/run.sh experiments.eagle --distributed \
--workdir=${RUNS:?}/eagle --config.mesh.data=-1"

# Watch it with `xpk workload list`; remove it with `xpk workload delete --workload=eagle`.
