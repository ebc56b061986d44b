#include "distributed/checkpoint/garbage.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>

#include "core/base/random_hex.h"
#include "core/base/sha256.h"
#include "distributed/checkpoint/manifest.h"

namespace trireme {

namespace fs = std::filesystem;

namespace {

std::string tag_of(const std::string& run_id) {
  Sha256 hash;
  hash.update(run_id.data(), run_id.size());
  return hash.hex().substr(0, 16);
}

std::optional<std::int64_t> step_of(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  std::int64_t step = -1;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
  if (step < 0 || name != checkpoint_name(step)) return std::nullopt;
  return step;
}

}  // namespace

std::string checkpoint_name(std::int64_t step) { return fmt::format("step-{:08}", step); }

std::string garbage_name(std::int64_t step, const std::string& run_id) {
  return fmt::format("{}.tmp.{}.{}", checkpoint_name(step), tag_of(run_id), random_hex(16));
}

std::vector<Checkpoint> list_checkpoints(const FileSystem& files, const fs::path& directory) {
  if (files.status(directory).kind == FileKind::kMissing) return {};
  std::vector<Checkpoint> found;
  for (const std::string& name : files.list(directory)) {
    const auto step = step_of(name);
    const fs::path path = directory / name;
    if (step && files.status(path).kind == FileKind::kDirectory &&
        files.status(path / kManifestName).kind == FileKind::kFile)
      found.push_back({path, *step});
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return found;
}

void make_dirs(FileSystem& files, const fs::path& directory) {
  const FileStatus status = files.status(directory);
  if (status.kind == FileKind::kFile) throw FileError("make directory", directory, ENOTDIR);
  if (status.kind != FileKind::kMissing) return;
  make_dirs(files, directory.parent_path());
  try {
    files.make_dir(directory);
  } catch (const FileError& error) {
    if (error.number() != EEXIST) throw;  // another rank was faster
  }
  files.sync_dir(directory.parent_path());
}

void remove_tree(FileSystem& files, const fs::path& path) {
  if (files.status(path).kind == FileKind::kDirectory)
    for (const std::string& name : files.list(path)) remove_tree(files, path / name);
  files.remove(path);
}

void remove_if_there(FileSystem& files, const fs::path& path) {
  try {
    files.remove(path);
  } catch (const FileError& error) {
    if (error.number() != ENOENT) throw;
  }
}

void remove_garbage_of(FileSystem& files, const fs::path& directory, const std::string& run_id) {
  const std::string infix = fmt::format(".tmp.{}.", tag_of(run_id));
  std::vector<fs::path> garbage;
  for (const std::string& name : files.list(directory)) {
    if (name.starts_with("step-") && name.find(infix) != std::string::npos)
      garbage.push_back(directory / name);
    // Or of somebody who looks at this moment, and minds no more than we do.
    if (name.starts_with(kProbePrefix)) remove_if_there(files, directory / name);
  }
  if (garbage.empty()) return;
  // A crash must not bring back the committed name of what is deleted here.
  files.sync_dir(directory);
  for (const fs::path& path : garbage) remove_tree(files, path);
}

}  // namespace trireme
