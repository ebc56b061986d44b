#!/usr/bin/env bash
# Checks the CUDA kernels on a machine with a GPU: every op, and large sizes, against the CPU; then again under
# compute-sanitizer.
#
#   tests/gpu/check.sh [--pack]
#
# --pack builds here what the check runs, with the shared libraries that it needs, into build/gpu-pack, for a machine
# that cannot build. Without that folder the check builds in place. Results go to $OUT, by default
# tests/gpu/results. Exit 77: there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."

pack=build/gpu-pack
tests=(ops sizes)

build_here() {
  cmake --preset release -DTRIREME_TESTS=ON -DTRIREME_CUDA=ON >/dev/null
  cmake --build build -j "$(nproc)" --target "${tests[@]/#/gpu_}" >/dev/null
}

case ${1:-} in
  --pack)
    build_here
    rm -rf "$pack"
    mkdir -p "$pack/lib"
    for test in "${tests[@]}"; do
      strip -o "$pack/gpu_$test" "build/tests/gpu_$test"
      # All but what every system has of its own.
      ldd "build/tests/gpu_$test" | awk '/=> \//{print $3}' | grep -vE '/(libc|libm|libdl|libpthread|librt|ld-linux)' |
        xargs -I{} cp -L {} "$pack/lib/"
    done
    strip "$pack"/lib/*
    du -sh "$pack"
    exit 0
    ;;
  "") ;;
  *) echo "usage: tests/gpu/check.sh [--pack]" >&2; exit 2 ;;
esac

if ! nvidia-smi -L >/dev/null 2>&1; then
  echo "skipped: no NVIDIA GPU in this machine"
  exit 77
fi
if [[ -d $pack ]]; then
  export LD_LIBRARY_PATH=$PWD/$pack/lib:${LD_LIBRARY_PATH:-}
  programs=$pack
else
  build_here
  programs=build/tests
fi

results=${OUT:-tests/gpu/results}
mkdir -p "$results"
device=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1)
echo "device: $device"
begin=$(date +%s)
failed=0
rows=()

# check NAME COMMAND...: its exit code goes into the report, what it prints into a file of that name.
check() {
  local name=$1 code=0
  shift
  timeout 240 "$@" >"$results/$name.txt" 2>&1 || code=$?
  echo "$name: exit $code: $(tail -n 1 "$results/$name.txt")"
  rows+=("\"$name\": $code")
  [[ $code -eq 0 ]] || failed=1
}

for test in "${tests[@]}"; do check "$test" "$programs/gpu_$test"; done
if command -v compute-sanitizer >/dev/null; then
  for test in "${tests[@]}"; do
    check "sanitizer_$test" compute-sanitizer --error-exitcode 9 "$programs/gpu_$test"
  done
else
  echo "not run: compute-sanitizer is not installed"
fi

commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
(
  IFS=,
  printf '{"device": "%s", "commit": "%s", "seconds": %d, "exit": {%s}}\n' "$device" "$commit" \
    $(($(date +%s) - begin)) "${rows[*]}"
) | tee "$results/check.json"
exit "$failed"
