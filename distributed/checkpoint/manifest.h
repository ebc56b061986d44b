// The manifest: which bytes of which files make up a checkpoint. FORMAT.md has the bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "distributed/checkpoint/state.h"

namespace trireme {

inline constexpr std::uint32_t kManifestVersion = 1;
inline constexpr std::uint64_t kBlockBytes = 4u << 20;  ///< a CRC covers this much of a file
inline constexpr const char* kManifestName = "manifest.pb";

/// Elements [begin, end) of a tensor, stored at `offset` of file number `file`.
struct Piece {
  std::uint32_t file = 0;
  std::uint64_t begin = 0, end = 0;
  std::uint64_t offset = 0;
  bool operator==(const Piece&) const = default;
};

struct TensorRecord {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  std::vector<Piece> pieces;
  bool operator==(const TensorRecord&) const = default;
};

struct FileRecord {
  std::string name;
  std::uint64_t size = 0;
  std::string sha256;
  std::vector<std::uint32_t> crcs;  ///< the CRC-32C of each block, in file order
  bool operator==(const FileRecord&) const = default;
};

struct Manifest {
  JobState job;
  std::vector<TensorRecord> tensors;  ///< in name order
  std::vector<FileRecord> files;
  bool operator==(const Manifest&) const = default;
};

/// The bytes of manifest.pb, sealed with their checksum. `version` differs only in tests.
std::string encode_manifest(const Manifest& manifest, std::uint32_t version = kManifestVersion);
/// Checks the seal and the version and parses. Throws Error(kCheckpoint) that begins with `where`.
Manifest decode_manifest(std::string_view bytes, const std::string& where);

/// Proves that the manifest is complete: names in order and different, every element of every tensor covered
/// exactly once, every range inside its file, no byte of a file in two ranges. Throws Error(kCheckpoint)
/// naming the first that is not, after `where`.
void check_complete(const Manifest& manifest, const std::string& where);

/// Elements [begin, end) of tensor number `tensor`, to be written by rank `file`.
struct Cut {
  std::size_t tensor = 0;
  std::uint32_t file = 0;
  std::uint64_t begin = 0, end = 0;
  bool operator==(const Cut&) const = default;
};

/// Cuts the tensors that every rank holds, given in name order, into `world_size` runs of almost equal bytes.
/// In order of tensor, then element.
std::vector<Cut> cut_tensors(const std::vector<TensorSlot>& tensors, int world_size);
/// Returns the cuts that `rank` writes: its run of cut_tensors(), and the parts of tensors that it alone
/// holds.
std::vector<Cut> cuts_of_rank(const std::vector<TensorSlot>& tensors, int rank, int world_size);

/// The name a cut has inside its file: the tensor's own if it is whole.
std::string name_of_cut(const std::string& tensor, std::uint64_t begin, std::uint64_t end,
                        std::uint64_t elements);

/// Merges what each rank wrote (one file each, in rank order) into one manifest, tensors in name order.
Manifest merge_manifests(std::vector<Manifest> parts);

}  // namespace trireme
