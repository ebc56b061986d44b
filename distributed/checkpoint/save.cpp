// CheckpointStore::save, step by step as FORMAT.md numbers it.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <map>

#include "core/base/crc32c.h"
#include "core/base/sha256.h"
#include "core/interchange/safetensors.h"
#include "distributed/checkpoint/garbage.h"
#include "distributed/checkpoint/reader.h"
#include "distributed/checkpoint/store.h"
#include "distributed/comm/agree.h"
#include "kernels/finite.h"

namespace trireme {

namespace fs = std::filesystem;

namespace {

/// Writes a file in blocks and keeps their checksums.
class BlockWriter {
 public:
  explicit BlockWriter(std::unique_ptr<OutputFile> file) : file_(std::move(file)) {
    block_.reserve(kBlockBytes);
  }

  void append(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const std::size_t count = std::min<std::size_t>(bytes.size(), kBlockBytes - block_.size());
      block_.insert(block_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count));
      bytes = bytes.subspan(count);
      if (block_.size() == kBlockBytes) flush();
    }
  }

  /// Returns when all is on stable storage.
  FileRecord finish(std::string name) {
    if (!block_.empty()) flush();
    file_->sync();
    file_->close();
    record_.name = std::move(name);
    record_.sha256 = sha_.hex();
    return std::move(record_);
  }

 private:
  void flush() {
    record_.size += block_.size();
    record_.crcs.push_back(crc32c(block_.data(), block_.size()));
    sha_.update(block_.data(), block_.size());
    file_->append(block_);
    block_.clear();
  }

  std::unique_ptr<OutputFile> file_;
  std::vector<std::byte> block_;
  Sha256 sha_;
  FileRecord record_;
};

void check_finite(const TensorSlot& tensor, const Cut& cut) {
  const std::uint64_t count = cut.end - cut.begin;
  const std::byte* data = tensor.at(cut.begin);
  const std::uint64_t bad = first_not_finite(data, count, tensor.dtype);
  if (bad == count) return;
  const double value = visit_dtype(tensor.dtype, [&]<class T>(T element) {
    std::memcpy(&element, data + bad * sizeof(T), sizeof(T));
    return static_cast<double>(element);
  });
  fail(ExitCode::kNonFinite, "tensor '{}' {}: element {} is {}; such values are never saved", tensor.name,
       text_of(tensor.shape), cut.begin + bad, value);
}

std::vector<TensorSlot> sorted_and_checked(std::vector<TensorSlot> tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  const TensorSlot* before = nullptr;
  for (const TensorSlot& tensor : tensors) {
    TRIREME_CHECK(!tensor.name.empty() && tensor.name.size() <= 1024 &&
                      tensor.name.find('#') == std::string::npos && tensor.name != "__metadata__",
                  "'{}' cannot name a saved tensor: 1 to 1024 bytes without '#', and not __metadata__",
                  tensor.name);
    TRIREME_CHECK(!before || before->name != tensor.name, "two tensors are named '{}'", tensor.name);
    const std::uint64_t first = tensor.first.value_or(0) * size_of(tensor.dtype);
    const auto whole = static_cast<std::uint64_t>(bytes_of(tensor.dtype, tensor.shape));
    TRIREME_CHECK(tensor.first ? first + tensor.bytes <= whole : tensor.bytes == whole,
                  "tensor '{}' {} is given with {} bytes", tensor.name, text_of(tensor.dtype, tensor.shape),
                  tensor.bytes);
    TRIREME_CHECK(tensor.data || tensor.bytes == 0, "tensor '{}' is given without data", tensor.name);
    before = &tensor;
  }
  return tensors;
}

/// One attempt to save, on one rank.
class Attempt {
 public:
  Attempt(FileSystem& files, fs::path directory, Communicator& comm, const JobState& job,
          const std::vector<TensorSlot>& tensors)
      : files_(files), directory_(std::move(directory)), comm_(comm), job_(job), given_(tensors) {}

