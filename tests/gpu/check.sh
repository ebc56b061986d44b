#!/usr/bin/env bash
# Checks Trireme on a machine with a GPU, in at most nine minutes: every op and large sizes against the CPU, digests
# of jobs on one rank, on two that share the GPU, and replayed; steps beside PyTorch; the kernels under
# compute-sanitizer.
#
#   tests/gpu/check.sh
#
# Runs what tests/gpu/pack.sh has packed into build/gpu-pack.tar.xz, or else what it builds here. What it finds goes
# to $OUT, by default tests/gpu/results: check.json, and what each check printed. Exit 77: there is no GPU.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

if ! nvidia-smi -L >/dev/null 2>&1; then
  echo "skipped: no NVIDIA GPU in this machine"
  exit 77
fi
begin=$SECONDS
results=${OUT:-tests/gpu/results}
mkdir -p "$results"

# CUDA's libraries as Python packages bring them, where the system has none.
cuda_libraries=$(python3 -c '
import glob, os, nvidia
print(":".join(sorted({os.path.dirname(p) for base in nvidia.__path__ for p in glob.glob(base + "/**/lib*.so*", recursive=True)})))
' 2>/dev/null)
if [[ -f build/gpu-pack.tar.xz ]]; then
  tar -C build -xf build/gpu-pack.tar.xz || exit 1
  pack=$PWD/build/gpu-pack
  # Only our programs see these: PyTorch has libraries of its own.
  ours=(env "LD_LIBRARY_PATH=$pack/lib:$cuda_libraries" "PATH=$pack/bin:$PATH"
    "OPAL_PREFIX=$pack/openmpi" "OPAL_BINDIR=$pack/bin" "OPAL_LIBDIR=$pack/lib" "OPAL_PKGLIBDIR=$pack/openmpi/lib"
    "OPAL_PKGDATADIR=$pack/openmpi/share" "OPAL_SYSCONFDIR=$pack/openmpi/etc" "PMIX_INSTALL_PREFIX=$pack/pmix"
    "PMIX_MCA_mca_base_component_path=$pack/pmix/lib")
  tests=$pack/bin programs=$pack/bin
else
  cmake --preset release -DTRIREME_TESTS=ON -DTRIREME_CUDA=ON >/dev/null &&
    cmake --build build -j "$(nproc)" --target gpu_ops gpu_sizes gpu_low_precision gpu_cross_entropy bench_steps \
      train_gpt train_classifier trireme >"$results/build.txt" || exit 1
  ours=(env "LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}:$cuda_libraries")
  tests=build/tests programs=build/bin
fi

rows=()
failed=0

# check NAME SECONDS COMMAND...: its exit code goes into the report, what it prints into a file of that name.
check() {
  local name=$1 limit=$2 left=$((520 - (SECONDS - begin))) code=0
  shift 2
  if ((left < 10)); then
    echo "$name: not run: no time was left"
    rows+=("\"$name\": null")
    return
  fi
  timeout -k 5 $((limit < left ? limit : left)) "$@" >"$results/$name.txt" 2>&1 || code=$?
  # compute-sanitizer, on some virtual machines.
  if [[ $name == sanitizer_* ]] && grep -q "Device not supported" "$results/$name.txt"; then
    echo "$name: not run: $(grep -m 1 "Device not supported" "$results/$name.txt")"
    rows+=("\"$name\": null")
    return
  fi
  if grep -q "SKIPPED" "$results/$name.txt"; then code=1; fi  # by a test that sees no GPU
  echo "$name: exit $code: $(tail -n 1 "$results/$name.txt")"
  rows+=("\"$name\": $code")
  [[ $code -eq 0 ]] || failed=1
}

# same_digest NAME JOB...: of the job on one rank, without and with CUDA graphs, on two that share the GPU, and
# replayed as two.
same_digest() {
  local name=$1 ranks=("${ours[@]}" "$programs/trireme" launch -n 2 --)
  shift
  check "$name" 60 "${ours[@]}" "$@"
  check "${name}_graph" 60 "${ours[@]}" "$@" --cuda-graph on
  check "${name}_replay" 60 "${ours[@]}" "$@" --replay-ranks 2
  check "${name}_2_ranks" 90 "${ranks[@]}" "$@" --share-gpu on --cuda-graph on
  local digests
  digests=$(grep -h "^digest" "$results/$name"{,_graph,_replay,_2_ranks}.txt)
  check "${name}_digests" 5 awk 'NR > 1 && $0 != first {bad = 1} {first = $0} END {print NR " of 4"; exit bad || NR != 4}' \
    <<<"$digests"
}

device=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1)
echo "device: $device"
for test in ops sizes low_precision cross_entropy; do check "$test" 90 "${ours[@]}" "$tests/gpu_$test"; done
job=(--device cuda --steps 10 --shards 4 --quiet on --patience 30)
same_digest gpt "$programs/train_gpt" --data text:README.md --global-batch 16 --dtype bfloat16 --dropout 0.1 "${job[@]}"
same_digest resnet "$programs/train_classifier" --model resnet8 --data synthetic --global-batch 32 --augment on "${job[@]}"
if python3 -c 'import torch' 2>/dev/null; then
  check speed 260 python3 tests/bench/steps.py "${ours[*]} $tests/bench_steps" --device cuda --dtype bfloat16 \
    --compile --pairs 3 --json "$results/speed.json"
  cat "$results/speed.txt"
else
  echo "speed: not run: there is no PyTorch to compare with"
fi
if command -v compute-sanitizer >/dev/null; then
  for test in ops sizes; do
    check "sanitizer_$test" 200 "${ours[@]}" compute-sanitizer --error-exitcode 9 "$tests/gpu_$test"
  done
else
  echo "sanitizer: not run: compute-sanitizer is not installed"
fi

commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
(
  IFS=,
  printf '{"device": "%s", "commit": "%s", "seconds": %d, "exit": {%s}, "speed": %s}\n' "$device" "$commit" \
    $((SECONDS - begin)) "${rows[*]}" "$(cat "$results/speed.json" 2>/dev/null || echo null)"
) | tee "$results/check.json"
exit "$failed"
