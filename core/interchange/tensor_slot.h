// A tensor as files see it: a name, a type and bytes in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/dtype.h"

namespace trireme {

/// A named tensor in memory: contiguous, row-major, `bytes` long. Not owned.
///
/// Or a part of one, where ranks hold parts: then `bytes` and `data` are those of its elements from `*first`
/// on, and other ranks hold the others.
struct TensorSlot {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  std::byte* data = nullptr;
  std::size_t bytes = 0;
  std::optional<std::uint64_t> first = {};
  /// Returns the address of element `index`.
  std::byte* at(std::uint64_t index) const { return data + (index - first.value_or(0)) * size_of(dtype); }
};

/// Bytes of a tensor of this shape; -1 when a dimension is negative or the product does not fit 63 bits.
std::int64_t bytes_of(DType dtype, const std::vector<std::int64_t>& shape);

/// "[2, 3]" and "float32 [2, 3]", for messages.
std::string text_of(const std::vector<std::int64_t>& shape);
std::string text_of(DType dtype, const std::vector<std::int64_t>& shape);

}  // namespace trireme
