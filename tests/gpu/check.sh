#!/usr/bin/env bash
# Checks Trireme on a machine with a GPU that is at hand for minutes only: steps timed and profiled, digests
# of jobs, every op against the CPU, steps beside PyTorch, kernels under compute-sanitizer.
#
#   tests/gpu/check.sh [--first] [--second] [--only NAME] [--list]
#
#   --first      the checks that matter most, in at most 300 seconds
#   --second     the others, in at most 300 seconds
#   --only NAME  one check; may be given several times
#   --list       prints the name and the seconds of every check, and runs none
#
# Without an option --first and --second run one after the other. The programs are those that
# tests/gpu/pack.sh has packed into build/gpu-pack.tar.xz; without that file they are built here first.
# Results go to $OUT, by default tests/gpu/results: log.txt, check.json and all.tgz. A run that is killed
# leaves those of the checks so far.
#
# Exit code: 0 all checks passed, 1 one failed, 2 a bad argument, 77 there is no GPU.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/gpu/lib.sh
. tests/gpu/lib.sh
# shellcheck source=tests/gpu/programs.sh
. tests/gpu/programs.sh

# The checks and their limits in seconds, in the order in which they run.
first=("facts 5" "unpack 15" "gpu 8" "low_precision 25"
  "gpt 12" "gpt_graph 12" "gpt_padded 12" "gpt_batch_64 16" "profile_gpt 38"
  "digests_gpt 52" "cross_entropy 10" "sizes 14" "ops 21" "pytorch_gpt 60")
second=("facts 5" "unpack 15" "gpu 8" "speed_resnet50 85" "profile_resnet50 34" "digests_resnet 42"
  "collectives 12" "sanitizer_cross_entropy 15" "sanitizer_sizes 17" "speed_gpt 67")

# Sizes, which a rehearsal without a GPU makes smaller. CHECK_LIMIT replaces the limit of every check.
iterations=${CHECK_ITERATIONS:-30}
images=${CHECK_IMAGES:-resnet50}
gpt_size=${CHECK_GPT_SIZE:-gpt2-124m}
large_batch=${CHECK_LARGE_BATCH:-64}
gpt_job=${CHECK_GPT_JOB:---data text:README.md --global-batch 16 --dtype bfloat16 --dropout 0.1 --steps 10}
resnet_job=${CHECK_RESNET_JOB:---model resnet8 --data synthetic --global-batch 32 --augment on --steps 10}
patience=${CHECK_PATIENCE:-120}
group_seconds=${CHECK_SECONDS:-300}
filter=${CHECK_FILTER:-}
cpu_threads=$(($(nproc) < 8 ? $(nproc) : 8))

check_facts() {
  limited nvidia-smi
  local code=$? tool
  echo "commit: $commit"
  echo "LD_LIBRARY_PATH here: ${LD_LIBRARY_PATH:-}"
  printf 'for our programs: %s\n' "${environment[@]:1}"
  PATH=$PATH:/sbin ldconfig -p | grep -E 'libcuda\.so|cudnn|nccl|cublasLt'
  for tool in xz gcc cmake ncu compute-sanitizer mpirun python3; do
    echo "$tool: $(command -v "$tool" || echo "not installed")"
  done
  python3 -c 'import importlib.metadata as m; print("PyTorch", m.version("torch"))' 2>&1 | tail -n 1
  echo "kernel $(uname -r), $(nproc) cores, $(grep MemTotal /proc/meminfo)"
  df -h .
  return "$code"
}

check_unpack() { unpack; }

# Do our programs see the GPU? If not, one of them says why in the last line.
check_gpu() {
  ours ldd "$tests/gpu_sizes"
  if ours "$tests/gpu_sizes" --gtest_filter=CudaSizes.RandomNumbersAreThoseOfTheCpu; then
    grep -aqF '[  SKIPPED ]' <(output) || return 0
  fi
  ours "$programs/train_gpt" --device cuda --data text:README.md --steps 1 --quiet on
  return 1
}

# A test of tests/unit/cuda.
run_test() { ours "$tests/gpu_$1" --gtest_filter="${filter:-*}"; }

check_low_precision() { run_test low_precision; }
check_cross_entropy() { run_test cross_entropy; }
check_sizes() { run_test sizes; }
check_ops() { run_test ops; }

