#!/usr/bin/env bash
# Scores a checkpoint on a Slurm cluster and waits for it: one process per GPU, or on CPUs.
#
#   tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
#
# The variables are those of tools/slurm_train.sh.
set -e
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]" >&2
    exit 2
fi
. "$(dirname "$0")/slurm_tasks.sh"
exec srun --partition "$1" --job-name "$2" "${tasks[@]}" \
    python -u "$(dirname "$0")/test.py" "$3" "$4" --launcher slurm "${@:5}"
