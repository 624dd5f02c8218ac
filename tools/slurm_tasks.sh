# Read by slurm_train.sh and slurm_test.sh: sets `tasks`, srun's options for processes and GPUs.
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
tasks=(--cpus-per-task "${CPUS_PER_TASK:-4}" --kill-on-bad-exit=1)
if [ "$GPUS" = 0 ]; then
    tasks+=(--ntasks "${TASKS:-1}")
else
    tasks+=(--ntasks "$GPUS" --ntasks-per-node "$GPUS_PER_NODE" --gres "gpu:$GPUS_PER_NODE")
fi
read -ra more <<< "${SRUN_ARGS:-}"
tasks+=("${more[@]}")
