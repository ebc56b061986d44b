// Safetensors files: what other tools read and write. distributed/checkpoint/FORMAT.md has the bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/file_system.h"
#include "core/interchange/tensor_slot.h"

namespace trireme {

/// A tensor inside a safetensors file.
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  std::uint64_t offset = 0;  ///< the position of its first byte in the file
  std::uint64_t bytes = 0;
  /// The file's name of a dtype that Trireme lacks; then `dtype` means nothing. Empty otherwise.
  std::string foreign_dtype{};
};

/// Selects how a tensor is read whose dtype Trireme does not support.
enum class ForeignDTypes {
  kRefuse,  ///< the file cannot be read
  kKeep,    ///< the entry names it (foreign_dtype), and must not be read
};

using SafetensorsMetadata = std::map<std::string, std::string>;

/// The tensors of a file with their positions, and the file's metadata.
struct SafetensorsLayout {
  std::vector<SafetensorsEntry> entries;  ///< in file order
  SafetensorsMetadata metadata;
  std::uint64_t file_size = 0;
};

/// Lays out a file of these tensors (data is not looked at). `header` gets the bytes before the data.
/// Throws Error(kUsage) for a name that is empty, given twice, not UTF-8 or "__metadata__".
SafetensorsLayout lay_out_safetensors(const std::vector<TensorSlot>& tensors,
                                      const SafetensorsMetadata& metadata, std::string& header);

/// Reads and checks the header. Throws Error(kCheckpoint) naming the file and what is wrong.
SafetensorsLayout read_safetensors_layout(const FileSystem& files, const std::filesystem::path& path,
                                          ForeignDTypes foreign = ForeignDTypes::kRefuse);

/// The path with links followed: a file that the user names may be one; only a checkpoint's own may not.
std::filesystem::path followed(const std::filesystem::path& path);
/// Reads one tensor into `to`, which has entry.bytes. Throws Error(kCheckpoint) naming file and tensor.
void read_safetensors_entry(const FileSystem& files, const std::filesystem::path& path,
                            const SafetensorsEntry& entry, std::span<std::byte> to);

/// Tensors that own their memory, in name order.
struct OwnedTensors {
  std::vector<TensorSlot> tensors;  ///< data points into `memory`
  std::unique_ptr<std::byte[]> memory;
  SafetensorsMetadata metadata;
};

/// Reads one plain file. Throws Error(kCheckpoint) naming file and reason.
OwnedTensors read_safetensors(const std::filesystem::path& path);
/// Writes one plain file, replacing an old one only once the new one is complete on disk.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorSlot>& tensors,
                       const SafetensorsMetadata& metadata = {});

/// Memory for tensors of these names, dtypes and shapes, in the given order; every element 0.
OwnedTensors allocate_like(const std::vector<TensorSlot>& tensors);

}  // namespace trireme
