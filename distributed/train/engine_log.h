// Which engines of the GPU's libraries compute a job's operations: the same ones on all ranks, and those of
// the checkpoint from which the job goes on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "distributed/comm/communicator.h"
#include "kernels/table.h"

namespace trireme {

/// Makes sure that ranks which have the same operation have the same engine for it. Collective and blocking.
/// Throws AgreedError(kUsage) on every rank, naming an operation, two ranks and their engines, if they
/// differ.
void agree_engines(Communicator& comm, const EngineChoices& mine);

/// Writes engines as text for a checkpoint, one operation a line, and reads them again. The reader passes
/// over lines that it does not understand.
std::string to_text(const EngineChoices& engines);
EngineChoices engines_from_text(const std::string& text);

/// Follows the engines of one job on `device`. Used by one thread.
class EngineLog {
 public:
  explicit EngineLog(Device device) : device_(device) {}
  /// Sets the engines that a checkpoint has recorded, with which later choices are compared.
  void resume(const std::string& text) { before_ = engines_from_text(text); }
  /// Returns lines for the user that have not been returned yet: what the kernels report, and each operation
  /// whose engine is not the checkpoint's.
  std::vector<std::string> news();
  /// Returns true after the steps in which new operations may appear and after few others: 1, 2, 4, 8, ...
  bool is_due(std::int64_t finished_steps) const;
  /// Compares the engines of all ranks, their kinds of GPU and the versions of their libraries; see
  /// agree_engines(). Does nothing on CPUs.
  void check(Communicator& comm) const;
  /// Returns the engines so far as text; empty on CPUs.
  std::string text() const;

 private:
  const Device device_;
  EngineChoices before_;  ///< the checkpoint's, without those that have been compared
};

}  // namespace trireme
