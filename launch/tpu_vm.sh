#!/usr/bin/env bash
# A run on a Cloud TPU VM slice, single host or many.
# usage: launch/tpu_vm.sh [--dry-run] create|install|start|resume|keep|status|logs|stop|delete
#   create   the slice (SPOT=yes: a preemptible one; QUEUED=yes: waits for its turn)
#   install  this commit, its locked packages and libtpu on all hosts; mounts the bucket
#   start    the run on all hosts, in the background; the same again goes on with it
#   resume   makes the slice again if it was preempted, and starts the run if it isn't under way
#   keep     looks every CHECK_SECONDS and resumes, until the run is done; then deletes the slice
#   status   of the slice and of the run        logs    the run's last lines
#   stop     saves, and ends the run            delete  the slice; the run's folder stays
set -euo pipefail
. "$(dirname "$0")/pod_settings.sh"
commands="create, install, start, resume, keep, status, logs, stop, delete"
take_flags "$@"
[ ${#arguments[@]} = 1 ] || fail "give one of $commands"
read_settings PROJECT ZONE TPU_NAME ACCELERATOR RUNTIME_VERSION RUN_FLAGS
storage=${NFS_SHARE:-${BUCKET:-}}
[ -n "$storage" ] || fail "set BUCKET or NFS_SHARE; see launch/pod.env.example"
need gcloud
where=(--project="$PROJECT" --zone="$ZONE")
gcloud_tpus=(gcloud compute tpus)
checkout=poison_t5x

# Functions below are called in conditions, where `set -e` is off: hence the && chains.
on_all() {
  do_it "${gcloud_tpus[@]}" tpu-vm ssh "$TPU_NAME" "${where[@]}" --worker=all --command="$1"
}

create() {
  local spot=()
  [ "${SPOT:-no}" != yes ] || spot=(--spot)
  if [ "${QUEUED:-no}" = yes ]; then
    do_it "${gcloud_tpus[@]}" queued-resources create "$TPU_NAME" "${where[@]}" \
      --node-id="$TPU_NAME" --accelerator-type="$ACCELERATOR" \
      --runtime-version="$RUNTIME_VERSION" "${spot[@]}" && wait_for_turn
  else
    do_it "${gcloud_tpus[@]}" tpu-vm create "$TPU_NAME" "${where[@]}" \
      --accelerator-type="$ACCELERATOR" --version="$RUNTIME_VERSION" "${spot[@]}"
  fi
}

wait_for_turn() {
  local queue=("${gcloud_tpus[@]}" queued-resources describe "$TPU_NAME" "${where[@]}"
    --format='value(state.state)') state
  if [ "$dry_run" = yes ]; then
    do_it "${queue[@]}"
    return
  fi
  while state=$("${queue[@]}"); do
    case $state in
      ACTIVE) return ;;
      FAILED | SUSPEND* | DELETING) echo "tpu_vm.sh: the request for $TPU_NAME is $state" >&2; return 1 ;;
    esac
    echo "$TPU_NAME: $state"
    sleep "${CHECK_SECONDS:-60}"
  done
  return 1
}

install_all() {
  local archive=$root/build/poison_t5x.tar.gz
  if git -C "$root" status --porcelain 2>/dev/null | grep --quiet .; then
    echo "tpu_vm.sh: what isn't committed isn't installed" >&2
  fi
  do_it mkdir -p "$root/build" &&
    do_it git -C "$root" archive --format=tar.gz --output="$archive" HEAD &&
    do_it "${gcloud_tpus[@]}" tpu-vm scp "$archive" "$TPU_NAME:poison_t5x.tar.gz" "${where[@]}" \
      --worker=all &&
    on_all "mkdir -p $checkout && tar -xzf poison_t5x.tar.gz -C $checkout && $checkout/launch/tpu_host.sh install $(printf '%q' "$storage")"
}

start() {
  on_all "$checkout/launch/tpu_host.sh start $RUN_FLAGS"
}

