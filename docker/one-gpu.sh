#!/bin/sh
# one-gpu COMMAND…: run COMMAND on one GPU that no other worker of this host holds.
#
# Compose hands every replica the same devices (`count: 1` is always the first GPU). A lock for each
# GPU in a folder that the replicas share makes each take one of its own. The lock is an open file
# of the running command: it is free again the moment the command ends, however it ends.
set -eu
locks=${GPU_LOCK_DIR:-/run/gpu-locks}

if ! command -v nvidia-smi > /dev/null; then
    echo "one-gpu: no NVIDIA driver here; computing on the CPU" >&2
    exec "$@"
fi
for gpu in $(nvidia-smi --query-gpu=uuid --format=csv,noheader); do
    exec 9> "$locks/$gpu"
    if flock -n 9; then
        echo "one-gpu: taking $gpu" >&2
        export CUDA_VISIBLE_DEVICES="$gpu"
        exec "$@"
    fi
done
echo "one-gpu: every GPU of this host is taken by another worker, or there is none" >&2
exit 75
