// Stands in for fused_attention.cpp where cuDNN's front end is absent.
#include "kernels/cuda/fused_attention.h"

namespace trireme::cuda {

bool run_fused_attention(const FusedShape&, const std::array<void*, kOperands>&) { return false; }

std::string fused_attention_version() { return "no front end"; }

std::string refuse_fused_attention(const FusedShape&, const std::string&, int, int) {
  return "this build has no cuDNN front end";
}

}  // namespace trireme::cuda
