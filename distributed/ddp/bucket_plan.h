// Which gradients travel together: a pure function of sizes, an order and a cap.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace trireme {

/// One bucket: the tensors in it, in the order they lie in its memory.
struct BucketPlan {
  std::vector<std::size_t> tensors;  ///< indices into the parameter list
  std::vector<std::size_t> offsets;  ///< of each tensor, in elements
  std::size_t elements = 0;          ///< of all tensors, padding between them included
};

/// Every tensor starts on a multiple of this many elements (64 bytes of float32).
inline constexpr std::size_t kBucketAlignment = 16;

/// Fills buckets with the tensors in `order` (a permutation of all indices; first ready first), each up to
/// `cap_bytes` of float32; a tensor larger than the cap has a bucket of its own. The first bucket is cut at
/// `first_cap_bytes` so that communication starts early. Deterministic: every rank computes the same plan.
std::vector<BucketPlan> plan_buckets(std::span<const std::size_t> elements,
                                     std::span<const std::size_t> order, std::size_t cap_bytes,
                                     std::size_t first_cap_bytes);

/// Where a bucket is cut so that each of `ranks` updates about as much of it: rank r has elements
/// [cuts[r], cuts[r + 1]). A tensor is cut at multiples of `unit` of its own elements only, so that sums over
/// such units need know nothing of ranks or buckets. `elements` are those of all tensors of the plan's list.
std::vector<std::size_t> cut_bucket(const BucketPlan& plan, std::span<const std::size_t> elements, int ranks,
                                    std::size_t unit);

}  // namespace trireme
