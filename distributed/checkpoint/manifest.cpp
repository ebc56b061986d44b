#include "distributed/checkpoint/manifest.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "core/base/crc32c.h"
#include "distributed/checkpoint/manifest.pb.h"

namespace trireme {
namespace {

constexpr char kSealTag = 0x7D;  // field 15, four bytes
constexpr std::size_t kSealBytes = 5;

#define TRIREME_ENUMERATOR(enumerator, type, name) DType::enumerator,
constexpr DType kDTypes[] = {TRIREME_DTYPES(TRIREME_ENUMERATOR)};
#undef TRIREME_ENUMERATOR

std::string seal_of(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes.data(), bytes.size());
  std::string seal(1, kSealTag);
  for (unsigned shift = 0; shift < 32; shift += 8) seal += static_cast<char>(crc >> shift);
  return seal;
}

/// The field of manifest.proto that has this name.
const google::protobuf::FieldDescriptor* field_of_job(const char* name) {
  return checkpoint::Job::descriptor()->FindFieldByName(name);
}

struct JobEncoder {
  checkpoint::Job& out;
  void operator()(const char* name, const std::string& text) {
    out.GetReflection()->SetString(&out, field_of_job(name), text);
  }
  void operator()(const char* name, std::int64_t number) {
    out.GetReflection()->SetInt64(&out, field_of_job(name), number);
  }
  void operator()(const char* name, std::uint64_t number) {
    out.GetReflection()->SetUInt64(&out, field_of_job(name), number);
  }
};

struct JobDecoder {
  const checkpoint::Job& in;
  void operator()(const char* name, std::string& text) {
    text = in.GetReflection()->GetString(in, field_of_job(name));
  }
  void operator()(const char* name, std::int64_t& number) {
    number = in.GetReflection()->GetInt64(in, field_of_job(name));
  }
  void operator()(const char* name, std::uint64_t& number) {
    number = in.GetReflection()->GetUInt64(in, field_of_job(name));
  }
};

TensorRecord decode_tensor(const checkpoint::Tensor& in, const std::string& where) {
  TensorRecord tensor;
  tensor.name = in.name();
  const auto* dtype = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                   [&](DType known) { return name_of(known) == in.dtype(); });
  if (dtype == std::end(kDTypes))
    fail(ExitCode::kCheckpoint, "{}: tensor '{}' has the unknown dtype '{}'", where, in.name(), in.dtype());
  tensor.dtype = *dtype;
  tensor.shape.assign(in.shape().begin(), in.shape().end());
  for (const auto& piece : in.pieces())
    tensor.pieces.push_back({piece.file(), piece.begin(), piece.end(), piece.offset()});
  return tensor;
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name != kManifestName &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string::npos;
}

void check_files(const Manifest& manifest, const std::string& where) {
  std::map<std::string, int> names;
  for (const FileRecord& file : manifest.files) {
    if (!is_plain_name(file.name) || names[file.name]++ > 0)
      fail(ExitCode::kCheckpoint, "{}: '{}' cannot name a file, or names two", where, file.name);
    const std::uint64_t blocks = file.size / kBlockBytes + (file.size % kBlockBytes != 0);
    if (file.crcs.size() != blocks)
      fail(ExitCode::kCheckpoint, "{}: file '{}' of {} bytes has {} block checksums, not {}", where,
           file.name, file.size, file.crcs.size(), blocks);
  }
}

using Ranges = std::vector<std::tuple<std::uint64_t, std::uint64_t, const TensorRecord*>>;  // begin, end, of

