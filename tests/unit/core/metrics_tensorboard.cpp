#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <map>
#include <thread>

#include "core/base/crc32c.h"
#include "core/metrics/tensorboard.h"
#include "kernels/error.h"
#include "tests/unit/core/metrics_scratch.h"

namespace trireme {
namespace {

using test::read_text;
using test::Scratch;

template <class T>
T take(std::string_view& bytes) {
  T value{};
  if (bytes.size() < sizeof value) throw std::runtime_error("the bytes end early");
  std::memcpy(&value, bytes.data(), sizeof value);
  bytes.remove_prefix(sizeof value);
  return value;
}

std::uint32_t unmasked(std::uint32_t stored) {
  const std::uint32_t rotated = stored - 0xa282ead8u;
  return rotated >> 17 | rotated << 15;
}

/// Splits a TFRecord file into records, and checks both checksums of every record.
std::vector<std::string> records_of(const std::filesystem::path& path) {
  const std::string file = read_text(path);
  std::string_view bytes = file;
  std::vector<std::string> records;
  while (!bytes.empty()) {
    const std::string_view length_bytes = bytes.substr(0, 8);
    const auto length = take<std::uint64_t>(bytes);
    EXPECT_EQ(unmasked(take<std::uint32_t>(bytes)), crc32c(length_bytes.data(), 8));
    records.emplace_back(bytes.substr(0, length));
    bytes.remove_prefix(std::min<std::size_t>(length, bytes.size()));
    EXPECT_EQ(unmasked(take<std::uint32_t>(bytes)), crc32c(records.back().data(), length));
  }
  return records;
}

std::uint64_t take_varint(std::string_view& bytes) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = take<std::uint8_t>(bytes);
    value |= std::uint64_t(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

/// Returns the fields of a protobuf message: the raw values of each field number, with varints as 8 bytes.
std::multimap<int, std::string> fields_of(std::string_view bytes) {
  std::multimap<int, std::string> fields;
  while (!bytes.empty()) {
    const std::uint64_t key = take_varint(bytes);
    std::size_t size = 0;
    std::string value;
    switch (key & 7) {
      case 0: {
        const std::uint64_t number = take_varint(bytes);
        value.assign(reinterpret_cast<const char*>(&number), sizeof number);
        break;
      }
      case 1:
        size = 8;
        break;
      case 2:
        size = take_varint(bytes);
        break;
      case 5:
        size = 4;
        break;
      default:
        throw std::runtime_error("unknown wire type");
    }
    if (value.empty()) {
      value = bytes.substr(0, size);
      bytes.remove_prefix(size);
    }
    fields.emplace(static_cast<int>(key >> 3), value);
  }
  return fields;
}

template <class T>
T as(const std::string& raw) {
  std::string_view bytes = raw;
  return take<T>(bytes);
}

struct ReadScalar {
  std::int64_t step;
  double wall_time;
  std::string tag;
  float value;
  bool operator==(const ReadScalar&) const = default;
};

std::vector<ReadScalar> scalars_of(const std::filesystem::path& path) {
  std::vector<ReadScalar> scalars;
  for (const std::string& record : records_of(path)) {
    const auto event = fields_of(record);
    if (!event.contains(5)) continue;
    const auto summary = fields_of(event.find(5)->second);
    for (auto [at, end] = summary.equal_range(1); at != end; ++at) {
      const auto value = fields_of(at->second);
      scalars.push_back({as<std::int64_t>(event.find(2)->second), as<double>(event.find(1)->second),
                         value.find(1)->second, as<float>(value.find(2)->second)});
    }
  }
  return scalars;
}

constexpr TensorBoardWriter::WallTime kWhen{1700000000.25};

TEST(TensorBoard, NamesTheFileByTimeHostAndProcess) {
  const Scratch scratch;
  const TensorBoardWriter first(scratch / "runs/a");
  const TensorBoardWriter second(scratch / "runs/a");  // made within the same second
  const std::string name = first.path().filename().string();
  EXPECT_TRUE(name.starts_with("events.out.tfevents.1") || name.starts_with("events.out.tfevents.2")) << name;
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  EXPECT_TRUE(name.ends_with(fmt::format(".{}.{}", host, getpid()))) << name;
  EXPECT_NE(first.path(), second.path());
}

TEST(TensorBoard, BeginsWithTheFileVersion) {
  const Scratch scratch;
  const TensorBoardWriter writer(scratch.path());
  const auto records = records_of(writer.path());  // written before any flush
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(fields_of(records[0]).find(3)->second, "brain.Event:2");
}

TEST(TensorBoard, WritesAStepsScalarsAsOneEvent) {
  const Scratch scratch;
  TensorBoardWriter writer(scratch.path());
  const TaggedScalar scalars[] = {{"train/loss", 0.5}, {std::string_view("e\xc3\xa9 \"x\""), -1e30}};
  writer.add(std::int64_t{1} << 40, scalars, kWhen);
  writer.flush();
  EXPECT_EQ(records_of(writer.path()).size(), 2u);
  const std::vector<ReadScalar> expected = {
      {std::int64_t{1} << 40, 1700000000.25, "train/loss", 0.5f},
      {std::int64_t{1} << 40, 1700000000.25, "e\xc3\xa9 \"x\"", -1e30f}};
  EXPECT_EQ(scalars_of(writer.path()), expected);
}

TEST(TensorBoard, LengthsThatNeedTwoBytes) {
  const Scratch scratch;
  TensorBoardWriter writer(scratch.path());
  const std::string tag(300, 't');
  const TaggedScalar scalars[] = {{tag, 1}};
  writer.add(127, scalars, kWhen);
  writer.add(128, scalars, kWhen);
  writer.flush();
  ASSERT_EQ(scalars_of(writer.path()).size(), 2u);
  EXPECT_EQ(scalars_of(writer.path())[1], (ReadScalar{128, 1700000000.25, tag, 1}));
}

TEST(TensorBoard, GroupsTheNumbersOfARecord) {
  const Scratch scratch;
  TensorBoardWriter writer(scratch.path());
  writer.add(Record()
                 .set("step", 3)
                 .set("epoch", 1)
                 .set("loss", std::nan(""))
                 .set("step_ms", 2.5)
                 .set("eval_accuracy", 0.75)
                 .set("digest", "ab"),
             kWhen);
  writer.flush();
  const std::vector<ReadScalar> expected = {{3, 1700000000.25, "train/epoch", 1},
                                            {3, 1700000000.25, "time/step_ms", 2.5f},
                                            {3, 1700000000.25, "eval/accuracy", 0.75f}};
  EXPECT_EQ(scalars_of(writer.path()), expected);
  EXPECT_THROW(writer.add(Record().set("loss", 1.0)), Error);
}

TEST(TensorBoard, ResumeTellsReadersToForgetLaterSteps) {
  const Scratch scratch;
  const TensorBoardWriter writer(scratch.path(), 41);
  const auto records = records_of(writer.path());
  ASSERT_EQ(records.size(), 2u);
  const auto event = fields_of(records[1]);
  EXPECT_EQ(as<std::int64_t>(event.find(2)->second), 42);
  EXPECT_EQ(as<std::int64_t>(fields_of(event.find(7)->second).find(1)->second), 1);  // SessionLog.START
}

TEST(TensorBoard, GathersEventsForTwoSeconds) {
  const Scratch scratch;
  const TaggedScalar scalars[] = {{"loss", 1}};
  std::filesystem::path path;
  {
    TensorBoardWriter writer(scratch.path());
    path = writer.path();
    writer.add(1, scalars);
    writer.add(2, scalars);
    EXPECT_TRUE(scalars_of(path).empty());
    std::this_thread::sleep_for(std::chrono::milliseconds(2050));
    writer.add(3, scalars);
    EXPECT_EQ(scalars_of(path).size(), 3u);
    writer.add(4, scalars);
    EXPECT_EQ(scalars_of(path).size(), 3u);
  }
  EXPECT_EQ(scalars_of(path).size(), 4u);
}

}  // namespace
}  // namespace trireme
