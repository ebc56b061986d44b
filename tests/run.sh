#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test that this machine can run.
#
#   tests/run.sh [--quick] [ctest arguments]
#
# --quick leaves out the sanitizer builds. All builds are run as one list, so the last lines are ctest's
# summary of all of them; before it stands what could not run here, and why.
set -euo pipefail
cd "$(dirname "$0")/.."

quick=no
arguments=()
for argument in "$@"; do
  case $argument in
    --help | -h) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' tests/run.sh; exit 0 ;;
    --quick) quick=yes ;;
    *) arguments+=("$argument") ;;
  esac
done
jobs=$(nproc)
mkdir -p build/all
not_run=build/all/not_run.txt
: >"$not_run"

cmake/install_dependencies.sh tests

# configure_and_build PRESET [cmake arguments]: quiet unless something is wrong. Where a build fails, the
# tests of the others are still run.
configure_and_build() {
  local preset=$1 log=build/all/$1.log
  echo "building $preset"
  if ! { cmake --preset "$@" && "${wrapper[@]}" cmake --build --preset "$preset" -j "$jobs"; } >"$log" 2>&1; then
    grep -E -A 20 'error|Error|FAILED' "$log" | head -n 60 || tail -n 60 "$log"
    echo "tests/run.sh: the $preset build failed; its whole output is in $log" | tee -a "$not_run" >&2
    status=1
    return
  fi
  if [[ $preset == release ]]; then builds+=(build); else builds+=("build/$preset"); fi
}

# probe FLAG [command]: does a program built with this sanitizer run here, under this command?
probe() {
  local flag=$1
  shift
  echo 'int main() { return 0; }' >build/all/probe.cpp
  c++ "-fsanitize=$flag" build/all/probe.cpp -o build/all/probe 2>/dev/null && "$@" build/all/probe 2>/dev/null
}

status=0
wrapper=()
builds=()
# One architecture takes half the time of two. The driver translates its code for newer GPUs.
# The quickstart may have switched CUDA off.
configure_and_build release -DTRIREME_TESTS=ON -DTRIREME_CUDA=AUTO -DCMAKE_CUDA_ARCHITECTURES=80
if [[ $quick == yes ]]; then
  echo "the address, undefined-behaviour and thread sanitizer builds: --quick was given" >>"$not_run"
else
  # Libraries that are not ours leak on purpose and use their own locks.
  export UBSAN_OPTIONS=print_stacktrace=1
  export LSAN_OPTIONS=suppressions=$PWD/tests/support/lsan.supp:print_suppressions=0
  export TSAN_OPTIONS=suppressions=$PWD/tests/support/tsan.supp:second_deadlock_stack=1
  if ! probe address env; then
    export ASAN_OPTIONS=detect_leaks=0
    echo "leak checks: LeakSanitizer does not work here" >>"$not_run"
  fi
  if probe address env; then
    configure_and_build asan
  else
    echo "the address sanitizer build: AddressSanitizer does not work here" >>"$not_run"
  fi
  # Kernels with much address-space randomization need it off for ThreadSanitizer.
  if ! probe thread env && probe thread setarch -R; then wrapper=(setarch -R); fi
  if probe thread "${wrapper[@]:-env}"; then
    configure_and_build tsan
  else
    echo "the thread sanitizer build: ThreadSanitizer does not work here" >>"$not_run"
  fi
fi

for build in "${builds[@]}"; do echo "subdirs(\"$PWD/$build\")"; done >build/all/CTestTestfile.cmake

# The summary is held back until what could not run has been said.
summary=build/all/summary.txt
: >"$summary"
"${wrapper[@]}" ctest --test-dir build/all -j "$jobs" --output-on-failure --no-tests=error "${arguments[@]}" 2>&1 |
  awk -v summary="$summary" '/^[0-9]+% tests passed, / { held = 1 } held { print > summary; next } { print; fflush() }' ||
  status=$?

awk '/^[0-9]+\/[0-9]+ Test: / { name = $3 }
     was_skip { why[name] = $0; was_skip = 0 }
     /: Skipped$/ { was_skip = 1 }
     /^skipped: / { why[name] = substr($0, 10) }
     END { for (name in why) print name ": " why[name] }' build/all/Testing/Temporary/LastTest.log 2>/dev/null | sort >>"$not_run"
if [[ -s $not_run ]]; then
  echo
  echo "Not run on this machine:"
  sed 's/^/  /' "$not_run"
fi
cat "$summary"
exit "$status"