# READY, PREEMPTED and so on; GONE where there is no such slice. Fails where gcloud can't tell.
state() {
  local said
  if said=$("${gcloud_tpus[@]}" tpu-vm describe "$TPU_NAME" "${where[@]}" --format='value(state)' 2>&1); then
    echo "${said##*$'\n'}"
  elif [[ $said == *NOT_FOUND* ]]; then
    echo GONE
  else
    echo "$said" >&2
    return 1
  fi
}

delete() {
  if [ "${QUEUED:-no}" = yes ]; then
    do_it "${gcloud_tpus[@]}" queued-resources delete "$TPU_NAME" "${where[@]}" --force --quiet
  else
    do_it "${gcloud_tpus[@]}" tpu-vm delete "$TPU_NAME" "${where[@]}" --quiet
  fi
}

# remake STATE: of what is left of the slice.
remake() {
  [ "$dry_run" = yes ] || echo "$TPU_NAME is $1: making it again" >&2
  if [ "$1" != GONE ]; then
    delete || return 1
  elif [ "${QUEUED:-no}" = yes ]; then
    delete 2>/dev/null || true  # a request may be left without its slice
  fi
  create && install_all && start
}

# What the hosts say of the run, in one word: running, done, again, or the code of an error.
progress() {
  local said codes
  said=$(on_all "$checkout/launch/tpu_host.sh state || echo not started") || return 1
  codes=$(grep --only-matching --extended-regexp '^ended [0-9]+' <<< "$said" | cut -c7- | sort -u || true)
  if grep --quiet '^running' <<< "$said"; then
    echo running
  elif grep --quiet '^not started' <<< "$said" || [ -z "$codes" ]; then
    echo again
  elif [ "$codes" = 0 ]; then
    echo "done"
  else
    # 75: a process was lost; 137, 143: killed, or stopped and saved. The others need a person.
    grep --invert-match --line-regexp --extended-regexp '0|75|137|143' <<< "$codes" | head -n 1 |
      grep . || echo again
  fi
}

resume() {
  local now
  if [ "$dry_run" = yes ]; then
    remake PREEMPTED
    return
  fi
  now=$(state) || return 1
  case $now in
    READY) ;;
    CREATING | STARTING | RESTARTING | REPAIRING) echo "$TPU_NAME is $now: nothing to do yet" && return ;;
    *) remake "$now" && return || return 1 ;;
  esac
  now=$(progress) || return 1
  case $now in
    running | "done") echo "$TPU_NAME is ready, the run is $now" ;;
    *) install_all && start ;;
  esac
}

keep() {
  local now restarts=0
  if [ "$dry_run" = yes ]; then
    resume
    delete
    return
  fi
  while true; do
    now=unknown
    if [ "$(state || true)" = READY ]; then
      now=$(progress || echo unknown)
    fi
    case $now in
      "done") logs && delete && echo "the run is done" && return ;;
      running) ;;
      unknown) resume || echo "tpu_vm.sh: not yet; again in ${CHECK_SECONDS:-60} s" >&2 ;;
      again)
        restarts=$((restarts + 1))
        [ "$restarts" -le "${MAX_RESTARTS:-20}" ] || fail "the run ended $restarts times; see logs"
        resume || true
        ;;
      *) logs; fail "the run ended with code $now, which starting it again won't change; the slice is still there" ;;
    esac
    sleep "${CHECK_SECONDS:-60}"
  done
}

logs() {
  do_it "${gcloud_tpus[@]}" tpu-vm ssh "$TPU_NAME" "${where[@]}" --worker=0 --command='tail -n 40 run.log'
}

status() {
  if [ "$dry_run" = no ] && [ "$(state)" != READY ]; then
    state
    return
  fi
  do_it "${gcloud_tpus[@]}" tpu-vm describe "$TPU_NAME" "${where[@]}" --format='value(state)'
  on_all "$checkout/launch/tpu_host.sh state"
}

case ${arguments[0]} in
  install) install_all ;;
  create | start | resume | keep | status | logs | delete) "${arguments[0]}" ;;
  stop) on_all "$checkout/launch/tpu_host.sh stop" ;;
  *) fail "unknown command ${arguments[0]}; known are $commands" ;;
esac
