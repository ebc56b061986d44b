#include "distributed/checkpoint/store.h"

#include <algorithm>

#include "core/base/random_hex.h"
#include "distributed/checkpoint/garbage.h"
#include "distributed/checkpoint/reader.h"

namespace trireme {

namespace fs = std::filesystem;

namespace {

const TensorRecord& matching_record(const CheckpointReader& reader, const fs::path& checkpoint,
                                    const TensorSlot& slot) {
  const TensorRecord* record = reader.find(slot.name);
  if (!record)
    fail(ExitCode::kCheckpoint, "'{}': has no tensor '{}', which the job needs as {}", checkpoint.string(),
         slot.name, text_of(slot.dtype, slot.shape));
  if (record->dtype != slot.dtype || record->shape != slot.shape)
    fail(ExitCode::kCheckpoint, "'{}': tensor '{}' is {}, but the job needs {}", checkpoint.string(),
         slot.name, text_of(record->dtype, record->shape), text_of(slot.dtype, slot.shape));
  TRIREME_CHECK(slot.data || slot.bytes == 0, "load: no memory is given for tensor '{}'", slot.name);
  return *record;
}

void read_into(const CheckpointReader& reader, const fs::path& checkpoint, std::vector<TensorSlot> slots) {
  std::sort(slots.begin(), slots.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  std::vector<WantedElements> wanted;
  for (const TensorSlot& slot : slots) {
    const TensorRecord& record = matching_record(reader, checkpoint, slot);
    const std::uint64_t first = slot.first.value_or(0);
    wanted.push_back({&record, first, first + slot.bytes / size_of(slot.dtype), slot.data});
  }
  reader.read(wanted);
}

fs::path without_slash(const fs::path& path) {
  const fs::path full = fs::absolute(path).lexically_normal();
  return full.has_filename() ? full : full.parent_path();
}

}  // namespace

CheckpointStore::CheckpointStore(std::shared_ptr<FileSystem> files, fs::path directory)
    : files_(std::move(files)), directory_(without_slash(directory)) {}

void CheckpointStore::check_writable() {
  const fs::path probe = directory_ / (kProbePrefix + random_hex(16));
  try {
    make_dirs(*files_, directory_);
    const auto file = files_->create(probe);
    try {
      const std::vector<std::byte> bytes(64 << 10);
      file->append(bytes);
      file->sync();
      file->close();
    } catch (...) {
      remove_if_there(*files_, probe);
      throw;
    }
    remove_if_there(*files_, probe);
  } catch (const Error& error) {
    fail(ExitCode::kUsage, "checkpoints cannot be written: {}", error.what());
  }
}

std::vector<Checkpoint> CheckpointStore::list() const { return list_checkpoints(*files_, directory_); }

fs::path CheckpointStore::set_aside(std::int64_t step) {
  std::vector<Checkpoint> found = list();
  std::erase_if(found, [&](const Checkpoint& checkpoint) { return checkpoint.step < step; });
  if (found.empty()) return {};
  fs::path folder;
  for (int number = 1; folder.empty() || files_->status(folder).kind != FileKind::kMissing; ++number)
    folder = directory_ / fmt::format("earlier-{}", number);
  files_->make_dir(folder);
  // The newest first: what is left after a crash is older than what is gone.
  for (auto checkpoint = found.rbegin(); checkpoint != found.rend(); ++checkpoint)
    files_->rename(checkpoint->path, folder / checkpoint->path.filename());
  files_->sync_dir(folder);
  files_->sync_dir(directory_);
  return folder;
}

JobState CheckpointStore::read_state(const fs::path& checkpoint) const {
  return CheckpointReader(*files_, checkpoint).manifest().job;
}

JobState CheckpointStore::load(const fs::path& checkpoint, const std::vector<TensorSlot>& tensors) const {
  const CheckpointReader reader(*files_, checkpoint);
  std::vector<std::string> names;
  for (const TensorSlot& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  for (const TensorRecord& record : reader.manifest().tensors)
    if (!std::binary_search(names.begin(), names.end(), record.name))
      fail(ExitCode::kCheckpoint, "'{}': has tensor '{}' {}, of which the job knows nothing",
           checkpoint.string(), record.name, text_of(record.dtype, record.shape));
  read_into(reader, checkpoint, tensors);
  return reader.manifest().job;
}

std::vector<std::string> CheckpointStore::verify(const fs::path& checkpoint) const {
  return find_damage(*files_, checkpoint);
}

std::vector<TensorSlot> CheckpointStore::tensors(const fs::path& checkpoint) const {
  const CheckpointReader reader(*files_, checkpoint);
  std::vector<TensorSlot> slots;
  for (const TensorRecord& record : reader.manifest().tensors)
    slots.push_back({record.name, record.dtype, record.shape, nullptr,
                     static_cast<std::size_t>(bytes_of(record.dtype, record.shape))});
  return slots;
}

}  // namespace trireme
