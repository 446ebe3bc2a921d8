#!/usr/bin/env bash
# Train on several machines without a scheduler. Run this script on each machine, worker 0 first.
#
#   WORKERS="10.0.0.1:12345 10.0.0.2:12345" INDEX=0 ./two_machines.sh resnet50 /data/imagenet --run-dir runs/a
#   WORKERS="10.0.0.1:12345 10.0.0.2:12345" INDEX=1 ./two_machines.sh resnet50 /data/imagenet --run-dir runs/a
#
# Every machine needs the same software, data and arguments. Only worker 0 writes the run folder.
# To try it on one machine, give localhost twice with two ports.
set -euo pipefail
: "${WORKERS:?give the address of each worker, host:port, separated by spaces}"
: "${INDEX:?give the number of this worker, from 0}"

list=$(printf '"%s",' $WORKERS)
export TF_CONFIG="{\"cluster\": {\"worker\": [${list%,}]}, \"task\": {\"type\": \"worker\", \"index\": $INDEX}}"
exec keras-deepnets train "$@" --distribute multiworker
