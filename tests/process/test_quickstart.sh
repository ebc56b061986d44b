#!/bin/bash
# What examples/quickstart.sh and tests/run.sh make of their arguments; nothing is built or trained here.
. "$(dirname "$0")/lib.sh" "$@"
source=$(cd "$1" && pwd)

# A tree in which everything has been built, and whose launcher tells what it was asked.
mkdir -p "$work/tree/examples" "$work/tree/cmake" "$work/tree/build/bin" "$work/data" "$work/bin"
cp "$source/examples/quickstart.sh" "$work/tree/examples"
printf '#!/bin/sh\n' | tee "$work/tree/cmake/install_dependencies.sh" >"$work/bin/cmake"
printf '#!/bin/sh\necho "$@"\n' >"$work/tree/build/bin/trireme"
chmod +x "$work"/tree/*/*.sh "$work/tree/build/bin/trireme" "$work/bin/cmake"
touch "$work/tree/build/build.ninja" "$work/data/train-images-idx3-ubyte.gz" "$work/file"
echo CMAKE_BUILD_TYPE:STRING=Release >"$work/tree/build/CMakeCache.txt"
quickstart=(env "PATH=$work/bin:$PATH" "$work/tree/examples/quickstart.sh" --data "$work/data")

while read -r ranks shards; do
  expect 0 "$ranks ranks" "${quickstart[@]}" --ranks "$ranks"
  grep -q -- "^launch -n $ranks -- .* --shards $shards " "$work/out" || bad "$ranks ranks ran $(tail -n 1 "$work/out")"
done <<<"1 4
4 4
5 8
8 8
9 16
128 128"
for arguments in "--ranks 0" "--ranks 129" "--ranks 9999" "--ranks two" "--ranks" "--out $work/file" "--what"; do
  # shellcheck disable=SC2086
  expect 2 "quickstart.sh $arguments" "${quickstart[@]}" $arguments
  one_line "quickstart.sh $arguments" "^quickstart.sh: .*${arguments%% *}"
  [ ! -s "$work/out" ] || bad "quickstart.sh $arguments: it was told after the build"
done

# configured NAME EXPECTED [arguments]: the arguments of cmake when nothing has been built yet.
configured() {
  local name=$1 expected=$2
  shift 2
  rm -f "$work/tree/build/build.ninja" "$work/tree/build/quickstart.log"
  expect 0 "$name" "${quickstart[@]}" "$@"
  grep -qx -- "$expected" "$work/tree/build/quickstart.log" || bad "$name configured $(cat "$work/tree/build/quickstart.log")"
}
# shellcheck disable=SC2016
printf '#!/bin/sh\necho "$@"\necho "[3/12] compiled"\n' >"$work/bin/cmake"
printf '#!/bin/sh\nexit 9\n' >"$work/bin/nvidia-smi"
chmod +x "$work/bin/nvidia-smi"
configured "without a GPU" "--preset release -DTRIREME_TESTS=OFF -DTRIREME_CUDA=OFF"
grep -qx "building 3 of 12" "$work/out" || bad "the progress of the build was $(cat "$work/out")"
configured "--cuda" "--preset release -DTRIREME_TESTS=OFF" --cuda
printf '#!/bin/sh\necho "GPU 0: some GPU"\n' >"$work/bin/nvidia-smi"
configured "with a GPU" "--preset release -DTRIREME_TESTS=OFF"
touch "$work/tree/build/build.ninja"
echo TRIREME_CUDA:STRING=OFF >>"$work/tree/build/CMakeCache.txt"
expect 0 "a build without CUDA" "${quickstart[@]}"
grep -q -- "--preset" "$work/tree/build/quickstart.log" && bad "an existing build was configured anew without --cuda"
expect 0 "a build without CUDA, --cuda" "${quickstart[@]}" --cuda
grep -qx -- "--preset release -DTRIREME_CUDA=AUTO" "$work/tree/build/quickstart.log" ||
  bad "a build without CUDA was not configured anew: $(cat "$work/tree/build/quickstart.log")"
printf '#!/bin/sh\necho "error: no such header"\nexit 1\n' >"$work/bin/cmake"
expect 1 "a failing build" "${quickstart[@]}"
grep -q "^error: no such header" "$work/err" || bad "a failing build said $(cat "$work/err")"

for script in examples/quickstart.sh tests/run.sh; do
  expect 0 "$script --help" "$source/$script" --help
  grep -q "$script" "$work/out" || bad "$script --help does not tell its usage"
done
finish
