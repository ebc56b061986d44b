#include "kernels/table.h"

#include <omp.h>

#include <cstdlib>
#include <string>
#include <string_view>

namespace trireme {

const KernelTable& cpu_kernels();
const KernelTable& cuda_kernels();

const KernelTable& kernels_of(Device device) { return device.is_cpu() ? cpu_kernels() : cuda_kernels(); }

namespace {

/// Returns how many threads a parallel region of the calling thread gets.
int provided_threads() {
  int count = 1;
#pragma omp parallel
#pragma omp master
  count = omp_get_num_threads();
  return count;
}

/// Returns the variables that keep OpenMP from providing threads, as "NAME=VALUE NAME=VALUE".
std::string openmp_limits() {
  std::string text;
  for (const char* name : {"OMP_THREAD_LIMIT", "OMP_MAX_ACTIVE_LEVELS", "OMP_DYNAMIC", "OMP_NESTED"})
    if (const char* value = std::getenv(name))
      text += fmt::format("{}{}={}", text.empty() ? "" : " ", name, value);
  return text.empty() ? "none of OpenMP's variables" : text;
}

}  // namespace

void set_threads(int threads) {
  TRIREME_CHECK(threads >= 1, "set_threads: {} threads, at least 1 is needed", threads);
  // OMP_DYNAMIC would give each parallel region another number of threads, by the machine's load.
  omp_set_dynamic(0);
  omp_set_num_threads(threads);
  if (threads == 1) return;
  const int provided = provided_threads();
  if (provided == threads) return;
  omp_set_num_threads(1);
  fail(ExitCode::kUsage,
       "OpenMP provides {} of the {} compute threads asked for (the environment has {}; the system may limit "
       "threads, "
       "too): unset what limits it, or ask for {}",
       provided, threads, openmp_limits(), provided);
}

int threads() { return omp_get_max_threads(); }

void check_cpu() {
#if defined(__x86_64__) && defined(__AVX2__)
  if (!__builtin_cpu_supports("avx2"))
    fail(ExitCode::kUsage,
         "cpu: this build needs AVX2 and this machine lacks it; build with -DTRIREME_MARCH=x86-64");
#endif
}

}  // namespace trireme
