#!/usr/bin/env bash
# Installs what is missing on Debian 12 and Ubuntu 24.04. Where nothing is missing it does nothing.
#
#   cmake/install_dependencies.sh [quickstart] [tests]     always what the build needs, and these besides
#
# `a|b` is whichever of the two the distribution has; `?a` may be absent from it.
set -euo pipefail

packages=(build-essential cmake ninja-build
  "libdnnl-dev|libonednn-dev" "libopenblas-openmp-dev|libopenblas-dev" libopenmpi-dev openmpi-bin
  protobuf-compiler libprotobuf-dev libcli11-dev libfmt-dev nlohmann-json3-dev zlib1g-dev libssl-dev)
for what in "$@"; do
  case $what in
    quickstart) packages+=(gnuplot-nox fonts-dejavu-core "?dataset-fashion-mnist") ;;
    tests) packages+=(libgtest-dev libbenchmark-dev python3 gnuplot-nox iproute2 nftables slurmctld slurmd slurm-client munge
           "?dataset-fashion-mnist") ;;
    *) echo "install_dependencies.sh: unknown part '$what': say quickstart, tests, both or none" >&2; exit 2 ;;
  esac
done

installed() { dpkg-query --show --showformat='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "install_dependencies.sh: not a Debian or Ubuntu system, so nothing was installed; the build needs: ${packages[*]}" >&2
  exit 0
fi

missing=()
for entry in "${packages[@]}"; do
  IFS='|' read -ra names <<<"${entry#\?}"
  found=no
  for name in "${names[@]}"; do
    if installed "$name"; then found=yes; fi
  done
  if [[ $found == no ]]; then missing+=("$entry"); fi
done
if [[ ${#missing[@]} -eq 0 ]]; then exit 0; fi

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  # Without a terminal nobody can type a password.
  if [[ -t 0 ]]; then as_root=(sudo); else as_root=(sudo -n); fi
fi

# Runs one command as root; shows what it said only when it failed.
quietly() {
  local said
  if ! said=$("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "$@" 2>&1); then
    printf '%s\n' "$said" | tail -n 5 >&2
    return 1
  fi
}

# The packages of "$@" that this distribution has.
available() {
  local entry name
  wanted=()
  for entry in "$@"; do
    IFS='|' read -ra names <<<"${entry#\?}"
    for name in "${names[@]}"; do
      if [[ -n $(apt-cache --names-only search "^${name//+/\\+}\$" 2>/dev/null) ]]; then
        wanted+=("$name")
        continue 2
      fi
    done
    if [[ $entry == \?* ]]; then continue; fi
    wanted+=("${names[0]}")  # apt says why not
  done
}

# An optional package that this distribution lacks must not cost an update at every run.
required=()
for entry in "${missing[@]}"; do
  if [[ $entry != \?* ]]; then required+=("$entry"); fi
done
available "${missing[@]}"
if [[ ${#required[@]} -eq 0 && ${#wanted[@]} -eq 0 && -n $(apt-cache --names-only search '^libgtest-dev$') ]]; then
  exit 0
fi
if [[ ${#as_root[@]} -gt 0 ]] && ! { command -v sudo >/dev/null && "${as_root[@]}" true; } 2>/dev/null; then
  if [[ ${#required[@]} -eq 0 ]]; then exit 0; fi
  echo "install_dependencies.sh: needs root to install: run once as root: apt-get install ${wanted[*]}" >&2
  exit 2
fi
echo "installing ${missing[*]//\?/}"
if ! quietly apt-get -q -o DPkg::Lock::Timeout=300 update; then
  echo "install_dependencies.sh: apt-get update failed (above); trying with the package lists at hand" >&2
fi
available "${missing[@]}"
if [[ ${#wanted[@]} -gt 0 ]] &&
    ! quietly apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${wanted[@]}"; then
  echo "install_dependencies.sh: apt-get could not install ${wanted[*]} (its reason is above)" >&2
  exit 2
fi
