// The CUDA runtime behind runtime.h. Every call is checked.
#include "kernels/cuda/runtime.h"

#include <cuda_runtime.h>

#include <cstdio>
#include <string>

namespace trireme::cuda {

namespace {

cudaStream_t real(Stream stream) { return reinterpret_cast<cudaStream_t>(stream); }
cudaEvent_t real(Event event) { return reinterpret_cast<cudaEvent_t>(event); }

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // it is kept until asked for, and would be taken for the next kernel's
  // A kernel's own failure is reported by whatever call comes next.
  fail(ExitCode::kInternal,
       "cuda: {} failed: {} ({}); run with CUDA_LAUNCH_BLOCKING=1 or compute-sanitizer to find the kernel",
       what, cudaGetErrorName(status), cudaGetErrorString(status));
}

/// For what must not throw: a failure to give something back loses it, but no result.
void report(cudaError_t status, const char* what) noexcept {
  // When the process ends, the runtime may be gone before the last tensors are.
  if (status == cudaSuccess || status == cudaErrorCudartUnloading) return;
  cudaGetLastError();
  fmt::print(stderr, "cuda: {} failed: {}\n", what, cudaGetErrorString(status));
}

}  // namespace

int device_count() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // it is kept until asked for
    return 0;
  }
  return count;
}

void use_device(int index) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();
    fail(ExitCode::kUsage, "device cuda: this machine has no usable NVIDIA GPU ({}); use --device cpu",
         status != cudaSuccess ? cudaGetErrorString(status) : "none was found");
  }
  if (index < 0 || index >= count)
    fail(ExitCode::kUsage,
         "device cuda:{}: this machine has {} GPUs, 0 to {}; start fewer ranks here or use --device cpu",
         index, count, count - 1);
  check(cudaSetDevice(index), "cudaSetDevice");
}

Stream make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  return reinterpret_cast<Stream>(stream);
}

void synchronize(Stream stream) { check(cudaStreamSynchronize(real(stream)), "cudaStreamSynchronize"); }

Event make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  return reinterpret_cast<Event>(event);
}

void free_event(Event event) noexcept { report(cudaEventDestroy(real(event)), "cudaEventDestroy"); }

void record(Event event, Stream stream) {
  check(cudaEventRecord(real(event), real(stream)), "cudaEventRecord");
}

bool is_done(Event event) {
  const cudaError_t status = cudaEventQuery(real(event));
  if (status == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  check(status, "cudaEventQuery");
  return true;
}

void wait_for(Stream stream, Event event) {
  check(cudaStreamWaitEvent(real(stream), real(event), 0), "cudaStreamWaitEvent");
}

void synchronize(Event event) { check(cudaEventSynchronize(real(event)), "cudaEventSynchronize"); }

void check_launch() { check(cudaGetLastError(), "the start of a kernel"); }

void* device_malloc(std::size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(status, "cudaMalloc");
  return memory;
}

void device_free(void* memory) noexcept { report(cudaFree(memory), "cudaFree"); }

MemoryInfo memory_info() {
  MemoryInfo info{};
  check(cudaMemGetInfo(&info.free, &info.total), "cudaMemGetInfo");
  return info;
}

void* pinned_malloc(std::size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMallocHost(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(ExitCode::kUsage, "cuda: out of pinned host memory: {} bytes more are needed", bytes);
  }
  check(status, "cudaMallocHost");
  return memory;
}

void pinned_free(void* memory) noexcept { report(cudaFreeHost(memory), "cudaFreeHost"); }

void copy_to_device(void* device, const void* host, std::size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, real(stream)),
        "cudaMemcpyAsync to the device");
}

void copy_to_host(void* host, const void* device, std::size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, real(stream)),
        "cudaMemcpyAsync to the host");
}

void copy_on_device(void* to, const void* from, std::size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, real(stream)), "cudaMemcpyAsync");
}

const char* describe_device() {
  static const std::string text = [] {
    int device = 0, driver = 0, runtime = 0;
    cudaDeviceProp properties{};
    check(cudaGetDevice(&device), "cudaGetDevice");
    check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
    return fmt::format("{}, compute capability {}.{}, driver {}.{}, runtime {}.{}", properties.name,
                       properties.major, properties.minor, driver / 1000, driver % 1000 / 10, runtime / 1000,
                       runtime % 1000 / 10);
  }();
  return text.c_str();
}

}  // namespace trireme::cuda
