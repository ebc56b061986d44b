#!/bin/bash
# A program of somebody else's builds with find_package(trireme) and with add_subdirectory.
. "$(dirname "$0")/lib.sh" "$@"
source=$(realpath "$1")
build=$(realpath "$build")
project() {
  mkdir -p "$work/$1"
  cp "$source/examples/first_program/main.cpp" "$work/$1"
  cat >"$work/$1/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.22)
project(mine ${3:-CXX})
$2
add_executable(mine main.cpp)
target_link_libraries(mine PRIVATE trireme::trireme)
EOF
}
must() {
  local what=$1
  shift
  "$@" >"$work/log" 2>&1 && return
  tail -n 20 "$work/log"
  bad "$what"
  finish
}

must "cannot install" cmake --install "$build" --prefix "$work/there"
project installed "find_package(trireme 0.1 REQUIRED)"
must "find_package does not find it" cmake -S "$work/installed" -B "$work/installed/build" "-DCMAKE_PREFIX_PATH=$work/there"
must "does not build with find_package" cmake --build "$work/installed/build"
must "does not run" "$work/installed/build/mine" --steps 2 --global-batch 8 --data synthetic:1,4,4,2,64 --quiet
grep -q 'digest step=2 sha256=' "$work/log" || bad "does not train: $(cat "$work/log")"
must "the installed trireme does not run" "$work/there/bin/trireme" --version

# Its own objects only: the library is the same as above.
project nested "add_subdirectory($source trireme)"
must "add_subdirectory does not configure" cmake -S "$work/nested" -B "$work/nested/build" -G Ninja
must "does not compile with add_subdirectory" ninja -C "$work/nested/build" CMakeFiles/mine.dir/main.cpp.o
ninja -C "$work/nested/build" -t targets all | grep -q 'unit_\|first_program' && bad "tests and examples are in the way"

cmake -S "$source" -B "$work/cuda" -DTRIREME_CUDA=yes >"$work/log" 2>&1 && bad "TRIREME_CUDA=yes passes"
grep -q 'TRIREME_CUDA=yes: use AUTO, ON or OFF' "$work/log" || bad "TRIREME_CUDA=yes does not say what is wrong"
if ! command -v nvcc >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
  cmake -S "$source" -B "$work/on" -DTRIREME_CUDA=ON >"$work/log" 2>&1 && bad "TRIREME_CUDA=ON passes without nvcc"
  grep -q 'TRIREME_CUDA=ON: not found: nvcc' "$work/log" || bad "TRIREME_CUDA=ON does not say what is missing"
fi
finish