  /// Returns after the commit. Throws on every rank, with the attempt removed.
  void run() {
    prepare();
    if (target_exists_ && target_is_the_same()) return;
    try {
      make_directory();
      write();
      seal();
      read_back();
      publish();
    } catch (...) {
      if (comm_.rank() == 0) discard();
      throw;
    }
  }

 private:
  bool is_first() const { return comm_.rank() == 0; }
  fs::path target() const { return directory_ / checkpoint_name(job_.step); }
  std::string file_name(int rank) const {
    return fmt::format("shard-{:05}-of-{:05}.safetensors", rank, comm_.size());
  }

  void prepare();
  bool target_is_the_same();
  bool my_part_is_in(const CheckpointReader& reader) const;
  void make_directory();
  void write();
  Manifest write_my_file() const;
  void seal();
  void read_back();
  void publish();
  void publish_here();
  bool put_in_place();
  void discard();

  FileSystem& files_;
  const fs::path directory_;
  Communicator& comm_;
  const JobState& job_;
  const std::vector<TensorSlot>& given_;

  std::vector<TensorSlot> tensors_;  // in name order
  std::vector<Cut> cuts_;            // of this rank
  bool target_exists_ = false;
  fs::path path_;      // of the attempt
  Manifest manifest_;  // of all ranks
};

/// All that can be refused before anything is written. Only rank 0 looks at the target: the other hosts of a
/// network file system would remember for a while that it is not there.
void Attempt::prepare() {
  const auto reports = agree(comm_, "checkpoint: prepare", [&] {
    TRIREME_CHECK(job_.step >= 0, "a checkpoint of step {} was asked for", job_.step);
    tensors_ = sorted_and_checked(given_);
    cuts_ = cuts_of_rank(tensors_, comm_.rank(), comm_.size());
    for (const Cut& cut : cuts_) check_finite(tensors_[cut.tensor], cut);

    Manifest given{job_, {}, {}};
    for (const TensorSlot& tensor : tensors_)
      given.tensors.push_back({tensor.name, tensor.dtype, tensor.shape, {}});
    const std::string bytes = encode_manifest(given);
    Sha256 digest;
    digest.update(bytes.data(), bytes.size());
    if (!is_first()) return digest.hex();

    make_dirs(files_, directory_);
    remove_garbage_of(files_, directory_, job_.run_id);
    const FileKind kind = files_.status(target()).kind;
    if (kind != FileKind::kMissing && kind != FileKind::kDirectory)
      fail(ExitCode::kCheckpoint, "'{}' is in the way: it is not a directory", target().string());
    return digest.hex() + (kind == FileKind::kDirectory ? "1" : "0") + garbage_name(job_.step, job_.run_id);
  });
  constexpr std::size_t kDigest = 64;
  for (std::size_t rank = 1; rank < reports.size(); ++rank)
    TRIREME_CHECK(reports[rank] == reports[0].substr(0, kDigest),
                  "rank {} saves other tensors or another state than rank 0: names, dtypes, shapes and state "
                  "must agree",
                  rank);
  target_exists_ = reports[0][kDigest] == '1';
  path_ = directory_ / reports[0].substr(kDigest + 1);
}

bool Attempt::target_is_the_same() {
  const auto reports = agree(comm_, "checkpoint: compare with the one there", [&]() -> std::string {
    try {
      return my_part_is_in(CheckpointReader(files_, target())) ? "same" : "";
    } catch (const Error&) {
      return "";  // damaged: to be replaced
    }
  });
  return std::all_of(reports.begin(), reports.end(), [](const auto& report) { return report == "same"; });
}

