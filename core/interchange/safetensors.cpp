#include "core/interchange/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/random_hex.h"

namespace trireme {

namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeader = 100'000'000;  // the reference reader's limit
constexpr const char* kMetadata = "__metadata__";

constexpr struct {
  DType dtype;
  const char* name;
} kDTypes[] = {{DType::kFloat32, "F32"}, {DType::kFloat64, "F64"}, {DType::kInt64, "I64"},
               {DType::kUInt8, "U8"},    {DType::kBool, "BOOL"},   {DType::kBFloat16, "BF16"},
               {DType::kFloat16, "F16"}};

const char* safetensors_name(DType dtype) {
  for (const auto& known : kDTypes)
    if (known.dtype == dtype) return known.name;
  fail(ExitCode::kInternal, "safetensors: no name for dtype {}", name_of(dtype));
}

[[noreturn]] void refuse(const fs::path& path, const std::string& reason) {
  fail(ExitCode::kCheckpoint, "'{}' is not a safetensors file that can be read: {}", path.string(), reason);
}

/// Parses JSON and refuses a key that stands twice in one object, which the parser alone would let pass.
Json parse_header(const fs::path& path, const std::string& text) {
  if (text.empty() || text.front() != '{') refuse(path, "its header does not begin with '{'");
  std::vector<std::set<std::string>> open_objects;
  const auto watch = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) open_objects.emplace_back();
    if (event == Json::parse_event_t::object_end) open_objects.pop_back();
    if (event == Json::parse_event_t::key && !open_objects.back().insert(value.get<std::string>()).second)
      refuse(path, fmt::format("the name '{}' is given twice", value.get<std::string>()));
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const Json::exception& error) {
    refuse(path, fmt::format("its header is not JSON: {}", error.what()));
  }
}

const Json& member(const fs::path& path, const std::string& name, const Json& entry, const char* key) {
  if (!entry.is_object()) refuse(path, fmt::format("'{}' is not an object", name));
  const auto found = entry.find(key);
  if (found == entry.end()) refuse(path, fmt::format("'{}' has no {}", name, key));
  return *found;
}

/// Sets the entry's dtype, or the name of a foreign one.
void read_dtype(const fs::path& path, const Json& json, ForeignDTypes foreign, SafetensorsEntry& entry) {
  const std::string& name = entry.name;
  const Json& text = member(path, name, json, "dtype");
  for (const auto& known : kDTypes)
    if (text == known.name) {
      entry.dtype = known.dtype;
      return;
    }
  if (foreign == ForeignDTypes::kKeep && text.is_string() && !text.get<std::string>().empty()) {
    entry.foreign_dtype = text.get<std::string>();
    return;
  }
  std::string names;
  for (const auto& known : kDTypes) names += std::string(names.empty() ? "" : ", ") + known.name;
  refuse(path, fmt::format("'{}' has dtype {}; known are {}", name, text.dump(), names));
}

std::vector<std::uint64_t> read_numbers(const fs::path& path, const std::string& name, const Json& entry,
                                        const char* key) {
  const Json& list = member(path, name, entry, key);
  if (!list.is_array()) refuse(path, fmt::format("'{}' has {} that is not a list", name, key));
  std::vector<std::uint64_t> numbers;
  for (const Json& number : list) {
    if (!number.is_number_unsigned() || number.get<std::uint64_t>() > INT64_MAX)
      refuse(path, fmt::format("'{}' has {} with {}, which is not a size", name, key, number.dump()));
    numbers.push_back(number.get<std::uint64_t>());
  }
  return numbers;
}