# bench_gpt OPTIONS...: times steps of GPT-2.
bench_gpt() {
  ours env OMP_NUM_THREADS="$cpu_threads" "$tests/bench_steps" cuda bfloat16 --gpt "$gpt_size" \
    --iterations "$iterations" --benchmark_filter=/gpt/ "$@"
}

check_gpt() { bench_gpt; }
check_gpt_graph() { bench_gpt graph; }
# Rows of logits are aligned with this vocabulary, but not with GPT-2's 50257 tokens.
check_gpt_padded() { bench_gpt --vocabulary 50304; }
check_gpt_batch_64() { bench_gpt --batch "$large_batch" --iterations $((iterations < 10 ? iterations : 10)); }

# profile NETWORK SKIP COUNT: time and memory traffic of COUNT kernels after the first SKIP ones, as lines of
# CSV.
profile() {
  command -v ncu >/dev/null || not_run "ncu is not installed" || return
  ours env OMP_NUM_THREADS="$cpu_threads" ncu --clock-control none --csv --page raw --launch-skip "$2" \
    --launch-count "$3" --metrics gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum \
    "$tests/bench_steps" cuda bfloat16 --gpt "$gpt_size" --iterations 6 --benchmark_filter="/$1/"
  local code=$? why kernels
  if why=$(grep -am 1 -E 'Failed to initialize the profiler|ERR_NVGPUCTRPERM' <(output)); then
    not_run "$why"
    return
  fi
  kernels=$(grep -ac '^"[0-9]' <(output))
  echo "$kernels kernels were profiled"
  [[ $code -ne 0 ]] || ((kernels > 0)) || code=1
  return "$code"
}

# Three steps, estimated at 860 kernels each for GPT-2 and 2100 for ResNet-50, come before.
check_profile_gpt() { profile gpt 2600 900; }
check_profile_resnet50() { profile "$images" 6500 1500; }

# digest_since SIZE: the last digest in what was logged after that.
digest_since() { since "$1" | sed -n 's/^digest step=[0-9]* sha256=\([0-9a-f]*\)$/\1/p' | tail -n 1; }

# on_two_ranks COMMAND...: runs it as two ranks, and logs what NCCL has to say.
on_two_ranks() {
  ours env NCCL_DEBUG=WARN "NCCL_DEBUG_FILE=$work/nccl.%p.txt" "$programs/trireme" launch -n 2 -- "$@"
  local code=$?
  tail -n +1 "$work"/nccl.*.txt 2>/dev/null
  rm -f "$work"/nccl.*.txt
  return "$code"
}

# same_digest PROGRAM ARGUMENTS...: the job alone, with CUDA graphs, replayed as two ranks, and on two ranks
# that share the GPU must have one digest. Each has an equal part of the time.
same_digest() {
  local job=("$@" --device cuda --shards 4 --quiet on --patience "$patience") end=$check_end runs=4
  local how begin digest expected='' code=0 all=''
  for how in alone graph replay two_ranks; do
    check_end=$((SECONDS + (end - SECONDS) / runs--))
    begin=$(size_of_log)
    case $how in
      alone) ours "${job[@]}" ;;
      graph) ours "${job[@]}" --cuda-graph on ;;
      replay) ours "${job[@]}" --replay-ranks 2 ;;
      two_ranks) on_two_ranks "${job[@]}" --share-gpu on --cuda-graph on ;;
    esac || {
      echo "$how: exit code $?"
      code=1
    }
    digest=$(digest_since "$begin")
    expected=${expected:-${digest:-none}}
    [[ -n $digest && $digest == "$expected" ]] || code=1
    all+=" $how ${digest:0:8}"
  done
  echo "digests:$all$([[ $code -eq 0 ]] || echo "; they must all be there and alike")"
  return "$code"
}

# shellcheck disable=SC2086
check_digests_gpt() { same_digest "$programs/train_gpt" $gpt_job; }
# shellcheck disable=SC2086
check_digests_resnet() { same_digest "$programs/train_classifier" $resnet_job; }

check_collectives() { on_two_ranks "$tests/gpu_collectives"; }

# beside_pytorch NETWORK OPTIONS...: compares our steps with PyTorch's, which has its own libraries, so that
# only our program gets our environment.
beside_pytorch() {
  python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' ||
    not_run "PyTorch is not installed" || return
  limited env PYTHONUNBUFFERED=1 python3 tests/bench/steps.py \
    "$(printf '%q ' "${environment[@]}")$tests/bench_steps" --device cuda --dtype bfloat16 \
    --threads "$cpu_threads" --iterations "$iterations" --compile-only --models "$1" \
    --json "$work/speed_$1.json" "${@:2}"
}

