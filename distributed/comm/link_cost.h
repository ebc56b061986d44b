// What a sum over ranks costs: a part that every one has, and a part for each byte.
#pragma once

#include <cstddef>
#include <string>

#include "distributed/comm/communicator.h"

namespace trireme {

/// A sum of n bytes takes about seconds + n / bytes_per_second: the model of S. Shi, X. Chu, B. Li, MG-WFBP,
/// 2019.
struct LinkCost {
  double seconds = 0;
  double bytes_per_second = 0;  ///< 0: nothing was measured, or nothing is sent
  std::string to_string() const;
};

/// Times some sums, short and long ones; the same on all ranks. Collective and blocking. A world of one gives
/// zeros.
LinkCost measure_link(Communicator& comm);

/// How many bytes of gradients are best summed together, of `total_bytes`: the last sum, which nothing hides,
/// gets cheaper with smaller buckets, all of them together dearer. Between 1/2 and 25 MiB.
std::size_t best_bucket_bytes(std::size_t total_bytes, const LinkCost& link);

}  // namespace trireme
