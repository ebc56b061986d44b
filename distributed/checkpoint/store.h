// The checkpoint store: a directory of committed steps that any number of ranks can write and read.
// The bytes are specified in FORMAT.md beside this file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/base/file_system.h"
#include "distributed/checkpoint/state.h"
#include "distributed/comm/communicator.h"

namespace trireme {

/// A committed checkpoint that was found.
struct Checkpoint {
  std::filesystem::path path;
  std::int64_t step = 0;
};

/// Returns the name of the folder of a step's checkpoint in a store's directory, for example "step-00000012".
std::string checkpoint_name(std::int64_t step);

/// A directory of checkpoints. Reading is thread-safe; only one save may run at a time. No method follows a
/// symbolic link inside the directory.
class CheckpointStore {
 public:
  CheckpointStore(std::shared_ptr<FileSystem> files, std::filesystem::path directory);

  /// Creates the directory if it does not exist and writes a file there. Throws Error(kUsage) if it cannot
  /// (read-only, full disk, not a directory).
  void check_writable();
  /// Returns the committed checkpoints, oldest first. Uncommitted or foreign entries are not listed.
  std::vector<Checkpoint> list() const;

  /// Moves the committed checkpoints of `step` and later into a new folder of the directory, `earlier-N`,
  /// where list() does not see them. Returns it, or "" if there are none. For one rank.
  std::filesystem::path set_aside(std::int64_t step);

  /// Writes one checkpoint; collective: every rank calls it with the same tensors, each writes its 1/W slice.
  ///
  /// Returns after the commit on every rank; all bytes have been read back by then. Throws on every rank when
  /// any rank failed: Error(kNonFinite) naming tensor and element if a value is infinite or NaN, else
  /// Error(kCheckpoint); earlier checkpoints are untouched then. A step that is there with the same state and
  /// bytes is left as it is; one with other content, or damaged, is replaced in one operation. Then older
  /// ones beyond `keep` (>= 2, this one counted) are removed; newer ones stay.
  void save(Communicator& comm, const JobState& job, const std::vector<TensorSlot>& tensors, int keep);

  /// Reads only the manifest. Throws Error(kCheckpoint) naming file and reason.
  JobState read_state(const std::filesystem::path& checkpoint) const;
  /// Fills `tensors`, at any world size (each rank reads all of it). Names, dtypes and shapes must be those
  /// of the checkpoint; the error names the first that is not. Throws Error(kCheckpoint) naming file and
  /// offset of damage; tensors may be partly filled then.
  JobState load(const std::filesystem::path& checkpoint, const std::vector<TensorSlot>& tensors) const;
  /// Checks every byte against its checksums. Returns one line per damage: file, offset, what. Empty: sound.
  std::vector<std::string> verify(const std::filesystem::path& checkpoint) const;
  /// Returns the names, dtypes and shapes of all tensors in the order of names. Their data is null.
  std::vector<TensorSlot> tensors(const std::filesystem::path& checkpoint) const;

 private:
  std::shared_ptr<FileSystem> files_;
  std::filesystem::path directory_;
};

}  // namespace trireme
