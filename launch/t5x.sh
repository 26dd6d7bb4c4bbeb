#!/usr/bin/env bash
# T5X beside this project, in its .venv: installs it once, then runs what is given.
# usage: launch/t5x.sh [COMMAND …]
#   launch/t5x.sh python -m t5x.train --gin_file=t5x/demo.gin --gin.RUN_DIR="'runs/demo'"
# The gin files of this project are found without --gin_search_paths; one that is given comes first.
#
# T5X, AirIO and JEstimator are in no package registry and ask pip for more git repositories, at
# conflicting versions. So their packages are taken from pinned commits as they are, and what they
# import comes from the lock file. Where there is no network, T5X_SOURCES=FOLDER takes them from
# FOLDER/t5x, FOLDER/airio and FOLDER/jestimator: git repositories, or unpacked archives of these
# commits.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
t5x=cc342d419ec3e3e9c4bf1df33c82330cafdc1e16          # google-research/t5x, April 2026
airio=69897df7d9a427b947a9f7bb4164c7782b43e601        # google/airio
jestimator=326824a477feef6d92e6f44175000907a72899ca   # google-research/jestimator

# unpack OWNER/NAME COMMIT FOLDER: the package NAME of a repository, into FOLDER/NAME.
unpack() {
  local name=${1#*/} commit=$2 folder=$3 repository
  if [ -n "${T5X_SOURCES:-}" ]; then
    repository=$T5X_SOURCES/$name
    if [ -d "$repository/$name" ] && [ ! -e "$repository/.git" ]; then
      cp -R "$repository/$name" "$folder/$name"
      return
    fi
    git -C "$repository" cat-file -e "$commit^{commit}" 2>/dev/null ||
      { echo "launch: $repository isn't a git repository with commit $commit" >&2; exit 2; }
  else
    repository=$folder/$name.git
    git init --quiet --bare "$repository"
    git -C "$repository" fetch --quiet --depth 1 "https://github.com/$1" "$commit" ||
      { echo "launch: can't fetch $1; set T5X_SOURCES to a folder with a copy" >&2; exit 2; }
  fi
  git -C "$repository" archive "$commit" "$name" | tar -x -C "$folder"
  rm -rf "$folder/$name.git"
}

install() {
  local packages=$1 site
  echo "launch: installing T5X ${t5x:0:7} into $packages"
  rm -rf "$packages" "$packages.partial"
  mkdir "$packages.partial"
  unpack google-research/t5x "$t5x" "$packages.partial"
  unpack google/airio "$airio" "$packages.partial"
  unpack google-research/jestimator "$jestimator" "$packages.partial"
  mv "$packages.partial" "$packages"
  site=$("$root/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "$packages" > "$site/t5x-sources.pth"
  local log=$packages/import.log
  "$root/.venv/bin/python" -c 'import t5x.train, t5x.eval, t5x.infer' > "$log" 2>&1 ||
    { tail -n 3 "$log" >&2; echo "launch: T5X can't be imported" >&2; exit 2; }
  touch "$stamp"
}

"$root/launch/venv.sh" requirements-t5x.lock
packages=$root/.venv/t5x
stamp=$packages/made-from-${t5x:0:7}-${airio:0:7}-${jestimator:0:7}
[ -e "$stamp" ] || install "$packages"
if [ $# -eq 0 ]; then
  echo "launch: T5X is installed; launch/t5x.sh python -m t5x.train … runs it"
  exit
fi

command=()
found=false
for argument in "$@"; do
  if [[ $argument == --gin_search_paths=* ]]; then
    argument+=,$root/gin
    found=true
  fi
  command+=("$argument")
done
if [[ "$*" == *"-m t5x."* && $found == false ]]; then
  command+=("--gin_search_paths=$root/gin")
fi
export PATH="$root/.venv/bin:$PATH"
exec "${command[@]}"
