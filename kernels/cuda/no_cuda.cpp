// Stands in for the CUDA kernels in a build without CUDA.
#include "kernels/table.h"

namespace trireme {

const KernelTable& cuda_kernels() {
  fail(ExitCode::kUsage, "device cuda: this build has no CUDA kernels; use --device cpu");
}

void* cuda_allocate(std::size_t) {
  cuda_kernels();
  return nullptr;
}
void cuda_deallocate(void*, std::size_t) noexcept {}
void* cuda_allocate_host(std::size_t) { return cuda_allocate(0); }
void cuda_deallocate_host(void*) noexcept {}

struct Upload::State {};
Upload::Upload(Device, const void*, std::size_t) { cuda_kernels(); }
Upload::~Upload() = default;
void Upload::finish(void*) {}

AllocatorStatistics cuda_allocator_statistics() { return {}; }

}  // namespace trireme
