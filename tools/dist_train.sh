#!/usr/bin/env bash
# Trains in several processes: one per GPU, or on the CPU where there is no GPU.
#
#   tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
#
# On several machines, start it on each, with NNODES (their number), NODE_RANK (0, 1, ...) and
# MASTER_ADDR (the first one's address) set; PORT is 29500 by default.
set -e
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [options of tools/train.py]" >&2
    exit 2
fi
if [ "${NNODES:-1}" = 1 ]; then
    machines=(--standalone)  # picks a free port: several trainings can run side by side
else
    machines=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?}"
              --master-addr "${MASTER_ADDR:?}" --master-port "${PORT:-29500}")
fi
exec python -m torch.distributed.run "${machines[@]}" --nproc-per-node "$2" \
    "$(dirname "$0")/train.py" "$1" --launcher pytorch "${@:3}"
