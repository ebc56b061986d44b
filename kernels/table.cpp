#include "kernels/table.h"

#include <omp.h>

#include <string_view>

namespace trireme {

const KernelTable& cpu_kernels();
const KernelTable& cuda_kernels();

const KernelTable& kernels_of(Device device) { return device.is_cpu() ? cpu_kernels() : cuda_kernels(); }

void set_threads(int threads) {
  TRIREME_CHECK(threads >= 1, "set_threads: {} threads, at least 1 is needed", threads);
  omp_set_num_threads(threads);
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
