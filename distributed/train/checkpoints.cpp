#include "distributed/train/checkpoints.h"

#include <algorithm>
#include <functional>

#include "distributed/checkpoint/manifest.h"
#include "distributed/comm/agree.h"
#include "distributed/rendezvous/world.h"
#include "distributed/train/options.h"

namespace trireme {

namespace {

/// The tensors, or copies of those that the host cannot see.
std::vector<StateTensor> on_host(const std::vector<StateTensor>& tensors) {
  std::vector<StateTensor> all;
  for (const StateTensor& t : tensors) all.push_back({{t.name, to_device(t.tensor, kCpu)}, t.part});
  return all;
}

std::vector<TensorSlot> slots_of(const std::vector<StateTensor>& tensors) {
  std::vector<TensorSlot> slots;
  for (const StateTensor& t : tensors) {
    TRIREME_CHECK(t.tensor.is_contiguous(), "checkpoint: {} must be row-major in memory", t.name);
    const Shape& shape = t.part ? t.part->whole : t.tensor.shape();
    TensorSlot& slot = slots.emplace_back(
        TensorSlot{t.name,
                   t.tensor.dtype(),
                   {shape.begin(), shape.end()},
                   static_cast<std::byte*>(t.tensor.raw()),
                   static_cast<std::size_t>(t.tensor.numel()) * size_of(t.tensor.dtype())});
    if (t.part) slot.first = static_cast<std::uint64_t>(t.part->first);
  }
  return slots;
}

/// Folders named as checkpoints that a commit cannot have left so.
std::vector<std::filesystem::path> without_manifest(const std::filesystem::path& directory) {
  namespace fs = std::filesystem;
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("step-") && name.find_first_not_of("0123456789", 5) == name.npos &&
        entry.is_directory(ignored) && !fs::exists(entry.path() / kManifestName, ignored))
      found.push_back(entry.path());
  }
  std::ranges::sort(found, std::greater());
  return found;
}

}  // namespace

JobCheckpoints::JobCheckpoints(Communicator& comm, const JobOptions& options,
                               const std::filesystem::path& directory)
    : comm_(comm), options_(options), directory_(directory) {
  const auto files = std::make_shared<RealFileSystem>();
  if (!directory.empty()) {
    store_.emplace(files, directory);
    agree(comm_, "checkpoint directory", [&] { check_writable(); });
  }
  // Rank 0 decides, so that all ranks go on from the same one.
  std::string chosen;
  agree(comm_, "newest checkpoint", [&] {
    if (comm_.rank() == 0) chosen = choose().string();
  });
  path_ = broadcast_text(comm_, chosen);
  if (path_.empty()) return;
  agree(comm_, "checkpoint state",
        [&] { resumed_ = CheckpointStore(files, path_.parent_path()).read_state(path_); });
}

void JobCheckpoints::check_writable() try {
  store_->check_writable();
  if (comm_.rank() == 0) lock_.emplace(directory_);
} catch (const Error& error) {
  fail(error.code(), "{}; choose another {}", error.what(),
       options_.checkpoint_dir().empty() ? "--out" : "--checkpoint-dir");
}

std::filesystem::path JobCheckpoints::choose() {
  const std::string& resume = options_.resume();
  if (store_ && (resume == "auto" || is_restarted(process_environment()))) {
    const std::filesystem::path newest = newest_sound(*store_, directory_);
    if (resume == "auto" && newest.empty() && !notes_.empty())
      fail(ExitCode::kCheckpoint,
           "checkpoint: all {} checkpoints in {} are damaged ({}); restore one, or use --resume never",
           notes_.size(), directory_.string(), notes_[0]);
    if (resume == "auto" || (!newest.empty() && is_of_this_command(store_->read_state(newest))))
      return newest;
    notes_.clear();
  }
  return resume == "auto" || resume == "never" ? std::filesystem::path() : named(resume);
}

std::filesystem::path JobCheckpoints::named(const std::string& resume) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (resume.find('/') == std::string::npos && !fs::exists(resume, ignored))
    fail(ExitCode::kUsage,
         "--resume '{}': must be auto, never, or a checkpoint's folder, and there is none of this name here",
         resume);
  fs::path path = fs::absolute(resume).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // "DIR/step-00000015/"
  // If the path does not exist, the reader of the checkpoint reports it.
  if (!fs::exists(path, ignored)) return path;
  if (!fs::is_directory(path, ignored))
    fail(ExitCode::kCheckpoint,
         "--resume '{}': is a file; name a checkpoint's folder, such as DIR/step-00000100", resume);
  const CheckpointStore store(std::make_shared<RealFileSystem>(), path);
  if (store.list().empty()) return path;
  const fs::path newest = newest_sound(store, path);
  if (newest.empty())
    fail(ExitCode::kCheckpoint, "--resume {}: all {} checkpoints there are damaged ({})", resume,
         notes_.size(), notes_[0]);
  return newest;
}

