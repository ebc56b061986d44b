// Tensors and job states for tests of the checkpoint store.
#pragma once

#include <deque>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "distributed/checkpoint/state.h"
#include "distributed/comm/communicator.h"

namespace trireme::test {

/// Named tensors that own their memory. Movable, not copyable.
struct TensorSet {
  std::vector<TensorSlot> slots;
  std::deque<std::vector<std::byte>> memory;

  TensorSet() = default;
  TensorSet(TensorSet&&) = default;

  /// Adds a tensor of arbitrary finite values drawn from `seed`.
  void add(const std::string& name, DType dtype, std::vector<std::int64_t> shape, std::uint64_t seed);
  /// Returns tensors of the same names, dtypes and shapes with every byte 0.
  TensorSet empty_copy() const;
  /// Returns true if the tensors of both sets have the same bytes, in the order in which they were added.
  bool holds_the_same(const TensorSet& other) const;
};

/// Returns a few tensors of every dtype, including empty and scalar ones. The values depend on `seed`.
TensorSet small_model(std::uint64_t seed);

JobState job_at(std::int64_t step);

/// Runs `body` and returns the exit code of the error that it throws, or kDone if it throws none. Stores the
/// error's message in `what`.
ExitCode code_thrown_by(const std::function<void()>& body, std::string* what = nullptr);

/// Runs `body` with the communicator of a world of one rank.
void run_alone(const std::function<void(Communicator&)>& body);

/// Creates a new directory and removes it, with its contents, when destroyed.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace trireme::test
