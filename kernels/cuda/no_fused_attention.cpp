// Stands in for fused_attention.cpp in a build without cuDNN's front end.
#include "kernels/cuda/fused_attention.h"

namespace trireme::cuda {

std::string run_fused_attention(const FusedShape&, const std::array<void*, kOperands>&) {
  return "this build has no cuDNN front end";
}

std::string missing_cuda_runtime() { return ""; }

std::string fused_attention_version() { return "no front end"; }

std::string refuse_fused_attention(const FusedShape&, const std::string&, int, int) {
  return "this build has no cuDNN front end";
}

}  // namespace trireme::cuda
