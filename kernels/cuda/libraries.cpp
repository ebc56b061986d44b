// Which libraries and which GPU results depend on.
#include <cublasLt.h>

#include "kernels/cuda/cudnn.h"
#include "kernels/cuda/fused_attention.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/memory.h"

namespace trireme::cuda {

namespace {

/// Returns the library's name and version, or that an optional library is missing.
template <class Fn>
std::string version_of(const char* name, const Fn& version) {
  try {
    return fmt::format("{} {}", name, version());
  } catch (const Error&) {
    return fmt::format("no {}", name);
  }
}

}  // namespace

const std::string& libraries() {
  static const std::string text = [] {
    take_device();
    return fmt::format(
        "{}, {}, {}", describe_device(),
        version_of("cuBLASLt",
                   [] {
                     const Library library(kCublasLt, "cuBLAS");
                     return library.function<decltype(::cublasLtGetVersion)>("cublasLtGetVersion")();
                   }),
        version_of("cuDNN", [] {
          return fmt::format("{} with {}", dnn::api().cudnnGetVersion(), fused_attention_version());
        }));
  }();
  return text;
}

}  // namespace trireme::cuda