check_pytorch_gpt() { beside_pytorch gpt --only pytorch --pairs 0; }
check_speed_gpt() { beside_pytorch gpt --pairs 3; }
check_speed_resnet50() { beside_pytorch "$images" --pairs 0; }

# sanitizer TEST FILTER: memcheck of our own kernels alone, since the libraries' take minutes there.
sanitizer() {
  command -v compute-sanitizer >/dev/null || not_run "compute-sanitizer is not installed" || return
  ours compute-sanitizer --error-exitcode 9 "$tests/gpu_$1" --gtest_filter="${filter:-$2}"
  local code=$? why
  if why=$(grep -am 1 "Device not supported" <(output)); then
    not_run "$why"
    return
  fi
  return "$code"
}

check_sanitizer_cross_entropy() { sanitizer cross_entropy 'CudaCrossEntropy.*'; }
check_sanitizer_sizes() { sanitizer sizes 'CudaSizes.*'; }

# run_all CHECK...: within the time of a group, which begins when the last one ended. Four seconds are left
# for killing and packing. Checks that have run already are left out.
run_all() {
  deadline=$((group_begin + group_seconds - 4))
  local check name limit
  for check in "$@"; do
    read -r name limit <<<"$check"
    [[ -z ${exits[$name]:-} ]] || continue
    run_check "$name" "$limit" && continue
    case $name in
      unpack) stop "the programs could not be unpacked" ;;
      gpu) stop "our programs see no GPU: ${last_lines[gpu]}" ;;
      low_precision)
        # Without these libraries all later checks would fail for the same reason.
        if grep -aqE 'cannot load lib|it is older than this build needs' "$work/$name.txt"; then
          stop "a library of CUDA cannot be used"
        fi
        ;;
    esac
  done
}

# run_only NAME: within the check's own limit. The programs are unpacked before.
run_only() {
  local check name limit
  for check in "${first[@]}" "${second[@]}"; do
    read -r name limit <<<"$check"
    if [[ $name == "$1" ]]; then
      deadline=$((SECONDS + group_seconds))
      run_check "$name" "$limit"
      return
    fi
  done
}

is_check() { printf '%s\n' "${first[@]%% *}" "${second[@]%% *}" | grep -cxF -- "$1" >/dev/null; }

usage_error() {
  echo "tests/gpu/check.sh: $*" >&2
  exit 2
}

groups=() only=()
while (($# > 0)); do
  case $1 in
    --first | --second) groups+=("${1#--}") ;;
    --only)
      is_check "${2:-}" || usage_error "--only '${2:-}': there is no such check; --list names them all"
      only+=("$2")
      shift
      ;;
    --list)
      printf 'first: %s\n' "${first[@]}"
      printf 'second: %s\n' "${second[@]}"
      exit 0
      ;;
    --help | -h)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' tests/gpu/check.sh
      exit 0
      ;;
    *) usage_error "unknown argument '$1'; --help tells the usage" ;;
  esac
  shift
done
[[ ${#groups[@]} -gt 0 || ${#only[@]} -gt 0 ]] || groups=(first second)

if ! timeout 10 nvidia-smi -L >/dev/null 2>&1; then
  echo "skipped: nvidia-smi finds no NVIDIA GPU in this machine"
  exit 77
fi
find_programs || exit 1
# A build takes as long as it takes; all else counts.
group_begin=0
[[ -f $archive ]] || group_begin=$SECONDS
start_results "${OUT:-tests/gpu/results}"
device=$(timeout 10 nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>&1 | head -n 1)
say "### $(date -u +%FT%TZ): ${groups[*]} ${only[*]} on $device, commit $commit"
for name in "${only[@]}"; do
  [[ $name == unpack || -n ${exits[unpack]:-} ]] || run_only unpack ||
    stop "the programs could not be unpacked"
  run_only "$name"
done
for group in "${groups[@]}"; do
  if [[ $group == first ]]; then run_all "${first[@]}"; else run_all "${second[@]}"; fi
  group_begin=$SECONDS
done
cat "$results/check.json"
exit "$failed"