bool Attempt::my_part_is_in(const CheckpointReader& reader) const {
  const Manifest& there = reader.manifest();
  JobState job = there.job;
  // Another run of the same job may have had other machines, or have met fewer operations so far.
  job.link = job_.link;
  job.engines = job_.engines;
  if (job != job_ || there.tensors.size() != tensors_.size()) return false;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const TensorRecord& record = there.tensors[i];
    const TensorSlot& mine = tensors_[i];
    if (record.name != mine.name || record.dtype != mine.dtype || record.shape != mine.shape) return false;
  }
  std::vector<std::byte> bytes(kBlockBytes);
  for (const Cut& cut : cuts_) {
    const std::uint64_t element = size_of(tensors_[cut.tensor].dtype), at_once = kBlockBytes / element;
    for (std::uint64_t begin = cut.begin; begin < cut.end; begin += at_once) {
      const std::uint64_t end = std::min(begin + at_once, cut.end);
      const WantedElements wanted{&there.tensors[cut.tensor], begin, end, bytes.data()};
      reader.read({&wanted, 1});
      if (std::memcmp(bytes.data(), tensors_[cut.tensor].at(begin), (end - begin) * element) != 0)
        return false;
    }
  }
  return true;
}

void Attempt::make_directory() {
  agree(comm_, "checkpoint: make directory", [&] {
    if (is_first()) files_.make_dir(path_);
    return "";
  });
}

Manifest Attempt::write_my_file() const {
  std::vector<TensorSlot> slots;
  std::map<std::string, const Cut*> cut_of;
  for (const Cut& cut : cuts_) {
    TensorSlot slot = tensors_[cut.tensor];
    const std::uint64_t element = size_of(slot.dtype),
                        elements = static_cast<std::uint64_t>(bytes_of(slot.dtype, slot.shape)) / element,
                        count = cut.end - cut.begin;
    slot.name = name_of_cut(slot.name, cut.begin, cut.end, elements);
    if (count != elements) slot.shape = {static_cast<std::int64_t>(count)};
    slot.bytes = count * element;
    cut_of[slot.name] = &cut;
    slots.push_back(std::move(slot));
  }
  std::string header;
  const SafetensorsLayout layout = lay_out_safetensors(slots, {{"format", "pt"}}, header);

  Manifest part{job_, {}, {}};
  BlockWriter writer(files_.create(path_ / file_name(comm_.rank())));
  writer.append(std::as_bytes(std::span(header)));
  for (const SafetensorsEntry& entry : layout.entries) {
    const Cut& cut = *cut_of.at(entry.name);
    const TensorSlot& tensor = tensors_[cut.tensor];
    writer.append({tensor.at(cut.begin), entry.bytes});
    part.tensors.push_back(
        {tensor.name, tensor.dtype, tensor.shape, {{0, cut.begin, cut.end, entry.offset}}});
  }
  part.files.push_back(writer.finish(file_name(comm_.rank())));
  return part;
}

void Attempt::write() {
  const auto reports = agree(comm_, "checkpoint: write", [&] {
    const Manifest part = write_my_file();
    files_.sync_dir(path_);
    return encode_manifest(part);
  });
  std::vector<Manifest> parts;
  for (const std::string& report : reports) parts.push_back(decode_manifest(report, "a rank's report"));
  manifest_ = merge_manifests(std::move(parts));
}

void Attempt::seal() {
  agree(comm_, "checkpoint: manifest", [&] {
    check_complete(manifest_, "the new manifest");
    if (!is_first()) return "";
    const fs::path temporary = path_ / (std::string(kManifestName) + ".tmp");
    const std::string bytes = encode_manifest(manifest_);
    const auto file = files_.create(temporary);
    file->append(std::as_bytes(std::span(bytes)));
    file->sync();
    file->close();
    files_.rename(temporary, path_ / kManifestName);
    files_.sync_dir(path_);
    return "";
  });
}

