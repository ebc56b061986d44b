#include "distributed/train/digest.h"

#include <algorithm>

#include "core/base/sha256.h"
#include "distributed/comm/agree.h"

namespace trireme {

namespace {

void sort_by_name(auto& tensors) { std::ranges::sort(tensors, {}, &NamedTensor::name); }

void add(Sha256& hash, const NamedTensor& t) {
  const Tensor dense = to_device(t.tensor, kCpu).row_major();
  const std::string head =
      fmt::format("{} {} {}\n", t.name, name_of(dense.dtype()), dense.shape().to_string());
  hash.update(head.data(), head.size());
  hash.update(dense.raw(), static_cast<std::size_t>(dense.numel()) * size_of(dense.dtype()));
}

/// All of a tensor on rank 0, from the parts that ranks hold.
NamedTensor whole_of(Communicator& comm, const StateTensor& part) {
  const auto ranks = static_cast<std::size_t>(comm.size());
  struct Held {
    std::int64_t first, count;
  };
  const auto self = static_cast<std::size_t>(comm.rank());
  std::vector<Held> held(ranks);
  held[self] = {part.part->first, part.tensor.numel()};
  std::vector<std::span<std::byte>> told;
  for (Held& h : held) told.push_back(std::as_writable_bytes(std::span(&h, 1)));
  comm.all_gather(told, "parts of " + part.name).wait();
  const Tensor here = to_device(part.tensor, kCpu);
  NamedTensor whole{part.name, Tensor()};
  std::vector<std::span<const std::byte>> sends(ranks);
  std::vector<std::span<std::byte>> recvs(ranks);
  sends[0] = memory_of(here);
  if (self == 0) {
    whole.tensor = Tensor::empty(part.part->whole, here.dtype());
    const std::size_t element = size_of(here.dtype());
    for (std::size_t r = 0; r < ranks; ++r)
      recvs[r] = memory_of(whole.tensor)
                     .subspan(static_cast<std::size_t>(held[r].first) * element,
                              static_cast<std::size_t>(held[r].count) * element);
  }
  comm.all_to_all(sends, recvs, part.name).wait();
  return whole;
}

/// Calls fn with each tensor, whole, in name order, on rank 0.
template <class Fn>
void for_whole(Communicator& comm, std::vector<StateTensor> tensors, const Fn& fn) {
  sort_by_name(tensors);
  for (const StateTensor& t : tensors) {
    const NamedTensor whole = t.part ? whole_of(comm, t) : static_cast<NamedTensor>(t);
    if (comm.rank() == 0) fn(whole);
  }
}

}  // namespace

std::string digest_of(std::vector<NamedTensor> tensors) {
  sort_by_name(tensors);
  Sha256 hash;
  for (const NamedTensor& t : tensors) add(hash, t);
  return hash.hex();
}

bool has_parts(const std::vector<StateTensor>& tensors) {
  return std::ranges::any_of(tensors, [](const StateTensor& t) { return t.part.has_value(); });
}

std::string digest_of(Communicator& comm, std::vector<StateTensor> tensors, TensorDigests* each) {
  if (!has_parts(tensors) && !each)
    return digest_of(std::vector<NamedTensor>(tensors.begin(), tensors.end()));
  Sha256 all;
  const bool shared = has_parts(tensors);
  for_whole(comm, std::move(tensors), [&](const NamedTensor& whole) {
    add(all, whole);
    if (!each) return;
    Sha256 one;
    add(one, whole);
    each->emplace_back(whole.name, one.hex().substr(0, 16));
  });
  const std::string hex = comm.rank() == 0 ? all.hex() : "";
  return shared ? broadcast_text(comm, hex) : hex;
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