bool JobCheckpoints::is_of_this_command(const JobState& then) const {
  JobOptions now = options_;
  now.clear_quiet();
  if (now.shards() == 0) now.set_shards(then.shards);
  return to_text(now) == then.job;
}

std::filesystem::path JobCheckpoints::set_aside() {
  if (!store_ || options_.resume() == "auto") return {};
  std::error_code ignored;
  const bool goes_on_here = resumed_ && std::filesystem::equivalent(path_ / "..", directory_, ignored);
  return store_->set_aside(goes_on_here ? resumed_->step + 1 : 0);
}

std::filesystem::path JobCheckpoints::newest_sound(const CheckpointStore& store,
                                                   const std::filesystem::path& directory) {
  const std::vector<Checkpoint> all = store.list();
  for (const std::filesystem::path& path : without_manifest(directory))
    if (all.empty() || path.filename() > all.back().path.filename())
      notes_.push_back(fmt::format("checkpoint {} is damaged and passed over: it has no {}", path.string(),
                                   kManifestName));
  for (auto newest = all.rbegin(); newest != all.rend(); ++newest) {
    const std::vector<std::string> damage = store.verify(newest->path);
    if (damage.empty()) return newest->path;
    notes_.push_back(
        fmt::format("checkpoint {} is damaged and passed over: {}", newest->path.string(), damage[0]));
  }
  return {};
}

std::vector<std::string> JobCheckpoints::check_same_job(const JobState& now) const {
  if (!resumed_) return {};
  const JobState& then = *resumed_;
  const auto refuse = [&](const auto& what, const auto& before, const auto& after) {
    fail(ExitCode::kCheckpoint,
         "checkpoint {}: it was made with {} {}, this run has {}, so it would not be the same job; "
         "give the same, another --checkpoint-dir, or --resume never",
         path_.string(), what, before, after);
  };
  const JobOptions before = from_text(then.job), after = from_text(now.job);
  for (const OptionDifference& d : differences(before, after, FlagSpec::MUST_MATCH))
    refuse(d.flag, d.before, d.after);
  // What powersgd keeps is in the checkpoint, or is not.
  const auto hook = [](const JobOptions& o) {
    return o.comm_hook() == "powersgd" ? fmt::format("powersgd of rank {}", o.powersgd_rank())
                                       : o.comm_hook();
  };
  const bool is_kept = before.comm_hook() == "powersgd" || after.comm_hook() == "powersgd";
  if (is_kept && hook(before) != hook(after)) refuse("--comm-hook", hook(before), hook(after));
  if (then.dataset_size != now.dataset_size)
    refuse("a training set of size", then.dataset_size, now.dataset_size);
  if (!then.data.empty() && then.data != now.data)
    refuse("a training set with digest", then.data.substr(0, 16), now.data.substr(0, 16));
  std::vector<std::string> lines;
  for (const OptionDifference& d : differences(before, after, FlagSpec::IS_SAID))
    lines.push_back(
        fmt::format("{} was {} up to step {} and is {} from here on", d.flag, d.before, then.step, d.after));
  if (!options_.init().empty())
    lines.push_back(fmt::format("--init '{}' is not used: the weights come from checkpoint {}",
                                options_.init(), path_.string()));
  return lines;
}

void JobCheckpoints::load(const std::vector<StateTensor>& tensors) const {
  const std::vector<StateTensor> here = on_host(tensors);
  agree(comm_, "load checkpoint", [&] {
    CheckpointStore(std::make_shared<RealFileSystem>(), path_.parent_path()).load(path_, slots_of(here));
  });
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].tensor.device().is_cpu()) copy_into(tensors[i].tensor, here[i].tensor);
    tensors[i].tensor.bump_version("loading a checkpoint");
  }
}

std::filesystem::path JobCheckpoints::save(const JobState& state, const std::vector<StateTensor>& tensors) {
  const std::vector<StateTensor> here = on_host(tensors);
  store_->save(comm_, state, slots_of(here), static_cast<int>(options_.keep_checkpoints()));
  return directory_ / checkpoint_name(state.step);
}

}  // namespace trireme
