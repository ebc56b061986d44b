// cuDNN's graph API (the "backend" API of cuDNN 9): descriptors, and plans that run a graph of operations.
// Include only from kernels/cuda and its tests.
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/engines.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/runtime.h"
#include "kernels/dtype.h"

namespace trireme::cuda::dnn {

/// The library's functions, typed by its own header.
struct Api {
  Library library{{"libcudnn.so.9"}, "cuDNN 9 (package libcudnn9)"};
#define TRIREME_FUNCTION(name) decltype(::name)* name = library.function<decltype(::name)>(#name);
  TRIREME_FUNCTION(cudnnCreate)
  TRIREME_FUNCTION(cudnnSetStream)
  TRIREME_FUNCTION(cudnnGetVersion)
  TRIREME_FUNCTION(cudnnGetErrorString)
  TRIREME_FUNCTION(cudnnGetLastErrorString)
  TRIREME_FUNCTION(cudnnBackendCreateDescriptor)
  TRIREME_FUNCTION(cudnnBackendDestroyDescriptor)
  TRIREME_FUNCTION(cudnnBackendSetAttribute)
  TRIREME_FUNCTION(cudnnBackendGetAttribute)
  TRIREME_FUNCTION(cudnnBackendFinalize)
  TRIREME_FUNCTION(cudnnBackendExecute)
#undef TRIREME_FUNCTION
};
/// Loads the library. Throws Error(kUsage) if there is none.
const Api& api();

/// Throws what the library says of a call that failed.
void check(cudnnStatus_t status, const char* what);

/// Set its attributes, then finalize(); after that it may stand in others, which must not outlive it.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : made_(std::exchange(other.made_, nullptr)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                  const void* values);
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& other);
  Descriptor& set(cudnnBackendAttributeName_t name, std::span<const std::int64_t> values) {
    return set(name, CUDNN_TYPE_INT64, static_cast<std::int64_t>(values.size()), values.data());
  }
  template <class T>
  Descriptor& set_one(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
    return set(name, type, 1, &value);
  }
  Descriptor& finalize();
  /// Finalizes the descriptor and returns the library's status.
  cudnnStatus_t try_finalize();
  cudnnBackendDescriptor_t get() const { return made_; }

 private:
  cudnnBackendDescriptor_t made_ = nullptr;
};

/// A tensor of `dims` (N,C,H,W order, any strides) under the number `id`, in memory as Aligned gives it.
Descriptor tensor(std::int64_t id, DType dtype, std::span<const std::int64_t> dims,
                  std::span<const std::int64_t> strides);

/// The GPU that plans are made for: this process's GPU or, in tests, one that is described in the library's
/// JSON format.
class Target {
 public:
  Target();
  explicit Target(const std::string& json);
  cudnnHandle_t handle() const { return handle_; }
  const Descriptor& properties() const { return properties_; }
  /// fn(handle), whose work goes to `stream`; one thread at a time.
  template <class Fn>
  void use(Stream stream, const Fn& fn) const {
    const std::lock_guard lock(mutex_);
    check(api().cudnnSetStream(handle_, reinterpret_cast<cudaStream_t>(stream)), "cudnnSetStream");
    fn(handle_);
  }

 private:
  cudnnHandle_t handle_ = nullptr;
  Descriptor properties_;
  mutable std::mutex mutex_;
};
/// That of this process. Lives as long as it.
const Target& this_gpu();

/// One operation, ready to run. Its engine is the first of the library's list, which depends on the shape
/// alone, among those whose bits do not depend on scheduling and that round float32 as float32.
class Plan {
 public:
  /// `parts` are the operation, which comes last, and the descriptors that it refers to. `operation` is one
  /// line that describes it and names no other operation; the engine is recorded under it
  /// (kernels/cuda/engines.h) if `target` is this process's GPU. Throws Error(kInternal) if no engine
  /// supports the operation, or if making the plan fails for another reason.
  Plan(const Target& target, std::vector<Descriptor> parts, DType dtype, const std::string& operation);
  static constexpr std::size_t kMostTensors = 4;
  /// Both must live as long as the process. memory[i] is that of the tensor of number i.
  void enqueue(const Target& target, std::span<void* const> memory) const;
  std::int64_t workspace() const { return workspace_; }

 private:
  struct Run {
    const Plan* plan;
    const Target* target;
    std::size_t tensors;
    void* memory[kMostTensors];
    void* workspace;
    void operator()(Stream stream) const { plan->run(*this, stream); }
  };

  PlanAttempt attempt(const Target& target, const Descriptor& config, DType dtype);
  void run(const Run& run, Stream stream) const;

  std::vector<Descriptor> parts_;
  Descriptor graph_{CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR};
  std::unique_ptr<Descriptor> config_, plan_;
  std::int64_t workspace_ = 0;
};

}  // namespace trireme::cuda::dnn
