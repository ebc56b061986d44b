// Models the time of a sum over ranks: a constant plus a time for each byte.
#pragma once

#include <cstddef>
#include <string>

#include "distributed/comm/communicator.h"

namespace trireme {

/// The cost of a sum: n bytes take about seconds + n / bytes_per_second. This is the model of S. Shi, X. Chu,
/// B. Li, MG-WFBP, 2019.
struct LinkCost {
  double seconds = 0;
  double bytes_per_second = 0;  ///< 0: not measured, or nothing is sent
  std::string to_string() const;
};

/// Measures the cost of sums by timing short and long ones. Returns the same values on all ranks, and zeros
/// in a world of one rank. Collective and blocking.
LinkCost measure_link(Communicator& comm);

/// Returns the best bucket size in bytes, between 1/2 and 25 MiB, for `total_bytes` of gradients. Smaller
/// buckets make the last sum, which no computation hides, faster; but they make the total time of all sums
/// longer.
std::size_t best_bucket_bytes(std::size_t total_bytes, const LinkCost& link);

}  // namespace trireme
