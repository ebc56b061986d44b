// Attention whose passes are one kernel each, by cuDNN's front end. Include only from kernels/cuda and its
// tests.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "kernels/cuda/engines.h"
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

/// Enqueues one pass; memory[o] is operand o's, aligned to 16 bytes. Returns an empty text, or why the
/// library cannot compute it with bits that do not depend on scheduling; then nothing is enqueued. The answer
/// depends on the shape, the library and the GPU alone. Throws Error(kInternal) if the library could, but
/// fails.
std::string run_fused_attention(const FusedShape& shape, const std::array<void*, kOperands>& memory);

/// A part of a pass: so many samples, or so many heads of one sample.
struct FusedSlice {
  std::int64_t samples, heads;
  bool operator==(const FusedSlice&) const = default;
};
/// Returns the largest part that a backward pass may compute at once. For a part, the deterministic kernels
/// keep a matrix of samples * heads * queries * keys 16-bit numbers in their workspace, and cuDNN refuses
/// workspaces that are too large. A matrix of 48 MiB stays in the cache of an H200. Parts of one pass have
/// nearly the same size.
FusedSlice backward_slice(const FusedShape& shape);
/// The shape of a part.
FusedShape part_of(const FusedShape& shape, const FusedSlice& part);

/// Describes a pass in one line; passes of different shapes have different lines.
std::string describe(const FusedShape& shape);

/// Says how an attempt of cuDNN's front end ended, from its error message, which is empty if it succeeded.
/// `device_failed` says that a call of CUDA failed, not one of cuDNN.
PlanAttempt front_end_attempt(const std::string& error, bool device_failed = false);

/// Returns "front end 1.32.0", or that there is none.
std::string fused_attention_version();

/// Returns why cuDNN's front end cannot call the CUDA runtime, which it loads by itself, in one line; empty
/// if it can.
std::string missing_cuda_runtime();

/// Returns why the library has no kernel for a shape on a GPU that is described in the library's own JSON;
/// empty if it has one, which is not made. `architecture` is the compute capability times ten.
std::string refuse_fused_attention(const FusedShape& shape, const std::string& gpu, int architecture,
                                   int processors);

}  // namespace trireme::cuda
