#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <random>

#include "core/interchange/safetensors.h"
#include "distributed/checkpoint/memory_file_system.h"
#include "tests/support/checkpoint.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using test::code_thrown_by;
using test::small_model;
using test::TensorSet;

std::string little_endian(std::uint64_t value) {
  std::string bytes;
  for (unsigned shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(value >> shift);
  return bytes;
}

std::string file_of(const std::string& header, std::size_t data_bytes) {
  return little_endian(header.size()) + header + std::string(data_bytes, '\1');
}

/// Returns the message of the error for a file with these bytes, or "" if the file is accepted.
std::string error_of(const std::string& bytes) {
  MemoryFileSystem files;
  files.create("/f")->append(std::as_bytes(std::span(bytes)));
  std::string what;
  const ExitCode code = code_thrown_by([&] { read_safetensors_layout(files, "/f"); }, &what);
  if (code == ExitCode::kDone) return "";
  EXPECT_EQ(code, ExitCode::kCheckpoint) << what;
  EXPECT_EQ(what.find('\n'), std::string::npos) << what;
  EXPECT_NE(what.find("'/f'"), std::string::npos) << what;
  return what;
}

TEST(Safetensors, LaysOutAlignedInAFixedOrder) {
  std::string header;
  const TensorSet model = small_model(1);
  const SafetensorsLayout layout = lay_out_safetensors(model.slots, {{"k", "v"}}, header);
  EXPECT_EQ(header.size() % 8, 0u);
  EXPECT_EQ(layout.entries.front().offset, header.size());
  std::vector<std::string> names;
  for (const auto& entry : layout.entries) {
    names.push_back(entry.name);
    EXPECT_EQ(entry.offset % size_of(entry.dtype), 0u) << entry.name;
  }
  EXPECT_EQ(names, (std::vector<std::string>{"adam.moment", "adam.steps", "layer.bias", "layer.weight",
                                             "nothing", "bytes", "mask"}));
  EXPECT_EQ(error_of(header + std::string(layout.file_size - header.size(), 'x')), "");
}

TEST(Safetensors, BytesAreThoseOfTheFormat) {
  std::string header;
  TensorSet model;
  model.add("a", DType::kFloat32, {1, 2}, 1);
  lay_out_safetensors(model.slots, {}, header);
  const std::string json = R"({"a":{"data_offsets":[0,8],"dtype":"F32","shape":[1,2]}})";
  EXPECT_EQ(header, little_endian(56) + json + std::string(56 - json.size(), ' '));
}

TEST(Safetensors, RoundTripsAFile) {
  const test::TemporaryDirectory temporary;
  const fs::path path = temporary.path() / "a.safetensors";
  const TensorSet model = small_model(1);
  write_safetensors(path, small_model(2).slots);
  write_safetensors(path, model.slots, {{"step", "12"}});
  fs::create_symlink(path, temporary.path() / "link");
  for (const char* name : {"a.safetensors", "link"}) {
    const OwnedTensors read = read_safetensors(temporary.path() / name);
    EXPECT_EQ(read.metadata, (SafetensorsMetadata{{"step", "12"}}));
    ASSERT_EQ(read.tensors.size(), model.slots.size());
    for (const auto& expected : model.slots) {
      const auto found = std::find_if(read.tensors.begin(), read.tensors.end(),
                                      [&](const auto& slot) { return slot.name == expected.name; });
      ASSERT_NE(found, read.tensors.end());
      EXPECT_EQ(found->dtype, expected.dtype);
      EXPECT_EQ(found->shape, expected.shape);
      ASSERT_EQ(found->bytes, expected.bytes);
      EXPECT_TRUE(expected.bytes == 0 || std::memcmp(found->data, expected.data, expected.bytes) == 0);
    }
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(temporary.path()), {}), 2);  // no temporary file is left
}

TEST(Safetensors, BadNamesCannotBeWritten) {
  const test::TemporaryDirectory temporary;
  for (const char* name : {"", "__metadata__", "layer.bias", "\xC3\x28"}) {
    TensorSet model = small_model(1);
    model.add(name, DType::kUInt8, {1}, 1);
    EXPECT_EQ(code_thrown_by([&] { write_safetensors(temporary.path() / "f", model.slots); }),
              ExitCode::kUsage)
        << name;
    EXPECT_TRUE(fs::is_empty(temporary.path()));
  }
}

