// One line that stands for the whole state of a job, or for its data.
#pragma once

#include <string>
#include <vector>

#include "core/data/dataset.h"
#include "core/nn/module.h"

namespace trireme {

/// SHA-256 (hex) over name, dtype, shape and bytes of every tensor, in name order. Equal digests mean equal
/// bits; the digest does not depend on world size, rank layout or bucket size.
std::string digest_of(std::vector<NamedTensor> tensors);

/// SHA-256 (hex) over size and fields of a data set and 64 samples from all over it: it tells data sets apart
/// at little cost, not every change of one.
std::string digest_of(const Dataset& dataset);

}  // namespace trireme
