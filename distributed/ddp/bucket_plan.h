// Plans buckets: decides which gradients are reduced together, given their sizes, an order and a size limit.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace trireme {

/// The tensors of one bucket, in the order of their place in its memory.
struct BucketPlan {
  std::vector<std::size_t> tensors;  ///< indices into the parameter list
  std::vector<std::size_t> offsets;  ///< offset of each tensor in the bucket, in elements
  std::size_t elements = 0;          ///< total size of the bucket, including padding
};

/// Every tensor starts at a multiple of this many elements (64 bytes of float32).
inline constexpr std::size_t kBucketAlignment = 16;

/// Returns buckets that hold the tensors in `order`, a permutation of all indices in which the tensor that is
/// ready first comes first. A bucket has at most `cap_bytes` bytes of float32; a larger tensor gets its own
/// bucket. The first bucket has at most `first_cap_bytes`, so that communication starts early. The result is
/// deterministic: every rank computes the same plan.
std::vector<BucketPlan> plan_buckets(std::span<const std::size_t> elements,
                                     std::span<const std::size_t> order, std::size_t cap_bytes,
                                     std::size_t first_cap_bytes);

/// Returns `ranks` + 1 cuts of a bucket. Rank r updates elements [cuts[r], cuts[r + 1]), and all ranks update
/// about as many. A tensor is cut only at multiples of `unit` of its own elements, so that sums over such
/// units do not depend on ranks or buckets. `elements` holds the sizes of all tensors of the parameter list.
std::vector<std::size_t> cut_bucket(const BucketPlan& plan, std::span<const std::size_t> elements, int ranks,
                                    std::size_t unit);

}  // namespace trireme
