// One line that stands for the whole state of a job, or for its data.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/data/dataset.h"
#include "core/nn/module.h"
#include "distributed/comm/communicator.h"

namespace trireme {

/// SHA-256 (hex) over name, dtype, shape and bytes of every tensor, in name order. Equal digests mean equal
/// bits; the digest does not depend on world size, rank layout or bucket size.
std::string digest_of(std::vector<NamedTensor> tensors);
/// Name and a digest of each tensor alone, 16 hexadecimal digits, in name order.
using TensorDigests = std::vector<std::pair<std::string, std::string>>;

/// The same on all ranks of `comm` (a host's). Collective if they hold parts of tensors. `each` is filled on
/// rank 0.
std::string digest_of(Communicator& comm, std::vector<StateTensor> tensors, TensorDigests* each = nullptr);

/// Whether ranks hold parts of some of them.
bool has_parts(const std::vector<StateTensor>& tensors);

/// SHA-256 (hex) over size and fields of a data set and 64 samples from all over it: it tells data sets apart
/// at little cost, not every change of one.
std::string digest_of(const Dataset& dataset);

}  // namespace trireme