/// The next rank's file, not one's own: on another host it does not come from this one's page cache.
void Attempt::read_back() {
  agree(comm_, "checkpoint: read back", [&] {
    std::vector<std::string> damage;
    const FileRecord& record = manifest_.files[static_cast<std::size_t>((comm_.rank() + 1) % comm_.size())];
    find_damage_of_file(files_, path_ / record.name, record, false, damage);
    if (!damage.empty())
      fail(ExitCode::kCheckpoint, "what was written reads back otherwise: {}", damage.front());
    if (is_first() && CheckpointReader(files_, path_).manifest() != manifest_)
      fail(ExitCode::kCheckpoint, "the manifest reads back otherwise than it was written");
    return "";
  });
}

void Attempt::publish() {
  agree(comm_, "checkpoint: publish", [&] {
    if (is_first()) publish_here();
    return "";
  });
}

void Attempt::publish_here() {
  const bool exchanged = put_in_place();
  try {
    files_.sync_dir(directory_);
  } catch (...) {
    // The name may or may not survive a crash now. Taken back, the attempt can be discarded.
    if (exchanged)
      files_.exchange(path_, target());
    else
      files_.rename(target(), path_);
    throw;
  }
  if (exchanged) discard();
}

/// Gives the attempt its committed name. Returns whether it changed names with an older one.
bool Attempt::put_in_place() {
  if (!target_exists_) {
    files_.rename(path_, target());
    return false;
  }
  try {
    files_.exchange(path_, target());
    return true;
  } catch (const FileError& error) {
    if (error.number() != EINVAL && error.number() != ENOSYS) throw;
  }
  if (find_damage(files_, target()).empty())
    fail(ExitCode::kCheckpoint,
         "'{}' exists with other content and this file system cannot exchange two names; remove it or choose "
         "another "
         "directory",
         target().string());
  files_.rename(target(), directory_ / garbage_name(job_.step, job_.run_id));
  files_.rename(path_, target());
  return false;
}

/// Removes what lies under the attempt's name: the attempt, or what it has replaced. Best effort: what stays
/// is garbage by name, and the next save removes it.
void Attempt::discard() try {
  if (files_.status(path_).kind == FileKind::kMissing) return;
  files_.sync_dir(directory_);
  remove_tree(files_, path_);
} catch (const Error&) {
}

/// Removes checkpoints before `step` beyond the newest `count` of them. Never half of one under a committed
/// name.
void remove_older(FileSystem& files, const fs::path& directory, const JobState& job, std::size_t count) {
  std::vector<Checkpoint> older = list_checkpoints(files, directory);
  std::erase_if(older, [&](const Checkpoint& found) { return found.step >= job.step; });
  if (older.size() <= count) return;
  std::vector<fs::path> garbage;
  for (std::size_t i = 0; i + count < older.size(); ++i) {
    garbage.push_back(directory / garbage_name(older[i].step, job.run_id));
    files.rename(older[i].path, garbage.back());
  }
  files.sync_dir(directory);
  for (const fs::path& path : garbage) remove_tree(files, path);
}

}  // namespace

void CheckpointStore::save(Communicator& comm, const JobState& job, const std::vector<TensorSlot>& tensors,
                           int keep) {
  TRIREME_CHECK(keep >= 2, "keep = {}: at least two checkpoints have to stay", keep);
  const auto text = [&](const Error& error) {
    return fmt::format("checkpoint of step {} was not saved (earlier ones are as they were): {}", job.step,
                       error.what());
  };
  try {
    Attempt(*files_, directory_, comm, job, tensors).run();
  } catch (const AgreedError& error) {
    throw AgreedError(error.code(), text(error));
  } catch (const Error& error) {
    throw Error(error.code(), text(error));
  }
  agree(comm, "checkpoint: remove older ones", [&] {
    if (comm.rank() == 0) try {
        remove_older(*files_, directory_, job, static_cast<std::size_t>(keep) - 1);
      } catch (const Error& error) {
        fail(error.code(), "checkpoint of step {} is saved, but an older one was not removed: {}", job.step,
             error.what());
      }
    return "";
  });
}

}  // namespace trireme
