#!/usr/bin/env bash
# A run on a Cloud TPU VM slice, single host or many.
# usage: launch/tpu_vm.sh [--dry-run] create|install|start|resume|status|logs|delete
#   create   the slice (SPOT=yes: a preemptible one)
#   install  this checkout, its locked packages and libtpu on all hosts; mounts the bucket
#   start    the run on all hosts, in the background; the same again goes on with it
#   resume   after preemption: deletes what is left, and does create, install and start again
#   status   the slice's state        logs   the run's last lines        delete   the slice
set -euo pipefail
. "$(dirname "$0")/pod_settings.sh"
take_flags "$@"
[ ${#arguments[@]} = 1 ] || fail "usage: launch/tpu_vm.sh [--dry-run] create|install|start|resume|status|logs|delete"
read_settings PROJECT ZONE BUCKET TPU_NAME ACCELERATOR RUNTIME_VERSION RUN_FLAGS
need gcloud
where=(--project="$PROJECT" --zone="$ZONE")

on_all() {
  do_it gcloud compute tpus tpu-vm ssh "$TPU_NAME" "${where[@]}" --worker=all --command="$1"
}

create() {
  local spot=()
  [ "${SPOT:-no}" != yes ] || spot=(--spot)
  do_it gcloud compute tpus tpu-vm create "$TPU_NAME" "${where[@]}" \
    --accelerator-type="$ACCELERATOR" --version="$RUNTIME_VERSION" "${spot[@]}"
}

install_all() {
  local archive
  archive=$(mktemp -d)/poison_t5x.tar.gz
  do_it git -C "$root" archive --format=tar.gz --output="$archive" HEAD
  do_it gcloud compute tpus tpu-vm scp "$archive" "$TPU_NAME:poison_t5x.tar.gz" "${where[@]}" --worker=all
  on_all 'mkdir -p poison_t5x && tar -xzf poison_t5x.tar.gz -C poison_t5x && poison_t5x/launch/venv.sh requirements-tpu.lock'
  on_all "sudo mkdir -p /mnt/runs && sudo chown \$USER /mnt/runs && { mountpoint -q /mnt/runs || gcsfuse --implicit-dirs --rename-dir-limit=100000 $BUCKET /mnt/runs; }"
}

start() {
  # SIGTERM, which preemption sends, has every process save at the same step.
  on_all "cd poison_t5x && nohup .venv/bin/poison-t5x run --distributed $RUN_FLAGS >> \$HOME/run.log 2>&1 < /dev/null &"
}

state() {
  gcloud compute tpus tpu-vm describe "$TPU_NAME" "${where[@]}" --format='value(state)'
}

resume() {
  if [ "$dry_run" = no ]; then
    case $(state 2>/dev/null || echo GONE) in
      READY) echo "$TPU_NAME is ready: starting the run, which goes on if it ended"; start; return ;;
      GONE) ;;
      *) delete ;;
    esac
  else
    delete
  fi
  create
  install_all
  start
}

delete() {
  do_it gcloud compute tpus tpu-vm delete "$TPU_NAME" "${where[@]}" --quiet
}

case ${arguments[0]} in
  create) create ;;
  install) install_all ;;
  start) start ;;
  resume) resume ;;
  status) do_it gcloud compute tpus tpu-vm describe "$TPU_NAME" "${where[@]}" --format='value(state)' ;;
  logs) do_it gcloud compute tpus tpu-vm ssh "$TPU_NAME" "${where[@]}" --worker=0 --command='tail -n 40 run.log' ;;
  delete) delete ;;
  *) fail "unknown command ${arguments[0]}; known are create, install, start, resume, status, logs, delete" ;;
esac
