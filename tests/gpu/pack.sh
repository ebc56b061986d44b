#!/usr/bin/env bash
# Packs what tests/gpu/check.sh runs, for a machine with a GPU that cannot build it: the programs, the shared
# libraries that they need, Open MPI. CUDA's own libraries are looked for there.
#
#   tests/gpu/pack.sh      builds, and writes build/gpu-pack.tar.xz
set -euo pipefail
cd "$(dirname "$0")/../.."

tests=(gpu_ops gpu_sizes gpu_low_precision gpu_cross_entropy bench_steps)
programs=(train_gpt train_classifier trireme)
root=build/gpu-pack
lib=/usr/lib/$(gcc -print-multiarch)

cmake --preset release -DTRIREME_TESTS=ON -DTRIREME_CUDA=ON >/dev/null
cmake --build build -j "$(nproc)" --target "${tests[@]}" "${programs[@]}" >/dev/null

rm -rf "$root"
mkdir -p "$root/bin" "$root/lib" "$root/openmpi/lib" "$root/pmix/lib"
for test in "${tests[@]}"; do strip -o "$root/bin/$test" "build/tests/$test"; done
for program in "${programs[@]}"; do strip -o "$root/bin/$program" "build/bin/$program"; done

# Open MPI finds its parts by OPAL_* variables, PMIx by PMIX_INSTALL_PREFIX; check.sh sets both. Of the plugins
# those stay that one host needs.
plugins=$(dirname "$(find -L "$lib/openmpi" -name mca_btl_vader.so | head -n 1)")
cp "$plugins"/mca_*.so "$root/openmpi/lib/"
rm -f "$root"/openmpi/lib/mca_*{ucx,ofi,openib,ucc,hcoll,portals4,psm,psm2,fcoll,sharedfp,fbtl,spml,scoll,sshmem}*.so
cp "$(readlink -f "$(command -v mpirun)")" "$root/bin/mpirun"
cp "$(command -v orted)" "$root/bin/"
cp -rL /usr/share/openmpi "$root/openmpi/share"
cp -rL /etc/openmpi "$root/openmpi/etc"
cp -L "$lib"/pmix2/lib/pmix/*.so "$root/pmix/lib/" 2>/dev/null || true
cp -rL /usr/share/pmix2 "$root/pmix/share" 2>/dev/null || true

# All but what every system has of its own.
find "$root" -type f \( -name '*.so' -o -path '*/bin/*' \) -exec ldd {} + | awk '/=> \//{print $3}' | sort -u |
  grep -vE '/(libc|libm|libdl|libpthread|librt|ld-linux.*)\.so' | xargs cp -L -t "$root/lib"
strip "$root"/lib/* "$root"/openmpi/lib/* 2>/dev/null || true

# The programs hold the same kernels: with a wide window they are packed once.
tar -C build -c gpu-pack | xz -T1 --lzma2=preset=6,dict=512MiB >build/gpu-pack.tar.xz
du -h build/gpu-pack.tar.xz
