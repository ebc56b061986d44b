// Computes digests of the state of a job and of its data.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/data/dataset.h"
#include "core/nn/module.h"
#include "distributed/comm/communicator.h"

namespace trireme {

/// Returns the SHA-256 (hex) over name, dtype, shape and bytes of every tensor, in name order. Equal digests
/// mean equal bits; the digest does not depend on world size, rank layout or bucket size.
std::string digest_of(std::vector<NamedTensor> tensors);
/// The name and the digest (16 hexadecimal digits) of each tensor, in the order of names.
using TensorDigests = std::vector<std::pair<std::string, std::string>>;

/// Returns the digest of tensors of which ranks may hold parts, on all ranks of `comm`, a communicator on
/// CPUs. Collective if ranks hold parts. `each` is filled on rank 0.
std::string digest_of(Communicator& comm, std::vector<StateTensor> tensors, TensorDigests* each = nullptr);

/// Returns true if ranks hold only parts of some of the tensors.
bool has_parts(const std::vector<StateTensor>& tensors);

/// Returns the SHA-256 (hex) over the size and fields of a data set and 64 samples that are spread over it.
/// This distinguishes data sets at little cost, but does not detect every change of one.
std::string digest_of(const Dataset& dataset);

}  // namespace trireme
