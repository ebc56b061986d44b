#!/usr/bin/env bash
# Installs what is missing, builds, and trains a small residual network on Fashion-MNIST.
#
#   examples/quickstart.sh [--ranks N] [--data DIR] [--out DIR]
#
# --ranks   processes to train on (default 2); the digest at the end does not depend on it
# --data    folder with Fashion-MNIST's four idx files (default: Debian's dataset-fashion-mnist)
# --out     folder for the curve, the metrics and the checkpoint; a run that was stopped goes on from
#           there (default build/quickstart, made anew)
set -euo pipefail
from=$PWD
cd "$(dirname "$0")/.."

ranks=2
data=/usr/share/datasets/fashion-mnist
out=
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
    *) echo "quickstart.sh: unknown argument '$1': --help lists them all" >&2; exit 2 ;;
  esac
done
if ! [[ $ranks =~ ^[1-9][0-9]{0,3}$ ]]; then
  echo "quickstart.sh: --ranks '$ranks': must be a whole number, at least 1" >&2
  exit 2
fi

cmake/install_dependencies.sh quickstart
if ! compgen -G "$data/train-images-idx3-ubyte*" >/dev/null; then
  echo "quickstart.sh: no Fashion-MNIST in $data: say --data DIR, with its four idx files (train-images-idx3-ubyte.gz ...)" >&2
  exit 3
fi

mkdir -p build
log=build/quickstart.log
# The tests' build may already stand here; it serves as well.
if ! [[ -f build/build.ninja ]] || ! grep -qx 'CMAKE_BUILD_TYPE:STRING=Release' build/CMakeCache.txt; then
  configure=(cmake --preset release -DTRIREME_TESTS=OFF)
else
  configure=(true)
fi
echo "building (the output is in $log)"
if ! { "${configure[@]}" && cmake --build build -j "$(nproc)" --target train_classifier trireme_cli; } >"$log" 2>&1; then
  tail -n 40 "$log" >&2
  echo "quickstart.sh: the build failed; its whole output is in $log" >&2
  exit 1
fi

if [[ -z $out ]]; then
  out=build/quickstart
  rm -rf "$out"
fi
exec build/bin/trireme launch -n "$ranks" -- build/bin/train_classifier \
  --config examples/quickstart.textproto --data "idx:$data" --out "$out"
