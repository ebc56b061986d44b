#include "distributed/checkpoint/reader.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "core/base/crc32c.h"
#include "core/base/sha256.h"
#include "core/interchange/safetensors.h"

namespace trireme {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kMaxManifest = 1u << 30;

Manifest read_manifest(const FileSystem& files, const fs::path& checkpoint) {
  const fs::path path = checkpoint / kManifestName;
  const FileStatus status = files.status(path);
  if (status.kind == FileKind::kMissing)
    fail(ExitCode::kCheckpoint, "'{}' does not exist: not a checkpoint", path.string());
  if (status.kind != FileKind::kFile)
    fail(ExitCode::kCheckpoint, "'{}' is not a regular file", path.string());
  if (status.size > kMaxManifest)
    fail(ExitCode::kCheckpoint, "'{}' has {} bytes, a manifest at most {}", path.string(), status.size,
         kMaxManifest);
  std::string bytes(status.size, '\0');
  files.read(path, 0, std::as_writable_bytes(std::span(bytes)));
  const std::string where = fmt::format("'{}'", path.string());
  Manifest manifest = decode_manifest(bytes, where);
  check_complete(manifest, where);
  return manifest;
}

/// Returns an error text if the file is missing, is no regular file, or has another size than the record
/// says; else an empty string.
std::string damage_of_size(const FileSystem& files, const fs::path& path, const FileRecord& record) {
  const FileStatus status = files.status(path);
  if (status.kind == FileKind::kMissing) return fmt::format("'{}': missing", path.string());
  if (status.kind != FileKind::kFile) return fmt::format("'{}': not a regular file", path.string());
  if (status.size == record.size) return {};
  return fmt::format("'{}': damaged at offset {}: the file has {} bytes, the manifest says {}", path.string(),
                     std::min(status.size, record.size), status.size, record.size);
}

/// Reads one block and says what is wrong with it, or nothing.
std::string read_block(const FileSystem& files, const fs::path& path, const FileRecord& record,
                       std::uint64_t block, std::vector<std::byte>& bytes) {
  const std::uint64_t offset = block * kBlockBytes;
  bytes.resize(std::min(kBlockBytes, record.size - offset));
  files.read(path, offset, bytes);
  const std::uint32_t crc = crc32c(bytes.data(), bytes.size());
  if (crc == record.crcs[block]) return {};
  return fmt::format("'{}': damaged between offset {} and {}: CRC-32C is {:08x}, the manifest says {:08x}",
                     path.string(), offset, offset + bytes.size(), crc, record.crcs[block]);
}

struct Range {
  std::uint64_t offset = 0, end = 0;  // in the file
  std::byte* data = nullptr;
};

void read_ranges(const FileSystem& files, const fs::path& path, const FileRecord& record,
                 std::vector<Range>& ranges) {
  const auto check = [](const std::string& damage) {
    if (!damage.empty()) fail(ExitCode::kCheckpoint, "{}; use an earlier checkpoint", damage);
  };
  check(damage_of_size(files, path, record));
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.offset < b.offset; });
  std::vector<std::byte> bytes;
  std::uint64_t loaded = record.crcs.size();  // none yet
  for (const Range& range : ranges)
    for (std::uint64_t at = range.offset; at < range.end;) {
      const std::uint64_t block = at / kBlockBytes;
      if (block != loaded) check(read_block(files, path, record, block, bytes));
      loaded = block;
      const std::uint64_t count = std::min(range.end, (block + 1) * kBlockBytes) - at;
      std::memcpy(range.data + (at - range.offset), bytes.data() + at % kBlockBytes, count);
      at += count;
    }
}

