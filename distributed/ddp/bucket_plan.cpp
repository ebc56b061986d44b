#include "distributed/ddp/bucket_plan.h"

#include <algorithm>

#include "kernels/error.h"

namespace trireme {

std::vector<BucketPlan> plan_buckets(std::span<const std::size_t> elements,
                                     std::span<const std::size_t> order, std::size_t cap_bytes,
                                     std::size_t first_cap_bytes) {
  TRIREME_CHECK(order.size() == elements.size(), "plan_buckets: {} tensors, but an order of {}",
                elements.size(), order.size());
  std::vector<BucketPlan> plan;
  for (std::size_t index : order) {
    const std::size_t padded = (elements[index] + kBucketAlignment - 1) / kBucketAlignment * kBucketAlignment;
    const std::size_t cap = plan.size() <= 1 ? std::min(first_cap_bytes, cap_bytes) : cap_bytes;
    if (plan.empty() || (plan.back().elements + padded) * sizeof(float) > cap) plan.emplace_back();
    BucketPlan& bucket = plan.back();
    bucket.tensors.push_back(index);
    bucket.offsets.push_back(bucket.elements);
    bucket.elements += padded;
  }
  return plan;
}

std::vector<std::size_t> cut_bucket(const BucketPlan& plan, std::span<const std::size_t> elements, int ranks,
                                    std::size_t unit) {
  std::vector<std::size_t> cuts{0};
  for (int rank = 1; rank < ranks; ++rank) {
    const std::size_t even = plan.elements * static_cast<std::size_t>(rank) / static_cast<std::size_t>(ranks);
    const auto after = std::ranges::upper_bound(plan.offsets, even);
    const auto slot = static_cast<std::size_t>(after - plan.offsets.begin()) - 1;
    const std::size_t begin = plan.offsets[slot],
                      end = slot + 1 < plan.offsets.size() ? plan.offsets[slot + 1] : plan.elements,
                      cut = begin + (even - begin + unit / 2) / unit * unit;
    cuts.push_back(cut - begin < elements[plan.tensors[slot]] ? cut : end);
  }
  cuts.push_back(plan.elements);
  return cuts;
}

}  // namespace trireme
