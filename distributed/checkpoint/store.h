// The checkpoint store: a directory of committed steps that any number of ranks can write and read.
// The bytes are specified in FORMAT.md beside this file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "distributed/checkpoint/file_system.h"
#include "distributed/comm/communicator.h"
#include "kernels/dtype.h"

namespace trireme {

/// A named tensor in memory: contiguous, row-major, `bytes` long. Not owned.
struct TensorSlot {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  std::byte* data = nullptr;
  std::size_t bytes = 0;
};

/// What a checkpoint says besides its tensors. Everything a job needs to go on with the same bits.
struct JobState {
  std::string run_id;
  std::int64_t step = 0;          ///< finished steps; the next one is this
  std::int64_t shards = 0;        ///< V, fixed for the life of the job
  std::uint64_t seed = 0;
  std::int64_t global_batch = 0;
  std::int64_t threads = 0;       ///< threads per shard: part of the job's identity
  std::int64_t dataset_size = 0;  ///< samples in the training set
  std::string model;              ///< free text, compared on resume
  std::string optimizer;          ///< free text, compared on resume
  std::string build;              ///< build and library versions, compared on resume
  std::string job;                ///< the whole job as text (job.proto), for the reader
};

/// A committed checkpoint that was found.
struct Checkpoint {
  std::filesystem::path path;
  std::int64_t step = 0;
};

class CheckpointStore {
 public:
  CheckpointStore(std::shared_ptr<FileSystem> files, std::filesystem::path directory);

  /// Throws Error(kUsage) unless files can be created here (read-only, full disk, not a directory).
  void check_writable();
  /// Committed checkpoints, oldest first. Uncommitted or foreign entries are not listed.
  std::vector<Checkpoint> list() const;

  /// Writes one checkpoint; collective: every rank calls it with the same tensors, each writes its 1/W slice.
  /// Returns after the commit on every rank. Throws Error(kCheckpoint) on every rank when any rank failed;
  /// earlier checkpoints are untouched then. Removes older ones beyond `keep` (>= 2), but only after the
  /// new one has been read back.
  void save(Communicator& comm, const JobState& job, const std::vector<TensorSlot>& tensors, int keep);

  /// Reads only the manifest. Throws Error(kCheckpoint) naming file and reason.
  JobState read_state(const std::filesystem::path& checkpoint) const;
  /// Fills `tensors` (names, dtypes and shapes must match; the error names the first that does not).
  JobState load(const std::filesystem::path& checkpoint, const std::vector<TensorSlot>& tensors) const;
  /// Checks every byte against its checksums. Returns one line per damage: file, offset, what. Empty: sound.
  std::vector<std::string> verify(const std::filesystem::path& checkpoint) const;
  /// Names, dtypes and shapes, in name order (data is null).
  std::vector<TensorSlot> tensors(const std::filesystem::path& checkpoint) const;

 private:
  std::shared_ptr<FileSystem> files_;
  std::filesystem::path directory_;
};

}  // namespace trireme
