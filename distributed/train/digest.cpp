#include "distributed/train/digest.h"

#include <algorithm>

#include "core/base/sha256.h"

namespace trireme {

std::string digest_of(std::vector<NamedTensor> tensors) {
  std::sort(tensors.begin(), tensors.end(),
            [](const NamedTensor& a, const NamedTensor& b) { return a.name < b.name; });
  Sha256 hash;
  for (const NamedTensor& t : tensors) {
    const Tensor dense = t.tensor.row_major();
    const std::string head =
        fmt::format("{} {} {}\n", t.name, name_of(dense.dtype()), dense.shape().to_string());
    hash.update(head.data(), head.size());
    hash.update(dense.raw(), static_cast<std::size_t>(dense.numel()) * size_of(dense.dtype()));
  }
  return hash.hex();
}

}  // namespace trireme