SafetensorsEntry read_entry(const fs::path& path, const std::string& name, const Json& json,
                            std::uint64_t data_begin, ForeignDTypes foreign) {
  SafetensorsEntry entry;
  entry.name = name;
  read_dtype(path, json, foreign, entry);
  for (const std::uint64_t dimension : read_numbers(path, name, json, "shape"))
    entry.shape.push_back(static_cast<std::int64_t>(dimension));
  const auto range = read_numbers(path, name, json, "data_offsets");
  if (range.size() != 2 || range[0] > range[1])
    refuse(path,
           fmt::format("'{}' has data_offsets [{}], which is not a range", name, fmt::join(range, ", ")));
  entry.offset = data_begin + range[0];
  entry.bytes = range[1] - range[0];
  if (!entry.foreign_dtype.empty()) return entry;  // of unknown size
  const std::int64_t expected = bytes_of(entry.dtype, entry.shape);
  if (expected < 0 || entry.bytes != static_cast<std::uint64_t>(expected))
    refuse(path,
           fmt::format("'{}' of shape {} takes {} bytes, but its range has {}", name, text_of(entry.shape),
                       expected < 0 ? "more than 2^63" : std::to_string(expected), entry.bytes));
  return entry;
}

/// In file order, without gaps or overlaps, up to the end of the file.
void check_ranges(const fs::path& path, SafetensorsLayout& layout, std::uint64_t data_begin) {
  std::sort(layout.entries.begin(), layout.entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
  });
  std::uint64_t end = data_begin;
  for (const auto& entry : layout.entries) {
    if (entry.offset != end)
      refuse(path, fmt::format("'{}' begins at byte {}, but the tensors before it end at {}", entry.name,
                               entry.offset, end));
    end += entry.bytes;
  }
  if (end != layout.file_size)
    refuse(path, fmt::format("its tensors end at byte {}, but the file has {}", end, layout.file_size));
}

}  // namespace

SafetensorsLayout lay_out_safetensors(const std::vector<TensorSlot>& tensors,
                                      const SafetensorsMetadata& metadata, std::string& header) {
  SafetensorsLayout layout;
  layout.metadata = metadata;
  Json json = Json::object();
  if (!metadata.empty()) json[kMetadata] = metadata;
  for (const TensorSlot& tensor : tensors)
    layout.entries.push_back({tensor.name, tensor.dtype, tensor.shape, 0, tensor.bytes, {}});
  std::sort(layout.entries.begin(), layout.entries.end(), [](const auto& a, const auto& b) {
    const auto a_size = size_of(a.dtype), b_size = size_of(b.dtype);
    return a_size != b_size ? a_size > b_size : a.name < b.name;
  });
  std::uint64_t end = 0;
  for (auto& entry : layout.entries) {
    if (entry.name.empty() || entry.name == kMetadata || json.contains(entry.name))
      fail(ExitCode::kUsage, "safetensors: '{}' cannot name a tensor: names are not empty, not {} and differ",
           entry.name, kMetadata);
    entry.offset = end;
    end += entry.bytes;
    json[entry.name] = {{"dtype", safetensors_name(entry.dtype)},
                        {"shape", entry.shape},
                        {"data_offsets", {entry.offset, end}}};
  }
  try {
    header = json.dump();
  } catch (const Json::exception& error) {
    fail(ExitCode::kUsage, "safetensors: a name or metadata is not UTF-8: {}", error.what());
  }
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string length;
  for (unsigned shift = 0; shift < 64; shift += 8) length += static_cast<char>(header.size() >> shift);
  header.insert(0, length);
  for (auto& entry : layout.entries) entry.offset += header.size();
  layout.file_size = header.size() + end;
  return layout;
}

