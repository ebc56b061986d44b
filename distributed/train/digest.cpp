#include "distributed/train/digest.h"

#include <algorithm>

#include "core/base/sha256.h"

namespace trireme {

std::string digest_of(std::vector<NamedTensor> tensors) {
  std::sort(tensors.begin(), tensors.end(),
            [](const NamedTensor& a, const NamedTensor& b) { return a.name < b.name; });
  Sha256 hash;
  for (const NamedTensor& t : tensors) {
    const Tensor dense = to_device(t.tensor, kCpu).row_major();
    const std::string head =
        fmt::format("{} {} {}\n", t.name, name_of(dense.dtype()), dense.shape().to_string());
    hash.update(head.data(), head.size());
    hash.update(dense.raw(), static_cast<std::size_t>(dense.numel()) * size_of(dense.dtype()));
  }
  return hash.hex();
}

std::string digest_of(const Dataset& dataset) {
  Sha256 hash;
  const auto say = [&](const std::string& text) { hash.update(text.data(), text.size()); };
  say(fmt::format("{}\n", dataset.size()));
  std::vector<std::vector<std::byte>> sample;
  std::vector<std::byte*> places;
  for (const SampleField& field : dataset.fields()) {
    say(fmt::format("{} {}\n", name_of(field.dtype), field.shape.to_string()));
    sample.emplace_back(static_cast<std::size_t>(field.shape.numel()) * size_of(field.dtype));
    places.push_back(sample.back().data());
  }
  const std::int64_t count = std::min<std::int64_t>(dataset.size(), 64);
  for (std::int64_t i = 0; i < count; ++i) {
    dataset.read({.index = dataset.size() * i / count}, places);
    for (const auto& bytes : sample) hash.update(bytes.data(), bytes.size());
  }
  return hash.hex();
}

}  // namespace trireme
