#!/usr/bin/env bash
# A run on Slurm nodes with GPUs: one process a node, which goes on after preemption or a time limit.
# usage: launch/slurm.sh [--dry-run] script|start
#   script  prints the batch script        start  submits it; the same again goes on with the run
# RUN_DIR and this checkout with its .venv (`launch/venv.sh requirements-gpu.lock`) lie on a file
# system that all nodes share.
set -euo pipefail
. "$(dirname "$0")/pod_settings.sh"
take_flags "$@"
[ ${#arguments[@]} = 1 ] || fail "usage: launch/slurm.sh [--dry-run] script|start"
read_settings JOB_NAME PARTITION NODES GPUS_PER_NODE CPUS_PER_NODE TIME_LIMIT RUN_FLAGS

script() {
  cat <<SBATCH
#!/usr/bin/env bash
#SBATCH --job-name=$JOB_NAME
#SBATCH --partition=$PARTITION
#SBATCH --nodes=$NODES
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=$GPUS_PER_NODE
#SBATCH --cpus-per-task=$CPUS_PER_NODE
#SBATCH --time=$TIME_LIMIT
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@180
# Three minutes before the end, as at preemption, the tasks get SIGTERM: all save at the same step.
set -u
# JAX gives a Slurm task one GPU unless it is told of all.
export JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((GPUS_PER_NODE - 1)))
cd $(printf '%q' "$root")
srun --kill-on-bad-exit=1 .venv/bin/poison-t5x run --distributed $RUN_FLAGS
code=\$?
# 143: stopped and saved; 75: a process or node was lost. Either way the run goes on when queued again.
case \$code in 75 | 143) scontrol requeue "\$SLURM_JOB_ID" ;; *) exit "\$code" ;; esac
SBATCH
}

start() {
  if [ "$dry_run" = yes ]; then
    echo "launch/slurm.sh script | sbatch"
    script
  else
    script | sbatch
  fi
}

case ${arguments[0]} in
  script) script ;;
  start) need sbatch; start ;;
  *) fail "unknown command ${arguments[0]}; known are script, start" ;;
esac
