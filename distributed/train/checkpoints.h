// JobCheckpoints chooses the checkpoint to resume from, checks that it is of the same job, and saves.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/nn/module.h"
#include "distributed/checkpoint/store.h"
#include "distributed/checkpoint/store_lock.h"
#include "distributed/comm/communicator.h"
#include "distributed/train/job.pb.h"

namespace trireme {

class JobCheckpoints {
 public:
  /// Collective. Does nothing without a directory. Throws (on all ranks) if the directory cannot be written
  /// or another job writes to it, or if --resume names what is neither a checkpoint nor a store of them. In a
  /// store (--resume auto: the job's own) a damaged checkpoint is passed over for the one before it; what was
  /// passed over is said in notes(). Once restarted by `trireme launch`, a job goes on from the newest one
  /// that the same command has made, whatever --resume says.
  JobCheckpoints(Communicator& comm, const JobOptions& options, const std::filesystem::path& directory);

  /// Returns the state to resume from, or nothing for a fresh start.
  const std::optional<JobState>& resumed() const { return resumed_; }
  const std::filesystem::path& resumed_path() const { return path_; }
  const std::vector<std::string>& notes() const { return notes_; }

  /// Throws Error(kCheckpoint) naming the first difference that would make another job (job.proto says which
  /// options may differ). Returns a line for each of those that may, but change what follows.
  std::vector<std::string> check_same_job(const JobState& now) const;
  /// Fills the tensors from the checkpoint that resumed() describes.
  void load(const std::vector<StateTensor>& tensors) const;
  /// With --resume never or PATH: moves the checkpoints that the job does not go on from into a folder beside
  /// them, so that a later --resume auto cannot mix them with those of this run. Returns the folder, or "" if
  /// there are none. For one rank.
  std::filesystem::path set_aside();
  bool enabled() const { return store_.has_value(); }
  /// Saves a checkpoint and returns its path once it is committed. Collective.
  std::filesystem::path save(const JobState& state, const std::vector<StateTensor>& tensors);

 private:
  void check_writable();
  std::filesystem::path choose();
  std::filesystem::path named(const std::string& resume);
  std::filesystem::path newest_sound(const CheckpointStore& store, const std::filesystem::path& directory);
  bool is_of_this_command(const JobState& then) const;

  Communicator& comm_;
  const JobOptions options_;
  std::filesystem::path directory_;
  std::optional<CheckpointStore> store_;
  std::optional<StoreLock> lock_;  // rank 0 holds it
  std::filesystem::path path_;
  std::optional<JobState> resumed_;
  std::vector<std::string> notes_;
};

}  // namespace trireme
