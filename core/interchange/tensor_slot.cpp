#include "core/interchange/tensor_slot.h"

#include <fmt/ranges.h>

namespace trireme {

std::int64_t bytes_of(DType dtype, const std::vector<std::int64_t>& shape) {
  auto bytes = static_cast<std::int64_t>(size_of(dtype));
  bool empty = false, too_large = false;
  for (const std::int64_t dimension : shape) {
    if (dimension < 0) return -1;
    empty |= dimension == 0;
    too_large |= __builtin_mul_overflow(bytes, dimension, &bytes);
  }
  if (empty) return 0;  // also when the other dimensions alone would overflow
  return too_large ? -1 : bytes;
}

std::string text_of(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string text_of(DType dtype, const std::vector<std::int64_t>& shape) {
  return fmt::format("{} {}", name_of(dtype), text_of(shape));
}

}  // namespace trireme