/// Other tools read a file by its own header, so it has to say what the manifest says.
void compare_header(const FileSystem& files, const fs::path& path, const Manifest& manifest,
                    std::size_t index, std::vector<std::string>& damage) {
  using Entry = std::tuple<std::string, DType, std::vector<std::int64_t>, std::uint64_t, std::uint64_t>;
  std::vector<Entry> expected, found;
  for (const TensorRecord& tensor : manifest.tensors) {
    const std::uint64_t element = size_of(tensor.dtype);
    const auto elements = static_cast<std::uint64_t>(bytes_of(tensor.dtype, tensor.shape)) / element;
    for (const Piece& piece : tensor.pieces) {
      if (piece.file != index) continue;
      const std::uint64_t count = piece.end - piece.begin;
      const auto shape = count == elements ? tensor.shape : std::vector{static_cast<std::int64_t>(count)};
      expected.emplace_back(name_of_cut(tensor.name, piece.begin, piece.end, elements), tensor.dtype, shape,
                            piece.offset, count * element);
    }
  }
  for (const auto& entry : read_safetensors_layout(files, path).entries)
    found.emplace_back(entry.name, entry.dtype, entry.shape, entry.offset, entry.bytes);
  std::sort(expected.begin(), expected.end());
  std::sort(found.begin(), found.end());
  if (expected == found) return;
  const auto [left, right] = std::mismatch(expected.begin(), expected.end(), found.begin(), found.end());
  const bool in_manifest = left != expected.end() && (right == found.end() || *left <= *right);
  damage.push_back(fmt::format("'{}': its header and the manifest differ, first about '{}'", path.string(),
                               std::get<0>(in_manifest ? *left : *right)));
}

}  // namespace

CheckpointReader::CheckpointReader(const FileSystem& files, fs::path checkpoint)
    : files_(files), checkpoint_(std::move(checkpoint)), manifest_(read_manifest(files, checkpoint_)) {}

const TensorRecord* CheckpointReader::find(const std::string& tensor) const {
  const auto found = std::lower_bound(
      manifest_.tensors.begin(), manifest_.tensors.end(), tensor,
      [](const TensorRecord& record, const std::string& name) { return record.name < name; });
  return found != manifest_.tensors.end() && found->name == tensor ? &*found : nullptr;
}

void CheckpointReader::read(std::span<const WantedElements> wanted) const {
  std::vector<std::vector<Range>> by_file(manifest_.files.size());
  for (const WantedElements& want : wanted) {
    const std::uint64_t element = size_of(want.tensor->dtype);
    for (const Piece& piece : want.tensor->pieces) {
      const std::uint64_t begin = std::max(piece.begin, want.begin), end = std::min(piece.end, want.end);
      if (begin >= end) continue;
      const std::uint64_t offset = piece.offset + (begin - piece.begin) * element;
      by_file[piece.file].push_back(
          {offset, offset + (end - begin) * element, want.data + (begin - want.begin) * element});
    }
  }
  for (std::size_t i = 0; i < by_file.size(); ++i)
    if (!by_file[i].empty()) {
      const FileRecord& record = manifest_.files[i];
      read_ranges(files_, checkpoint_ / record.name, record, by_file[i]);
    }
}

void find_damage_of_file(const FileSystem& files, const fs::path& path, const FileRecord& record, bool hash,
                         std::vector<std::string>& damage) try {
  const std::string of_size = damage_of_size(files, path, record);
  if (!of_size.empty()) damage.push_back(of_size);
  const FileStatus status = files.status(path);
  if (status.kind != FileKind::kFile) return;
  Sha256 sha;
  std::vector<std::byte> bytes;
  const std::size_t before = damage.size();
  for (std::uint64_t block = 0; block < record.crcs.size(); ++block) {
    if (std::min((block + 1) * kBlockBytes, record.size) > status.size) return;  // told already
    const std::string of_block = read_block(files, path, record, block, bytes);
    if (!of_block.empty()) damage.push_back(of_block);
    if (hash) sha.update(bytes.data(), bytes.size());
  }
  if (hash && damage.size() == before && of_size.empty() && sha.hex() != record.sha256)
    damage.push_back(
        fmt::format("'{}': SHA-256 is {}, the manifest says '{}'", path.string(), sha.hex(), record.sha256));
} catch (const Error& error) {
  damage.push_back(error.what());
}

std::vector<std::string> find_damage(const FileSystem& files, const fs::path& checkpoint) {
  std::vector<std::string> damage;
  try {
    const Manifest manifest = read_manifest(files, checkpoint);
    for (std::size_t i = 0; i < manifest.files.size(); ++i) {
      const fs::path path = checkpoint / manifest.files[i].name;
      const std::size_t before = damage.size();
      find_damage_of_file(files, path, manifest.files[i], true, damage);
      if (damage.size() == before) compare_header(files, path, manifest, i, damage);
    }
  } catch (const Error& error) {
    damage.push_back(error.what());
  }
  return damage;
}

}  // namespace trireme
