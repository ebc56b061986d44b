#!/bin/bash
# Within another project Trireme leaves that project's choices alone: tests, build type, where programs go.
. "$(dirname "$0")/lib.sh" "$@"
source=$(cd "$1" && pwd)
mkdir "$work/app"
cat >"$work/app/CMakeLists.txt" <<APP
cmake_minimum_required(VERSION 3.22)
project(app LANGUAGES C CXX)
add_subdirectory("$source" trireme)
file(WRITE "\${CMAKE_BINARY_DIR}/main.cpp" "#include <trireme/trireme.h>\nint main() {}\n")
add_executable(app "\${CMAKE_BINARY_DIR}/main.cpp")
target_link_libraries(app PRIVATE trireme::trireme)
get_target_property(place app RUNTIME_OUTPUT_DIRECTORY)
message(STATUS "place=\${place} type=\${CMAKE_BUILD_TYPE}. tests=\${TRIREME_TESTS} examples=\${TRIREME_EXAMPLES}")
get_target_property(place trireme_cli RUNTIME_OUTPUT_DIRECTORY)
message(STATUS "inner=\${place}")
APP
expect 0 "configure" cmake -S "$work/app" -B "$work/app/build"
grep -q 'place=place-NOTFOUND type=\. tests=OFF examples=OFF' "$work/out" || bad "the outer project: $(grep place= "$work/out")"
grep -q 'inner=place-NOTFOUND' "$work/out" || bad "the inner project: $(grep inner= "$work/out")"
finish