void check_tensor(const Manifest& manifest, const TensorRecord& tensor, const std::string& where,
                  std::vector<Ranges>& used) {
  const std::int64_t bytes = bytes_of(tensor.dtype, tensor.shape);
  if (bytes < 0)
    fail(ExitCode::kCheckpoint, "{}: tensor '{}' has the impossible shape {}", where, tensor.name,
         text_of(tensor.shape));
  const std::uint64_t element = size_of(tensor.dtype), elements = static_cast<std::uint64_t>(bytes) / element;
  std::uint64_t covered = 0;
  for (const Piece& piece : tensor.pieces) {
    if (piece.begin != covered || piece.end < piece.begin || piece.end > elements)
      fail(ExitCode::kCheckpoint,
           "{}: tensor '{}' of {} elements is covered up to {}, then comes the piece [{}, {})", where,
           tensor.name, elements, covered, piece.begin, piece.end);
    covered = piece.end;
    if (piece.file >= manifest.files.size())
      fail(ExitCode::kCheckpoint, "{}: tensor '{}' lies in file number {} of {}", where, tensor.name,
           piece.file, manifest.files.size());
    const FileRecord& file = manifest.files[piece.file];
    const std::uint64_t size = (piece.end - piece.begin) * element;
    if (piece.offset > file.size || size > file.size - piece.offset)
      fail(ExitCode::kCheckpoint, "{}: tensor '{}' needs {} bytes at {} of '{}', which has {}", where,
           tensor.name, size, piece.offset, file.name, file.size);
    if (size > 0) used[piece.file].emplace_back(piece.offset, piece.offset + size, &tensor);
  }
  if (covered != elements || tensor.pieces.empty())
    fail(ExitCode::kCheckpoint, "{}: tensor '{}' has {} elements, only {} are in a file", where, tensor.name,
         elements, covered);
}

}  // namespace

std::string encode_manifest(const Manifest& manifest, std::uint32_t version) {
  checkpoint::Manifest out;
  out.set_format_version(version);
  for_each_field(manifest.job, JobEncoder{*out.mutable_job()});
  for (const TensorRecord& tensor : manifest.tensors) {
    auto& to = *out.add_tensors();
    to.set_name(tensor.name);
    to.set_dtype(std::string(name_of(tensor.dtype)));
    for (const std::int64_t dimension : tensor.shape) to.add_shape(dimension);
    for (const Piece& piece : tensor.pieces) {
      auto& piece_to = *to.add_pieces();
      piece_to.set_file(piece.file);
      piece_to.set_begin(piece.begin);
      piece_to.set_end(piece.end);
      piece_to.set_offset(piece.offset);
    }
  }
  for (const FileRecord& file : manifest.files) {
    auto& to = *out.add_files();
    to.set_name(file.name);
    to.set_size(file.size);
    to.set_sha256(file.sha256);
    for (const std::uint32_t crc : file.crcs) to.add_crc32c(crc);
  }
  std::string bytes;
  if (!out.SerializeToString(&bytes)) fail(ExitCode::kCheckpoint, "the manifest is too large to be encoded");
  return bytes + seal_of(bytes);
}

Manifest decode_manifest(std::string_view bytes, const std::string& where) {
  if (bytes.size() < kSealBytes)
    fail(ExitCode::kCheckpoint, "{}: only {} bytes long, the checksum alone needs {}", where, bytes.size(),
         kSealBytes);
  const std::string_view message = bytes.substr(0, bytes.size() - kSealBytes);
  if (bytes.substr(message.size()) != seal_of(message))
    fail(ExitCode::kCheckpoint, "{}: damaged: its {} bytes do not match their checksum", where, bytes.size());
  checkpoint::Manifest in;
  if (message.size() > INT32_MAX || !in.ParseFromArray(message.data(), static_cast<int>(message.size())))
    fail(ExitCode::kCheckpoint, "{}: its {} bytes are not a manifest", where, bytes.size());
  if (in.format_version() != kManifestVersion)
    fail(ExitCode::kCheckpoint,
         "{}: has format version {}, this program reads {}; use the version that wrote it", where,
         in.format_version(), kManifestVersion);
  Manifest manifest;
  for_each_field(manifest.job, JobDecoder{in.job()});
  for (const auto& tensor : in.tensors()) manifest.tensors.push_back(decode_tensor(tensor, where));
  for (const auto& file : in.files())
    manifest.files.push_back(
        {file.name(), file.size(), file.sha256(), {file.crc32c().begin(), file.crc32c().end()}});
  return manifest;
}

