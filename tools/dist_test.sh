#!/usr/bin/env bash
# Scores a checkpoint in several processes: one per GPU, or on the CPU where there is no GPU.
#
#   tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
#
# On several machines, as tools/dist_train.sh.
set -e
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT PROCESSES [options of tools/test.py]" >&2
    exit 2
fi
if [ "${NNODES:-1}" = 1 ]; then
    machines=(--standalone)  # picks a free port: several can run side by side
else
    machines=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?}"
              --master-addr "${MASTER_ADDR:?}" --master-port "${PORT:-29500}")
fi
exec python -m torch.distributed.run "${machines[@]}" --nproc-per-node "$3" \
    "$(dirname "$0")/test.py" "$1" "$2" --launcher pytorch "${@:4}"
