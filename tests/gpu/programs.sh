# shellcheck shell=bash
# The programs that tests/gpu/check.sh runs: from a pack, or built here.

readonly archive=build/gpu-pack.tar.xz
readonly pack=$PWD/build/gpu-pack

# find_programs: sets $tests and $programs (folders), $commit, and `environment`, a command that starts one of
# our programs with its libraries. $commit is that of this tree until `unpack` knows better. Builds the
# programs if there is no pack.
find_programs() {
  local libraries own=()
  # CUDA's libraries as Python packages bring them, where the system has none.
  libraries=$(python3 -c '
import glob, os, nvidia
files = [p for base in nvidia.__path__ for p in glob.glob(base + "/**/lib*.so*", recursive=True)]
print(":".join(sorted({os.path.dirname(p) for p in files})))
' 2>/dev/null)
  # What is inherited stays: containers often find the driver by it. /usr/local/nvidia is where they mount it.
  libraries+=${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}:/usr/local/nvidia/lib64:/usr/local/nvidia/lib
  libraries=${libraries#:}
  if [[ -f $archive ]]; then
    tests=$pack/bin programs=$pack/bin
    libraries=$pack/lib:$libraries
    own=("PATH=$pack/bin:$PATH" "OPAL_PREFIX=$pack/openmpi" "OPAL_BINDIR=$pack/bin" "OPAL_LIBDIR=$pack/lib"
      "OPAL_PKGLIBDIR=$pack/openmpi/lib" "OPAL_PKGDATADIR=$pack/openmpi/share"
      "OPAL_SYSCONFDIR=$pack/openmpi/etc"
      "PMIX_INSTALL_PREFIX=$pack/pmix" "PMIX_MCA_mca_base_component_path=$pack/pmix/lib")
  else
    tests=build/tests programs=build/bin
    build_programs || return
  fi
  # Only our programs see these: PyTorch has libraries of its own.
  environment=(env "LD_LIBRARY_PATH=$libraries" "${own[@]}")
  commit=$(git describe --always --dirty --exclude '*' 2>/dev/null || echo unknown)
}

# build_programs: builds here what a pack would hold, or says in one line why that cannot be done.
build_programs() {
  local missing='' tool said
  for tool in cmake ninja protoc mpirun c++; do command -v "$tool" >/dev/null || missing+=" $tool"; done
  [[ -n $(command -v nvcc) || -x /usr/local/cuda/bin/nvcc ]] || missing+=" nvcc"
  if [[ -z $missing ]] && ! said=$(cmake --preset release -DTRIREME_TESTS=ON -DTRIREME_CUDA=ON 2>&1); then
    missing=" what CMake looks for ($(grep -A 3 'CMake Error' <<<"$said" | tr -s ' \n' ' ' | cut -c 1-200))"
  fi
  if [[ -n $missing ]]; then
    echo "tests/gpu/check.sh: there is no $archive, and a build here lacks$missing; make the pack with" \
      "tests/gpu/pack.sh on a machine that can build, and copy it here" >&2
    return 1
  fi
  echo "there is no $archive: building"
  cmake --build build -j "$(nproc)" --target gpu_ops gpu_sizes gpu_low_precision gpu_cross_entropy \
    gpu_collectives bench_steps train_gpt train_classifier trireme_cli
}

# unpack: unpacks the pack, unless that has been done, and sets $commit to its commit. Without xz, Python does
# it.
unpack() {
  if [[ ! -f $archive ]]; then
    echo "the programs were built here"
    return
  fi
  if [[ ! $pack/unpacked -nt $archive ]]; then
    rm -rf "$pack"
    if command -v xz >/dev/null; then
      limited tar -C build -xf "$archive" || return
    else
      limited python3 -c "import tarfile; tarfile.open('$archive').extractall('build')" || return
    fi
    touch "$pack/unpacked"
  fi
  commit=$(<"$pack/commit")
  echo "packed from commit $commit"
}
