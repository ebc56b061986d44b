// Reading a committed checkpoint: no byte is used before its checksum was compared.
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

/// Elements [begin, end) of a tensor, wanted at `data`.
struct WantedElements {
  const TensorRecord* tensor = nullptr;  ///< of the reader's manifest
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
  /// Null when there is none of this name.
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

/// A line for each damage of a checkpoint. Empty: sound.
std::vector<std::string> find_damage(const FileSystem& files, const std::filesystem::path& checkpoint);

}  // namespace trireme
