#!/usr/bin/env bash
# Installs what is missing, builds, and trains a small residual network on Fashion-MNIST.
#
#   examples/quickstart.sh [--ranks N] [--data DIR] [--out DIR] [--cuda]
#
# --ranks   processes to train on (default 2, at most 128); the digest at the end is the same on 1 to 4. More need
#           a job of more shards (8 for 5 to 8 ranks, 16 for 9 to 16, ...), which is another job with another digest
# --data    folder with Fashion-MNIST's four idx files (default: Debian's dataset-fashion-mnist)
# --out     folder for the curve, the metrics and the checkpoint; a run that was stopped goes on from
#           there (default build/quickstart, made anew)
# --cuda    build for GPUs, too; a first build does so where `nvidia-smi -L` lists a GPU
set -euo pipefail
from=$PWD
cd "$(dirname "$0")/.."

ranks=2
data=/usr/share/datasets/fashion-mnist
out=
cuda=auto
while [[ $# -gt 0 ]]; do
  case $1 in
    --help | -h) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' examples/quickstart.sh; exit 0 ;;
    --ranks=* | --data=* | --out=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --ranks | --data | --out)
      if [[ $# -lt 2 || -z $2 ]]; then echo "quickstart.sh: $1 needs a value" >&2; exit 2; fi
      case $1 in
        --ranks) ranks=$2 ;;
        --data) data=$(cd "$from" && realpath -m -- "$2") ;;
        --out) out=$(cd "$from" && realpath -m -- "$2") ;;
      esac
      shift 2 ;;
    --cuda) cuda=yes; shift ;;
    *) echo "quickstart.sh: unknown argument '$1': --help lists them all" >&2; exit 2 ;;
  esac
done
# The batch of 128 samples cuts into equal shards of at least one sample, and a rank needs a shard.
if ! [[ $ranks =~ ^[1-9][0-9]{0,2}$ ]] || [[ $ranks -gt 128 ]]; then
  echo "quickstart.sh: --ranks '$ranks': must be a whole number from 1 to 128" >&2
  exit 2
fi
if [[ -n $out && -e $out && ! -d $out ]]; then
  echo "quickstart.sh: --out '$out': is not a folder" >&2
  exit 2
fi
shards=4
while [[ $shards -lt $ranks ]]; do shards=$((2 * shards)); done

cmake/install_dependencies.sh quickstart
if ! compgen -G "$data/train-images-idx3-ubyte*" >/dev/null; then
  echo "quickstart.sh: no Fashion-MNIST in $data: say --data DIR, with its four idx files (train-images-idx3-ubyte.gz ...)" >&2
  exit 3
fi

mkdir -p build
log=build/quickstart.log
# Prints how far the build is, from ninja's output on standard input: in place on a terminal, else ten lines.
show_progress() {
  local terminal=0
  if [[ -t 1 ]]; then terminal=1; fi
  awk -v terminal="$terminal" '
    match($0, /^\[[0-9]+\/[0-9]+\]/) {
      split(substr($0, 2, RLENGTH - 2), n, "/")
      if (terminal) printf "\rbuilding %d of %d", n[1], n[2]
      else if (int(10 * n[1] / n[2]) > tenths) printf "building %d of %d\n", n[1], n[2]
      tenths = int(10 * n[1] / n[2])
      shown = 1
      fflush()
    }
    END { if (terminal && shown) print "" }'
}

# The build of the tests may be there already, and is good enough. Only --cuda configures it anew.
cache=build/CMakeCache.txt
if ! [[ -f build/build.ninja ]] || ! grep -qx 'CMAKE_BUILD_TYPE:STRING=Release' "$cache"; then
  configure=(cmake --preset release -DTRIREME_TESTS=OFF)
  if [[ $cuda == auto ]] && ! nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then configure+=(-DTRIREME_CUDA=OFF); fi
elif [[ $cuda == yes ]] && grep -qx 'TRIREME_CUDA:[A-Z]*=OFF' "$cache"; then
  configure=(cmake --preset release -DTRIREME_CUDA=AUTO)
else
  configure=(true)
fi
echo "building (the output is in $log)"
build=(cmake --build build -j "$(nproc)" --target train_classifier train_gpt trireme_cli)
if ! { "${configure[@]}" && "${build[@]}"; } 2>&1 | tee "$log" | show_progress; then
  tail -n 40 "$log" >&2
  echo "quickstart.sh: the build failed; its whole output is in $log" >&2
  exit 1
fi

if [[ -z $out ]]; then
  out=build/quickstart
  rm -rf "$out"
fi
exec build/bin/trireme launch -n "$ranks" -- build/bin/train_classifier \
  --config examples/quickstart.textproto --shards "$shards" --data "idx:$data" --out "$out"
