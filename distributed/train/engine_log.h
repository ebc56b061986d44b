// Compares the library engines of all ranks with each other, and those of a resumed job with its
// checkpoint's.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "distributed/comm/communicator.h"
#include "kernels/table.h"

namespace trireme {

/// Writes engines as text, one operation a line, and reads them again. The reader skips lines without " => ".
std::string to_text(const EngineChoices& engines);
EngineChoices engines_from_text(const std::string& text);

/// Describes how the GPU of one rank computes.
struct EngineReport {
  EngineChoices engines;
  std::vector<std::string> notices;  ///< lines for the user
  std::string libraries;             ///< kind of GPU and versions, one line
};

/// Follows the engines of one job on `device`. Used by one thread. The kernels record engines for the
/// process, so a second job of the same process also has those of the first.
class EngineLog {
 public:
  explicit EngineLog(Device device) : device_(device) {}
  /// Sets the engines that a checkpoint has recorded, with which those of this run are compared.
  void resume(const std::string& text) { before_ = engines_from_text(text); }

  /// Gathers the reports of all ranks. Collective and blocking; does nothing on CPUs, where libraries choose
  /// no engines. Returns lines for the user, the same on all ranks and each of them once: the kernels'
  /// notices, and what makes bits doubtful.
  std::vector<std::string> gather(Communicator& comm);
  /// Gathers reports like gather(comm), but takes this rank's report from the caller.
  std::vector<std::string> gather(Communicator& comm, const EngineReport& mine);
  /// Returns true after steps 1, 2, 4, 8, ... of this run, when gather() is worth its time.
  static bool is_due(std::int64_t steps_of_this_run);

  /// Names an operation that two ranks compute by different engines, as of the last gather(); empty if there
  /// is none.
  const std::string& difference() const { return difference_; }
  /// Returns the engines of all ranks, as of the last gather(), as text for a checkpoint. The same on all
  /// ranks.
  std::string text() const { return to_text(all_); }

 private:
  void merge(const std::vector<EngineReport>& reports);
  std::vector<std::string> compare_with_checkpoint();

  const Device device_;
  EngineChoices all_;
  EngineChoices before_;  ///< the checkpoint's, without those that have been compared
  std::string difference_;
  std::set<std::string> told_;  ///< lines that gather() has returned
};

}  // namespace trireme
