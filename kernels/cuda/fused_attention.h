// Attention in one kernel a pass: what cuDNN's front end is asked for. Include only from kernels/cuda and its
// tests.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "kernels/table.h"

namespace trireme::cuda {

/// The tensors of attention by their place in arrays. A forward pass has the first five.
enum Operand { kQ, kK, kV, kOut, kLogSums, kOutGradient, kQGradient, kKGradient, kVGradient, kOperands };

/// Attention of 16-bit q (B,H,L,E), k (B,H,S,E) and v (B,H,S,Ev), without dropout and masks but the triangle.
struct FusedShape {
  bool backward = false, causal = false;
  DType dtype = DType::kBFloat16;
  std::int64_t batch = 0, heads = 0, queries = 0, keys = 0, width = 0, value_width = 0;
  float scale = 1;
  /// From sample to sample, head to head and row to row. Numbers of a row lie next to each other; log_sums
  /// (B,H,L), float32, are row-major.
  std::array<std::array<std::int64_t, 3>, kOperands> strides{};
  auto operator<=>(const FusedShape&) const = default;

  std::int64_t rows_of(Operand o) const { return o == kK || o == kV || o >= kKGradient ? keys : queries; }
  std::int64_t width_of(Operand o) const {
    const bool of_values = o == kV || o == kOut || o == kOutGradient || o == kVGradient;
    return of_values ? value_width : width;
  }
};

/// Enqueues one pass; memory[o] is operand o's. False, and nothing is done, where the library has no kernel
/// for it whose bits do not depend on scheduling, or this build has no front end. By the shape, the library
/// and the GPU alone, so alike on all ranks.
bool run_fused_attention(const FusedShape& shape, const std::array<void*, kOperands>& memory);

/// "front end 1.32.0", or that there is none.
std::string fused_attention_version();

/// Why the library has no kernel for it on a GPU that is described in its own JSON; empty if it has one,
/// which is not made. `architecture` is the compute capability times ten.
std::string refuse_fused_attention(const FusedShape& shape, const std::string& gpu, int architecture,
                                   int processors);

}  // namespace trireme::cuda
