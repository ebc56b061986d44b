// Tensors and states for tests of the checkpoint store.
#pragma once

#include <deque>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "distributed/checkpoint/state.h"
#include "distributed/comm/communicator.h"

namespace trireme::test {

/// Named tensors with memory of their own. Movable, not copyable.
struct TensorSet {
  std::vector<TensorSlot> slots;
  std::deque<std::vector<std::byte>> memory;

  TensorSet() = default;
  TensorSet(TensorSet&&) = default;

  /// Adds a tensor of arbitrary finite values drawn from `seed`.
  void add(const std::string& name, DType dtype, std::vector<std::int64_t> shape, std::uint64_t seed);
  /// The same names and shapes with every byte 0.
  TensorSet empty_copy() const;
  bool holds_the_same(const TensorSet& other) const;
};

/// A few tensors of every dtype, with empty and scalar ones; `seed` draws the values.
TensorSet small_model(std::uint64_t seed);

JobState job_at(std::int64_t step);

/// What `body` throws: the exit code, and the text in `what`. kDone when it throws nothing.
ExitCode code_thrown_by(const std::function<void()>& body, std::string* what = nullptr);

/// Runs `body` as the only rank.
void run_alone(const std::function<void(Communicator&)>& body);

/// A new directory, removed at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace trireme::test
