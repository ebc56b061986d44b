// A profile of a thread's time and memory, op by op.
//
//   profiler::Profile profile;
//   train_a_few_steps();
//   fmt::print("{}", profile.table());
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/metrics/trace.h"

namespace trireme::profiler {

struct ProfileOptions {
  bool shapes = false;     ///< a row for each op with each combination of its inputs' shapes
  Trace* trace = nullptr;  ///< gets a span for each kernel, on a track "ops"; must outlive the profile
};

/// What the calls of one op took together. Times are of kernels alone: the rest of an op is part of
/// Profile::outside_ns().
struct ProfileRow {
  std::string op;
  bool backward = false;  ///< of the gradients of the op
  std::string shapes;     ///< of its inputs, where asked for and known
  std::int64_t calls = 0;
  std::int64_t self_ns = 0;
  std::int64_t allocated_bytes = 0;  ///< in all calls, for results and scratch
  std::int64_t peak_bytes = 0;  ///< most memory in use while it ran, of what was allocated since the start
};

/// Watches the thread that makes it until stop() or its end, which must come there, too. Of several the last
/// one sees alone; they may end in any order. On other threads, and without a profile, an op pays a test of a
/// thread-local variable.
///
/// Forward, the last kernel of an op stands under the op's name, and a kernel before it (a copy into another
/// layout, ...) or outside of recorded ops under its own. Backward, all kernels stand under the op whose
/// gradients they compute. Views take no kernel and are not listed. Kernels of other devices than the CPU run
/// on their own and are not timed.
class Profile {
 public:
  explicit Profile(ProfileOptions options = {});
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;
  /// Looks no longer. On the thread that began. Does nothing the second time.
  void stop();

  /// Longest first.
  std::vector<ProfileRow> rows() const;
  /// From the start to the end, or to now.
  std::int64_t wall_ns() const;
  /// What of it no kernel ran in.
  std::int64_t outside_ns() const;
  std::int64_t peak_bytes() const;
  /// The first `most` rows and the sums of all, as lines of text.
  std::string table(std::size_t most = 40) const;

 private:
  class Recorder;
  std::unique_ptr<Recorder> recorder_;
};

}  // namespace trireme::profiler
