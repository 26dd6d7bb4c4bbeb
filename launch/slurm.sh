#!/usr/bin/env bash
# A run on Slurm nodes with GPUs, which goes on after preemption, a lost node or a time limit.
# usage: launch/slurm.sh [--dry-run] script|start|status|logs|stop
#   script  prints the batch script    start  submits it; the same again goes on with the run
#   status  of the jobs of that name   logs   the last lines    stop   saves, and ends the run
# RUN_DIR and this checkout with its .venv (`launch/venv.sh requirements-gpu.lock`) lie on a file
# system that all nodes share.
set -euo pipefail
. "$(dirname "$0")/pod_settings.sh"
commands="script, start, status, logs, stop"
take_flags "$@"
[ ${#arguments[@]} = 1 ] || fail "give one of $commands"
read_settings JOB_NAME PARTITION NODES PROCESSES_PER_NODE GPUS_PER_NODE CPUS_PER_NODE TIME_LIMIT \
  MAX_RESTARTS RUN_FLAGS

# Which GPUs a process has: JAX gives a Slurm task one of its own unless it is told otherwise.
devices() {
  case $PROCESSES_PER_NODE in
    1) printf 'export JAX_LOCAL_DEVICE_IDS=%s\n' "$(seq -s, 0 $((GPUS_PER_NODE - 1)))" ;;
    "$GPUS_PER_NODE") echo "unset JAX_LOCAL_DEVICE_IDS" ;;
    *) fail "PROCESSES_PER_NODE is $PROCESSES_PER_NODE: take 1 or GPUS_PER_NODE, $GPUS_PER_NODE" ;;
  esac
}

script() {
  local gpus
  gpus=$(devices) || exit
  cat <<SBATCH
#!/usr/bin/env bash
#SBATCH --job-name=$JOB_NAME
#SBATCH --partition=$PARTITION
#SBATCH --nodes=$NODES
#SBATCH --ntasks-per-node=$PROCESSES_PER_NODE
#SBATCH --gpus-per-node=$GPUS_PER_NODE
#SBATCH --cpus-per-task=$((CPUS_PER_NODE / PROCESSES_PER_NODE))
#SBATCH --time=$TIME_LIMIT
#SBATCH --output=$JOB_NAME.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@180
# Three minutes before the end the tasks get SIGTERM, as at preemption: all save at the same step.
# Without a B: before it the signal goes to them, not to this script, which only waits.
trap : TERM
set -u
$gpus
cd $(printf '%q' "$root")
srun --kill-on-bad-exit=1 .venv/bin/poison-t5x run --distributed $RUN_FLAGS
code=\$?
# 143: stopped and saved; 75, 137: a process or node was lost. Queued again, the run goes on.
case \$code in
  75 | 137 | 143)
    if [ "\${SLURM_RESTART_COUNT:-0}" -ge $MAX_RESTARTS ]; then
      echo "ended with code \$code after $MAX_RESTARTS restarts: not queued again" >&2
      exit "\$code"
    fi
    scontrol requeue "\$SLURM_JOB_ID"
    ;;
  *) exit "\$code" ;;
esac
SBATCH
}

start() {
  local text
  text=$(script)
  if [ "$dry_run" = yes ]; then
    printf "sbatch <<'SBATCH'\n%s\nSBATCH\n" "$text"
  else
    sbatch <<< "$text"
  fi
}

case ${arguments[0]} in
  script) script ;;
  start) need sbatch; start ;;
  status) need squeue; do_it squeue --name="$JOB_NAME" --me ;;
  logs) do_it tail -n 40 "$JOB_NAME.log" ;;
  # Cancelled, it isn't queued again; SIGTERM goes before SIGKILL by the cluster's KillWait.
  stop) need scancel; do_it scancel --name="$JOB_NAME" --me ;;
  *) fail "unknown command ${arguments[0]}; known are $commands" ;;
esac
