#!/usr/bin/env bash
# What tpu_vm.sh has each host of a Cloud TPU VM slice do, from the checkout that it unpacked there.
# usage: launch/tpu_host.sh install BUCKET | install SERVER:/SHARE | start FLAG... | state | stop
#   install  locked packages with libtpu into .venv; mounts the bucket, or the NFS share
#   start    the run, in the background, unless it runs already
#   state    running, ended CODE, or not started        stop  SIGTERM: all save at the same step
set -euo pipefail
cd "$(dirname "$0")/.."
lock=$HOME/run.lock code=$HOME/run.exit log=$HOME/run.log runs=${RUNS:-/mnt/runs}
sudo=$(command -v sudo || true)

runs_already() {
  ! flock --nonblock "$lock" true
}

find_python() {
  # TPU images may still have an older one as python3.
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    command -v python3.11 >/dev/null ||
      { $sudo apt-get update && $sudo apt-get install --yes python3.11-venv; }
    export PYTHON=python3.11
  fi
}

mount_runs() {
  ! mountpoint --quiet "$runs" || return 0
  $sudo mkdir -p "$runs"
  if [[ $1 == *:/* ]]; then
    $sudo mount -t nfs "$1" "$runs"
    return
  fi
  command -v gcsfuse >/dev/null ||
    { echo "tpu_host.sh: gcsfuse isn't installed on $(hostname); docs/PODS.md says how" >&2; exit 2; }
  $sudo chown "$(id --user)" "$runs"
  # Nothing is remembered of the bucket: a process sees at once what another one wrote.
  gcsfuse --implicit-dirs --rename-dir-limit=100000 --metadata-cache-ttl-secs=0 \
    --metadata-cache-negative-ttl-secs=0 "$1" "$runs"
}

case ${1:-} in
  install)
    if runs_already; then
      echo "the run is under way: nothing is installed"
      exit
    fi
    find_python
    launch/venv.sh requirements-tpu.lock
    mount_runs "$2"
    ;;
  start)
    if runs_already; then
      echo "running already"
      exit
    fi
    rm -f "$code"
    # shellcheck disable=SC2016 # for the inner shell
    nohup flock --nonblock "$lock" bash -c '"$@"; echo $? > "$0"' "$code" \
      .venv/bin/poison-t5x run --distributed "${@:2}" >> "$log" 2>&1 < /dev/null &
    ;;
  state)
    if runs_already; then
      echo running
    elif [ -e "$code" ]; then
      echo "ended $(cat "$code")"
    else
      echo not started
    fi
    ;;
  stop) pkill --signal TERM --full '[.]venv/bin/poison-t5x run' || echo "nothing runs here" ;;
  *) echo "tpu_host.sh: unknown command ${1:-}; known are install, start, state, stop" >&2; exit 2 ;;
esac