void check_complete(const Manifest& manifest, const std::string& where) {
  check_files(manifest, where);
  std::vector<Ranges> used(manifest.files.size());
  const TensorRecord* before = nullptr;
  for (const TensorRecord& tensor : manifest.tensors) {
    if (before && !(before->name < tensor.name))
      fail(ExitCode::kCheckpoint, "{}: tensor '{}' comes after '{}': given twice, or not in name order",
           where, tensor.name, before->name);
    check_tensor(manifest, tensor, where, used);
    before = &tensor;
  }
  for (std::size_t i = 0; i < used.size(); ++i) {
    std::sort(used[i].begin(), used[i].end());
    for (std::size_t k = 1; k < used[i].size(); ++k) {
      const auto& [begin, end, tensor] = used[i][k];
      const auto& [left_begin, left_end, left] = used[i][k - 1];
      if (begin < left_end)
        fail(ExitCode::kCheckpoint, "{}: tensors '{}' and '{}' share bytes of '{}' at {}", where, left->name,
             tensor->name, manifest.files[i].name, begin);
    }
  }
}

std::vector<Cut> cut_tensors(const std::vector<TensorSlot>& tensors, int world_size) {
  std::uint64_t total = 0;
  for (const auto& tensor : tensors) total += tensor.first ? 0 : tensor.bytes;
  const auto ranks = static_cast<std::uint64_t>(world_size);
  const auto end_of = [&](std::uint64_t rank) {  // of a rank's run, in bytes
    return total / ranks * (rank + 1) + total % ranks * (rank + 1) / ranks;
  };
  std::vector<Cut> cuts;
  std::uint32_t rank = 0;
  std::uint64_t start = 0;  // of the tensor in the whole run
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    if (tensors[t].first) continue;
    const std::uint64_t element = size_of(tensors[t].dtype), elements = tensors[t].bytes / element;
    std::uint64_t begin = 0;
    do {
      // Ranks whose run ends before the next whole element are passed over. The last run ends at `total`.
      std::uint64_t end = elements;
      while (rank + 1 < ranks) {
        const std::uint64_t run = end_of(rank);
        end = std::min(run > start ? (run - start) / element : 0, elements);
        if (end > begin || (elements == 0 && run > start)) break;
        ++rank;
        end = elements;
      }
      cuts.push_back({t, rank, begin, end});
      begin = end;
    } while (begin < elements);
    start += tensors[t].bytes;
  }
  return cuts;
}

std::vector<Cut> cuts_of_rank(const std::vector<TensorSlot>& tensors, int rank, int world_size) {
  std::vector<Cut> cuts = cut_tensors(tensors, world_size);
  std::erase_if(cuts, [&](const Cut& cut) { return static_cast<int>(cut.file) != rank; });
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const TensorSlot& held = tensors[t];
    if (held.first && held.bytes > 0)
      cuts.push_back(
          {t, static_cast<std::uint32_t>(rank), *held.first, *held.first + held.bytes / size_of(held.dtype)});
  }
  return cuts;
}

std::string name_of_cut(const std::string& tensor, std::uint64_t begin, std::uint64_t end,
                        std::uint64_t elements) {
  return end - begin == elements ? tensor : fmt::format("{}#{}-{}", tensor, begin, end);
}

Manifest merge_manifests(std::vector<Manifest> parts) {
  Manifest merged;
  std::map<std::string, TensorRecord> tensors;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i == 0) merged.job = parts[i].job;
    for (FileRecord& file : parts[i].files) merged.files.push_back(std::move(file));
    for (TensorRecord& tensor : parts[i].tensors) {
      const auto [found, is_new] = tensors.try_emplace(tensor.name, tensor);
      TensorRecord& known = found->second;
      if (is_new) known.pieces.clear();
      if (known.dtype != tensor.dtype || known.shape != tensor.shape)
        fail(ExitCode::kCheckpoint, "rank {} wrote tensor '{}' as {}, an earlier rank as {}", i, tensor.name,
             text_of(tensor.dtype, tensor.shape), text_of(known.dtype, known.shape));
      for (Piece piece : tensor.pieces) {
        piece.file = static_cast<std::uint32_t>(i);
        known.pieces.push_back(piece);
      }
    }
  }
  for (auto& [name, tensor] : tensors) merged.tensors.push_back(std::move(tensor));
  return merged;
}

}  // namespace trireme
