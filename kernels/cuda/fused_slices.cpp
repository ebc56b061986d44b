// What fused attention decides without the library.
#include <algorithm>

#include "kernels/cuda/fused_attention.h"
#include "kernels/error.h"

namespace trireme::cuda {

namespace {

/// Returns the size of the parts if `all` is cut into as few parts of at most `most` as possible.
std::int64_t even_part(std::int64_t all, std::int64_t most) {
  const std::int64_t parts = (all + most - 1) / most;
  return (all + parts - 1) / parts;
}

}  // namespace

FusedSlice backward_slice(const FusedShape& s) {
  constexpr std::int64_t kBytes = std::int64_t{48} << 20;
  const std::int64_t head = 2 * s.queries * s.keys, sample = s.heads * head;
  if (sample <= kBytes) return {even_part(s.batch, std::max<std::int64_t>(1, kBytes / sample)), s.heads};
  return {1, even_part(s.heads, std::max<std::int64_t>(1, kBytes / head))};
}

FusedShape part_of(const FusedShape& shape, const FusedSlice& part) {
  FusedShape s = shape;
  s.batch = part.samples;
  s.heads = part.heads;
  return s;
}

std::string describe(const FusedShape& s) {
  std::string strides;
  for (const auto& [sample, head, row] : s.strides) strides += fmt::format(" {},{},{}", sample, head, row);
  return fmt::format("attention {}{}, {}, ({},{},{},{}) x ({},{}), scale {}, strides{}",
                     s.backward ? "backward" : "forward", s.causal ? ", causal" : "", name_of(s.dtype),
                     s.batch, s.heads, s.queries, s.width, s.keys, s.value_width, s.scale, strides);
}

PlanAttempt front_end_attempt(const std::string& error, bool device_failed) {
  if (error.empty()) return {};
  // The front end puts the library's status at the end of its text. Without one, the front end itself
  // refused.
  const std::size_t status = error.rfind("CUDNN_STATUS_");
  const bool is_refused =
      status == error.npos || error.compare(status, 26, "CUDNN_STATUS_NOT_SUPPORTED") == 0;
  std::string line = error;
  std::ranges::replace(line, '\n', ' ');
  return {is_refused && !device_failed ? PlanAttempt::kNotSupported : PlanAttempt::kFailed, line};
}

}  // namespace trireme::cuda
