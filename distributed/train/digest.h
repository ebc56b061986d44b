// One line that stands for the whole state of a job.
#pragma once

#include <string>
#include <vector>

#include "core/nn/module.h"

namespace trireme {

/// SHA-256 (hex) over name, dtype, shape and bytes of every tensor, in name order. Equal digests mean equal
/// bits; the digest does not depend on world size, rank layout or bucket size.
std::string digest_of(std::vector<NamedTensor> tensors);

}  // namespace trireme
