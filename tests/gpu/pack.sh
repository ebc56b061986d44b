#!/usr/bin/env bash
# Packs what tests/gpu/check.sh runs, for a machine with a Hopper GPU that cannot build it: the programs, the
# shared libraries that they need, and Open MPI. CUDA's own libraries are looked for on that machine.
#
#   tests/gpu/pack.sh      builds in build/gpu, and writes build/gpu-pack.tar.xz of at most 59 MB
#
# build/gpu is a folder of its own, since it builds for one architecture and build/ for all. $JOBS, by default
# the number of cores, is how many files are compiled at a time.
set -euo pipefail
cd "$(dirname "$0")/../.."

limit=59000000
build=build/gpu
tests=(gpu_ops gpu_sizes gpu_low_precision gpu_cross_entropy gpu_collectives bench_steps)
programs=(train_gpt train_classifier trireme)
root=build/gpu-pack
archive=build/gpu-pack.tar.xz
lib=/usr/lib/$(gcc -print-multiarch)

mkdir -p "$build"
if ! {
  cmake --preset release -B "$build" -DTRIREME_TESTS=ON -DTRIREME_CUDA=ON \
    -DCMAKE_CUDA_ARCHITECTURES=90-real &&
    cmake --build "$build" -j "${JOBS:-$(nproc)}" --target "${tests[@]}" "${programs[@]/%trireme/trireme_cli}"
} >"$build/pack.log" 2>&1; then
  tail -n 30 "$build/pack.log" >&2
  echo "tests/gpu/pack.sh: the build failed; its whole output is in $build/pack.log" >&2
  exit 1
fi

rm -rf "$root"
mkdir -p "$root/bin" "$root/lib" "$root/openmpi/lib" "$root/pmix/lib"
for test in "${tests[@]}"; do strip -o "$root/bin/$test" "$build/tests/$test"; done
for program in "${programs[@]}"; do strip -o "$root/bin/$program" "$build/bin/$program"; done
git describe --always --dirty --exclude '*' >"$root/commit" 2>/dev/null || echo unknown >"$root/commit"

# Open MPI finds its parts by OPAL_* variables, PMIx by PMIX_INSTALL_PREFIX; check.sh sets both. Only those
# plugins are kept that ranks on one host need.
plugins=$(dirname "$(find -L "$lib/openmpi" -name mca_btl_vader.so | head -n 1)")
cp "$plugins"/mca_*.so "$root/openmpi/lib/"
for other in ucx ofi openib ucc hcoll portals4 psm psm2 fcoll sharedfp fbtl spml scoll sshmem; do
  rm -f "$root"/openmpi/lib/mca_*"$other"*.so
done
cp "$(readlink -f "$(command -v mpirun)")" "$root/bin/mpirun"
cp "$(command -v orted)" "$root/bin/"
cp -rL /usr/share/openmpi "$root/openmpi/share"
cp -rL /etc/openmpi "$root/openmpi/etc"
cp -L "$lib"/pmix2/lib/pmix/*.so "$root/pmix/lib/" 2>/dev/null || true
cp -rL /usr/share/pmix2 "$root/pmix/share" 2>/dev/null || true

# All shared libraries but those that every system has.
find "$root" -type f \( -name '*.so' -o -path '*/bin/*' \) -exec ldd {} + |
  awk '/=> \//{print $3}' | sort -u |
  grep -vE '/(libc|libm|libdl|libpthread|librt|ld-linux.*)\.so' | xargs cp -L -t "$root/lib"
strip "$root"/lib/* "$root"/openmpi/lib/* 2>/dev/null || true

# The programs hold the same kernels: with a wide window they are packed once.
tar -C build -c gpu-pack | xz -T1 --lzma2=preset=6,dict=512MiB >"$archive.new"
size=$(stat -c %s "$archive.new")
if ((size > limit)); then
  echo "tests/gpu/pack.sh: $archive would have $size bytes, and at most $limit can be sent; see what is" \
    "large in $root" >&2
  rm "$archive.new"
  exit 1
fi
mv "$archive.new" "$archive"
echo "$archive: $size bytes, at most $limit"
