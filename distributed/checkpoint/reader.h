// Reads a committed checkpoint. No byte is used before its checksum has been compared.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/base/file_system.h"
#include "distributed/checkpoint/manifest.h"

namespace trireme {

/// A request to read elements [begin, end) of a tensor to `data`.
struct WantedElements {
  const TensorRecord* tensor = nullptr;  ///< a record of the reader's manifest
  std::uint64_t begin = 0, end = 0;
  std::byte* data = nullptr;
};

/// One checkpoint directory, its manifest read and proved complete.
class CheckpointReader {
 public:
  /// Throws Error(kCheckpoint) naming file and reason. `files` must outlive the reader.
  CheckpointReader(const FileSystem& files, std::filesystem::path checkpoint);

  const Manifest& manifest() const& { return manifest_; }
  Manifest manifest() && { return std::move(manifest_); }
  /// Returns the record of the tensor of this name, or null if there is none.
  const TensorRecord* find(const std::string& tensor) const;
  /// Throws Error(kCheckpoint) naming file and offset of the first damaged block among those read.
  void read(std::span<const WantedElements> wanted) const;

 private:
  const FileSystem& files_;
  std::filesystem::path checkpoint_;
  Manifest manifest_;
};

/// Appends a line for each damage of one file: size, blocks, and with `hash` the SHA-256.
void find_damage_of_file(const FileSystem& files, const std::filesystem::path& path, const FileRecord& record,
                         bool hash, std::vector<std::string>& damage);

/// Returns a line for each damage of a checkpoint, and an empty list if it is undamaged.
std::vector<std::string> find_damage(const FileSystem& files, const std::filesystem::path& checkpoint);

}  // namespace trireme
