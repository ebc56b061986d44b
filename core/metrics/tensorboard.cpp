#include "core/metrics/tensorboard.h"

#include <unistd.h>

#include <bit>
#include <cmath>
#include <vector>

#include "core/base/crc32c.h"
#include "kernels/error.h"

namespace trireme {

namespace {

constexpr std::chrono::seconds kFlushPeriod{2};

// Little-endian fixed-width integers, whatever the host's own order.
template <class Integer>
void put_fixed(std::string& out, Integer value) {
  for (std::size_t byte = 0; byte < sizeof(Integer); ++byte) out += static_cast<char>(value >> (8 * byte));
}

/// Encodes one Protocol Buffers message, field by field.
class Message {
 public:
  Message& varint(int field, std::uint64_t value) {
    key(field, 0);
    put_varint(value);
    return *this;
  }
  Message& fixed64(int field, double value) {
    key(field, 1);
    put_fixed(bytes_, std::bit_cast<std::uint64_t>(value));
    return *this;
  }
  Message& fixed32(int field, float value) {
    key(field, 5);
    put_fixed(bytes_, std::bit_cast<std::uint32_t>(value));
    return *this;
  }
  /// A string, or another message.
  Message& text(int field, std::string_view value) {
    key(field, 2);
    put_varint(value.size());
    bytes_ += value;
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void key(int field, unsigned wire_type) { put_varint(static_cast<unsigned>(field) << 3 | wire_type); }
  void put_varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

// Field numbers of TensorFlow's event.proto and summary.proto.
namespace event {
constexpr int kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7;
}
namespace summary {
constexpr int kValue = 1;
}
namespace summary_value {
constexpr int kTag = 1, kSimpleValue = 2;
}
namespace session_log {
constexpr int kStatus = 1, kStart = 1;
}

Message make_event(TensorBoardWriter::WallTime when, std::int64_t step) {
  Message message;
  message.fixed64(event::kWallTime, when.count()).varint(event::kStep, static_cast<std::uint64_t>(step));
  return message;
}

/// A CRC stored beside its own data would make a CRC over both useless, so TFRecord stores a scrambled one.
std::uint32_t masked_crc(std::string_view bytes) {
  return std::rotr(crc32c(bytes.data(), bytes.size()), 15) + 0xa282ead8u;
}

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 && name[0] != '\0' ? name : "localhost";
}

std::filesystem::path events_path(const std::filesystem::path& directory) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(TensorBoardWriter::now());
  const std::filesystem::path path =
      directory / fmt::format("events.out.tfevents.{:010}.{}.{}", seconds.count(), host_name(), getpid());
  // A second writer of this process within the same second.
  std::filesystem::path free = path;
  for (int n = 1; std::filesystem::exists(free); ++n) free = fmt::format("{}.{}", path.string(), n);
  return free;
}

std::string group_tag(std::string_view key) {
  if (key.starts_with("eval_")) return fmt::format("eval/{}", key.substr(5));
  return fmt::format("{}/{}", key.ends_with("_ms") ? "time" : "train", key);
}

}  // namespace

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& directory,
                                     std::optional<std::int64_t> resume_step)
    : file_(events_path(directory), FileWriter::Mode::kNew) {
  append_event(make_event(now(), 0).text(event::kFileVersion, "brain.Event:2").bytes());
  if (resume_step) {
    // TensorBoard drops what it has at this step and later when it reads such a start.
    Message start;
    start.varint(session_log::kStatus, session_log::kStart);
    append_event(make_event(now(), *resume_step + 1).text(event::kSessionLog, start.bytes()).bytes());
  }
  flush();
}

TensorBoardWriter::~TensorBoardWriter() {
  try {
    flush();
  } catch (const Error&) {
    // A destructor has nobody to tell.
  }
}

void TensorBoardWriter::add(std::int64_t step, std::span<const TaggedScalar> scalars, WallTime when) {
  Message all;
  for (const TaggedScalar& scalar : scalars) {
    Message one;
    one.text(summary_value::kTag, scalar.tag)
        .fixed32(summary_value::kSimpleValue, static_cast<float>(scalar.value));
    all.text(summary::kValue, one.bytes());
  }
  append_event(make_event(when, step).text(event::kSummary, all.bytes()).bytes());
  if (std::chrono::steady_clock::now() - last_flush_ >= kFlushPeriod) flush();
}

void TensorBoardWriter::add(const Record& record, WallTime when) {
  const std::optional<std::int64_t> step = record.step();
  TRIREME_CHECK(step, "a line of metrics needs an integer \"step\": {}", record.to_json());
  std::vector<std::string> tags;
  std::vector<double> values;
  for (const auto& [key, value] : record.fields()) {
    const std::optional<double> number = record.number(key);
    if (key == "step" || !number || std::isnan(*number)) continue;
    tags.push_back(group_tag(key));
    values.push_back(*number);
  }
  std::vector<TaggedScalar> scalars;
  for (std::size_t i = 0; i < tags.size(); ++i) scalars.push_back({tags[i], values[i]});
  add(*step, scalars, when);
}

void TensorBoardWriter::flush() {
  file_.write(pending_);
  pending_.clear();
  last_flush_ = std::chrono::steady_clock::now();
}

void TensorBoardWriter::append_event(std::string_view event) {
  std::string length;
  put_fixed<std::uint64_t>(length, event.size());
  pending_ += length;
  put_fixed(pending_, masked_crc(length));
  pending_ += event;
  put_fixed(pending_, masked_crc(event));
}

}  // namespace trireme
