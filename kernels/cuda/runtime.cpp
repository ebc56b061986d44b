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
    int driver = 0;
    cudaDriverGetVersion(&driver);  // 0 without one, which the status takes for an old one
    fail(ExitCode::kUsage, "device cuda: this machine has no usable NVIDIA GPU ({}); use --device cpu",
         driver == 0             ? "it has no NVIDIA driver"
         : status != cudaSuccess ? cudaGetErrorString(status)
                                 : "none was found");
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

namespace {

/// The addresses of a kernel's two parameters.
struct Parameters {
  void* at[2];
  explicit Parameters(const Kernel& k)
      : at{const_cast<std::int64_t*>(&k.count), const_cast<std::byte*>(k.functor.data())} {}
};

}  // namespace

void start(const Kernel& k, Stream stream) {
  check(cudaLaunchKernel(k.function, dim3(k.blocks), dim3(k.threads), Parameters(k).at, 0, real(stream)),
        "the start of a kernel");
}

void begin_capture(Stream stream) {
  // Relaxed: the driver may be asked for memory meanwhile, by this thread and others.
  check(cudaStreamBeginCapture(real(stream), cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
}

GraphNode last_node(Stream stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaGraphNode_t* nodes = nullptr;
  std::size_t count = 0;
#if CUDART_VERSION >= 13000
  check(cudaStreamGetCaptureInfo(real(stream), &status, nullptr, nullptr, &nodes, nullptr, &count),
        "cudaStreamGetCaptureInfo");
#else
  check(cudaStreamGetCaptureInfo_v2(real(stream), &status, nullptr, nullptr, &nodes, &count),
        "cudaStreamGetCaptureInfo");
#endif
  TRIREME_CHECK(status == cudaStreamCaptureStatusActive && count == 1,
                "cuda graph: the stream has {} last nodes, one is expected", count);
  return reinterpret_cast<GraphNode>(nodes[0]);
}

Graph end_capture(Stream stream) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(real(stream), &graph), "cudaStreamEndCapture (try without --cuda-graph)");
  return reinterpret_cast<Graph>(graph);
}

void abandon_capture(Stream stream) noexcept {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(real(stream), &status) == cudaSuccess && status != cudaStreamCaptureStatusNone) {
    cudaGraph_t graph = nullptr;
    // An invalidated capture ends with an error, which whoever abandons it knows.
    if (cudaStreamEndCapture(real(stream), &graph) == cudaSuccess && graph) cudaGraphDestroy(graph);
  }
  cudaGetLastError();  // it is kept until asked for
}

ReadyGraph make_ready(Graph graph) {
  cudaGraphExec_t ready = nullptr;
  check(cudaGraphInstantiate(&ready, reinterpret_cast<cudaGraph_t>(graph), 0), "cudaGraphInstantiate");
  return reinterpret_cast<ReadyGraph>(ready);
}

void change(ReadyGraph ready, GraphNode node, const Kernel& k) {
  Parameters parameters(k);
  cudaKernelNodeParams all{};
  all.func = const_cast<void*>(k.function);
  all.gridDim = dim3(k.blocks);
  all.blockDim = dim3(k.threads);
  all.kernelParams = parameters.at;
  check(cudaGraphExecKernelNodeSetParams(reinterpret_cast<cudaGraphExec_t>(ready),
                                         reinterpret_cast<cudaGraphNode_t>(node), &all),
        "cudaGraphExecKernelNodeSetParams");
}

void start(ReadyGraph ready, Stream stream) {
  check(cudaGraphLaunch(reinterpret_cast<cudaGraphExec_t>(ready), real(stream)), "cudaGraphLaunch");
}

void free_graph(Graph graph) noexcept {
  report(cudaGraphDestroy(reinterpret_cast<cudaGraph_t>(graph)), "cudaGraphDestroy");
}

void free_ready(ReadyGraph ready) noexcept {
  report(cudaGraphExecDestroy(reinterpret_cast<cudaGraphExec_t>(ready)), "cudaGraphExecDestroy");
}

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

Capability capability() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  const auto ask = [device](cudaDeviceAttr attribute) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
    return value;
  };
  return {ask(cudaDevAttrComputeCapabilityMajor), ask(cudaDevAttrComputeCapabilityMinor),
          ask(cudaDevAttrMultiProcessorCount)};
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
