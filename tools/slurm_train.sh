#!/usr/bin/env bash
# Trains on a Slurm cluster and waits for it: one process per GPU, or on CPUs.
#
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
#
# GPUS is their number in all (8), GPUS_PER_NODE (8 at most), CPUS_PER_TASK (4); with GPUS=0, TASKS
# is the number of processes on CPUs (1). SRUN_ARGS has more options of srun, such as "--time 600".
set -e
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]" >&2
    exit 2
fi
. "$(dirname "$0")/slurm_tasks.sh"
exec srun --partition "$1" --job-name "$2" "${tasks[@]}" \
    python -u "$(dirname "$0")/train.py" "$3" --work-dir "$4" --launcher slurm "${@:5}"