SafetensorsLayout read_safetensors_layout(const FileSystem& files, const fs::path& path,
                                          ForeignDTypes foreign) {
  const FileStatus status = files.status(path);
  if (status.kind == FileKind::kMissing) fail(ExitCode::kCheckpoint, "'{}' does not exist", path.string());
  if (status.kind != FileKind::kFile)
    fail(ExitCode::kCheckpoint, "'{}' is not a regular file", path.string());
  if (status.size < kLengthBytes) refuse(path, fmt::format("it has only {} bytes", status.size));
  std::byte length_bytes[kLengthBytes];
  files.read(path, 0, length_bytes);
  std::uint64_t length = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;)
    length = (length << 8) | static_cast<std::uint64_t>(length_bytes[i]);
  if (length > status.size - kLengthBytes || length > kMaxHeader)
    refuse(path,
           fmt::format("its header claims {} bytes, the file has {} after the length, and {} are the limit",
                       length, status.size - kLengthBytes, kMaxHeader));
  std::string text(length, '\0');
  files.read(path, kLengthBytes, std::as_writable_bytes(std::span(text)));

  const Json json = parse_header(path, text);
  const std::uint64_t data_begin = kLengthBytes + length;
  SafetensorsLayout layout;
  layout.file_size = status.size;
  for (const auto& [name, value] : json.items()) {
    if (name != kMetadata) {
      layout.entries.push_back(read_entry(path, name, value, data_begin, foreign));
      continue;
    }
    if (!value.is_object()) refuse(path, fmt::format("{} is not an object", kMetadata));
    for (const auto& [key, text_value] : value.items()) {
      if (!text_value.is_string())
        refuse(path, fmt::format("{} holds '{}', which is not text", kMetadata, key));
      layout.metadata[key] = text_value.get<std::string>();
    }
  }
  check_ranges(path, layout, data_begin);
  return layout;
}

OwnedTensors allocate_like(const std::vector<TensorSlot>& tensors) {
  constexpr std::size_t kAlign = 16;
  std::size_t total = 0;
  for (const auto& tensor : tensors) total += (tensor.bytes + kAlign - 1) / kAlign * kAlign;
  OwnedTensors owned{tensors, std::make_unique<std::byte[]>(total), {}};
  std::size_t offset = 0;
  for (auto& tensor : owned.tensors) {
    tensor.data = owned.memory.get() + offset;
    offset += (tensor.bytes + kAlign - 1) / kAlign * kAlign;
  }
  return owned;
}

fs::path followed(const fs::path& path) {
  std::error_code none;
  const fs::path target = fs::canonical(path, none);
  return none ? path : target;
}

void read_safetensors_entry(const FileSystem& files, const fs::path& path, const SafetensorsEntry& entry,
                            std::span<std::byte> to) {
  files.read(path, entry.offset, to);
  if (entry.dtype != DType::kBool) return;
  const auto bad = std::ranges::find_if(to, [](std::byte b) { return b > std::byte{1}; });
  if (bad != to.end())
    refuse(path, fmt::format("'{}' is BOOL and holds {} at byte {}, which is neither 0 nor 1", entry.name,
                             std::to_integer<int>(*bad),
                             entry.offset + static_cast<std::uint64_t>(bad - to.begin())));
}

OwnedTensors read_safetensors(const fs::path& path) {
  const RealFileSystem files;
  const fs::path target = followed(path);
  SafetensorsLayout layout = read_safetensors_layout(files, target);
  std::sort(layout.entries.begin(), layout.entries.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  std::vector<TensorSlot> slots;
  for (const auto& entry : layout.entries)
    slots.push_back({entry.name, entry.dtype, entry.shape, nullptr, static_cast<std::size_t>(entry.bytes)});
  OwnedTensors owned = allocate_like(slots);
  for (std::size_t i = 0; i < owned.tensors.size(); ++i)
    read_safetensors_entry(files, target, layout.entries[i], {owned.tensors[i].data, owned.tensors[i].bytes});
  owned.metadata = std::move(layout.metadata);
  return owned;
}

void write_safetensors(const fs::path& path, const std::vector<TensorSlot>& tensors,
                       const SafetensorsMetadata& metadata) {
  RealFileSystem files;
  std::string header;
  const SafetensorsLayout layout = lay_out_safetensors(tensors, metadata, header);
  std::map<std::string, const TensorSlot*> by_name;
  for (const auto& tensor : tensors) by_name[tensor.name] = &tensor;

  const fs::path temporary = path.string() + ".tmp." + random_hex(16);
  const auto file = files.create(temporary);
  try {
    file->append(std::as_bytes(std::span(header)));
    for (const auto& entry : layout.entries) file->append({by_name.at(entry.name)->data, entry.bytes});
    file->sync();
    file->close();
    files.rename(temporary, path);
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
  files.sync_dir(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

}  // namespace trireme