std::string header_with(const std::string& shape, const std::string& range,
                        const std::string& dtype = "\"F32\"") {
  return fmt::format(R"({{"a":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, range);
}

using Cases = std::vector<std::pair<std::string, std::string>>;

/// Expects for each file an error that contains the text given with it.
void expect_refused(const Cases& cases) {
  for (const auto& [bytes, expected] : cases) {
    const std::string error = error_of(bytes);
    EXPECT_NE(error.find(expected), std::string::npos) << expected << "\n" << error;
  }
}

TEST(Safetensors, AFileThatIsNoneIsRefused) {
  expect_refused({
      {"", "only 0 bytes"},
      {std::string(7, '\0'), "only 7 bytes"},
      {little_endian(0), "does not begin with"},
      {little_endian(1) + "{", "not JSON"},
      {little_endian(3) + "{}", "claims 3 bytes"},
      {little_endian(UINT64_MAX) + "{}", "claims 18446744073709551615 bytes"},
      {little_endian(UINT64_MAX - 7) + "{}", "claims"},
      {little_endian(100'000'001) + std::string(100'000'001, ' '), "100000000 are the limit"},
      {file_of("[]", 0), "does not begin with"},
      {file_of(" {}", 0), "does not begin with"},
      {file_of("{} x", 0), "not JSON"},
      {file_of(std::string(100000, '['), 0), "does not begin with"},
      {file_of("{\"a\":" + std::string(100000, '['), 0), "not JSON"},
      {file_of("{\"a\":\"\xFF\"}", 0), "not JSON"},
      {file_of(R"({"a":1})", 0), "not an object"},
      {file_of(R"({"a":{}})", 0), "has no dtype"},
      {file_of(R"({"a":{"dtype":"F32"}})", 0), "has no shape"},
      {file_of(R"({"a":{"dtype":"F32","shape":[1]}})", 4), "has no data_offsets"},
      {file_of(R"({"__metadata__":1})", 0), "not an object"},
      {file_of(R"({"__metadata__":{"a":1}})", 0), "not text"},
  });
}

TEST(Safetensors, LyingEntriesAreRefused) {
  EXPECT_EQ(error_of(file_of(header_with("[2]", "[0,8]"), 8)), "");
  EXPECT_EQ(error_of(file_of("{}", 0)), "");
  expect_refused({
      {file_of(header_with("[2]", "[0,8]", "\"F8_E4M3\""), 8), "dtype \"F8_E4M3\""},
      {file_of(header_with("[2]", "[0,8]", "7"), 8), "dtype 7"},
      {file_of(header_with("2", "[0,8]"), 8), "not a list"},
      {file_of(header_with("[-2]", "[0,8]"), 8), "not a size"},
      {file_of(header_with("[2.0]", "[0,8]"), 8), "not a size"},
      {file_of(header_with("[1e30]", "[0,8]"), 8), "not a size"},
      {file_of(header_with("[99999999999999999999]", "[0,8]"), 8), "not a size"},
      {file_of(header_with("[2]", "[-8,0]"), 8), "not a size"},
      {file_of(header_with("[2]", "[8,0]"), 8), "not a range"},
      {file_of(header_with("[2]", "[0]"), 8), "not a range"},
      {file_of(header_with("[2]", "[0,8,8]"), 8), "not a range"},
      {file_of(header_with("[3]", "[0,8]"), 8), "takes 12 bytes"},
      {file_of(header_with("[4611686018427387904,4]", "[0,8]"), 8), "takes more than 2^63 bytes"},
      {file_of(header_with("[4294967296,4294967296]", "[0,0]"), 0), "takes more than 2^63 bytes"},
      {file_of(header_with("[2305843009213693951]", "[0,9223372036854775804]"), 8), "the file has"},
      {file_of(header_with("[2]", "[0,8]"), 9), "end at byte"},
      {file_of(header_with("[2]", "[0,8]"), 7), "end at byte"},
      {file_of(header_with("[2]", "[1,9]"), 9), "begins at byte"},
      {file_of(
           R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})",
           7),
       "begins at byte"},
      {file_of(
           R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
           4),
       "given twice"},
      {file_of(R"({"a":{"dtype":"U8","shape":[4],"shape":[4],"data_offsets":[0,4]}})", 4), "given twice"},
  });
}

TEST(Safetensors, ABoolIsZeroOrOne) {
  const test::TemporaryDirectory temporary;
  const fs::path path = temporary.path() / "f";
  for (const char value : {'\0', '\1', '\2'}) {
    std::ofstream(path, std::ios::binary)
        << file_of(R"({"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}})", 0) << value;
    EXPECT_EQ(code_thrown_by([&] { read_safetensors(path); }),
              value == '\2' ? ExitCode::kCheckpoint : ExitCode::kDone);
  }
  EXPECT_EQ(code_thrown_by([&] { read_safetensors(temporary.path() / "none"); }), ExitCode::kCheckpoint);
  EXPECT_EQ(code_thrown_by([&] { read_safetensors(temporary.path()); }), ExitCode::kCheckpoint);
}

/// Tests that every damaged header gives an error or a valid layout.
TEST(Safetensors, ManyDamagedHeaders) {
  std::string header;
  const SafetensorsLayout layout = lay_out_safetensors(small_model(1).slots, {{"format", "pt"}}, header);
  const std::string sound = header + std::string(layout.file_size - header.size(), '\1');
  std::mt19937_64 random(1);
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = sound;
    for (std::uint64_t changes = 1 + random() % 3; changes > 0; --changes)
      bytes[random() % header.size()] =
          static_cast<char>(random() % 4 ? "0123456789{}[]\",:-. "[random() % 20] : random());
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    refused += !error_of(bytes).empty();
  }
  EXPECT_GT(refused, 10000);
}

}  // namespace
}  // namespace trireme
