#!/usr/bin/env bash
# Checks the CUDA kernels on a machine with a GPU: every op against the CPU, then again under compute-sanitizer.
#
#   tests/gpu/check.sh [--pack]
#
# --pack builds here what the check runs, with the shared libraries that it needs, into build/gpu-pack; a machine that
# cannot build is given that folder. Without one the check builds in place. Results go to tests/gpu/results/, or to
# $OUT where that is set.
set -euo pipefail
cd "$(dirname "$0")/../.."

pack=build/gpu-pack
build_here() {
  cmake --preset release -DTRIREME_TESTS=ON -DTRIREME_CUDA=ON >/dev/null
  cmake --build build -j "$(nproc)" --target gpu_ops >/dev/null
}

case ${1:-} in
  --pack)
    build_here
    mkdir -p "$pack/lib"
    strip -o "$pack/gpu_ops" build/tests/gpu_ops
    # All but what every system has of its own.
    ldd build/tests/gpu_ops | awk '/=> \//{print $3}' | grep -vE '/(libc|libm|libdl|libpthread|librt|ld-linux)' |
      xargs -I{} cp -L {} "$pack/lib/"
    du -sh "$pack"
    exit 0
    ;;
  "") ;;
  *) echo "usage: tests/gpu/check.sh [--pack]" >&2; exit 2 ;;
esac

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then
  echo "skipped: no NVIDIA GPU in this machine"
  exit 77
fi
if [[ -x $pack/gpu_ops ]]; then
  export LD_LIBRARY_PATH=$PWD/$pack/lib:${LD_LIBRARY_PATH:-}
  program=$pack/gpu_ops
else
  build_here
  program=build/tests/gpu_ops
fi

results=${OUT:-tests/gpu/results}
mkdir -p "$results"
status=0
device=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1)
echo "device: $device"
begin=$(date +%s)
timeout 240 "$program" >"$results/ops.txt" 2>&1 || status=$?
tail -n 3 "$results/ops.txt"
grep '^left out' "$results/ops.txt" | sort -u || true
sanitizer=not_run
if command -v compute-sanitizer >/dev/null; then
  sanitizer=0
  timeout 240 compute-sanitizer --error-exitcode 9 "$program" >"$results/sanitizer.txt" 2>&1 || sanitizer=$?
  tail -n 3 "$results/sanitizer.txt"
else
  echo "not run: compute-sanitizer is not installed"
fi
printf '{"device": "%s", "commit": "%s", "ops_exit": %d, "sanitizer_exit": "%s", "seconds": %d}\n' "$device" \
  "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" "$status" "$sanitizer" $(($(date +%s) - begin)) \
  >"$results/check.json"
cat "$results/check.json"
[[ $status -eq 0 && ($sanitizer == 0 || $sanitizer == not_run) ]]
