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

/// The totals over all calls of one op. Times include kernels only; the rest of an op counts to
/// Profile::outside_ns().
struct ProfileRow {
  std::string op;
  bool backward = false;  ///< true for the computation of the op's gradients
  std::string shapes;     ///< the shapes of its inputs, if asked for and known
  std::int64_t calls = 0;
  std::int64_t self_ns = 0;
  std::int64_t allocated_bytes = 0;  ///< in all calls, for results and scratch
  std::int64_t peak_bytes = 0;  ///< most memory in use while it ran, of what was allocated since the start
};

/// Profiles the thread that constructs it until stop() or destruction, which must happen on the same thread.
/// If there are several, only the latest one records; they may end in any order. On other threads, and
/// without a profile, an op costs only the test of a thread-local variable.
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
  /// Ends the profile. Call it on the thread that constructed it. A second call does nothing.
  void stop();

  /// Returns the rows, those with the longest times first.
  std::vector<ProfileRow> rows() const;
  /// Returns the time from the start to the end of the profile, or to now if it has not ended.
  std::int64_t wall_ns() const;
  /// Returns the part of wall_ns() in which no kernel ran.
  std::int64_t outside_ns() const;
  std::int64_t peak_bytes() const;
  /// Returns the first `most` rows and the sums of all rows as lines of text.
  std::string table(std::size_t most = 40) const;

 private:
  class Recorder;
  std::unique_ptr<Recorder> recorder_;
};

}  // namespace trireme::profiler
