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

}  // namespace trireme
