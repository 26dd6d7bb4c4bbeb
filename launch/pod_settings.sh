# shellcheck shell=bash
# Sourced by tpu_vm.sh, gke.sh and slurm.sh: reads launch/pod.env, and runs or prints commands.

launch_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034 # for those that source this
root=$(dirname "$launch_dir")
dry_run=no

fail() {
  echo "${0##*/}: $1" >&2
  exit 2
}

# Takes --dry-run out of the arguments; what is left is in the array `arguments`.
take_flags() {
  arguments=()
  local argument
  for argument in "$@"; do
    case $argument in
      --dry-run) dry_run=yes ;;
      -*) fail "unknown flag $argument; known is --dry-run" ;;
      *) arguments+=("$argument") ;;
    esac
  done
}

# read_settings NAME...: POD_ENV, or launch/pod.env, has to set them.
read_settings() {
  local file=${POD_ENV:-$launch_dir/pod.env} name
  [[ $file == */* ]] || file=./$file  # or it would be looked for on PATH
  [ -f "$file" ] || fail "$file isn't there: copy launch/pod.env.example to launch/pod.env and edit it"
  # shellcheck source=/dev/null
  . "$file"
  for name in "$@"; do
    [ -n "${!name:-}" ] || fail "$file doesn't set $name; see launch/pod.env.example"
  done
}

# do_it COMMAND...: runs it or, with --dry-run, prints it as it can be pasted.
do_it() {
  if [ "$dry_run" = yes ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

# need PROGRAM: it is installed, unless nothing is to be run.
need() {
  [ "$dry_run" = yes ] || command -v "$1" >/dev/null || fail "$1 isn't installed"
}
