#include "core/data/synthetic.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "kernels/error.h"

namespace trireme {
namespace {

constexpr std::int64_t kCells = 8;
constexpr std::int64_t kMaxElements = std::int64_t{1} << 28;
constexpr std::int64_t kMaxCount = std::int64_t{1} << 48;
constexpr std::int64_t kMaxTestCount = 10'000;               // an evaluation goes through all of them
constexpr std::uint64_t kPatternPurpose = 0x7061747465726e;  // "pattern"
constexpr std::uint64_t kNoisePurpose = 0x6e6f697365;        // "noise"

/// Uniform with mean 0 and variance 1/2, so that pattern and noise add up to variance 1.
constexpr float kHalfWidth = 1.2247449f;
float centred(std::uint32_t bits) { return (2.0f * to_unit_float(bits) - 1.0f) * kHalfWidth; }

[[noreturn]] void fail_spec(const std::string& spec) {
  fail(ExitCode::kUsage,
       "--data: 'synthetic:{}' is not synthetic:C,H,W,classes,count with whole numbers from 1, "
       "C*H*W and C*classes*64 up to {}, count up to {}",
       spec, kMaxElements, kMaxCount);
}

std::array<std::int64_t, 5> parse(const std::string& spec) {
  std::array<std::int64_t, 5> values{};
  const char* at = spec.data();
  const char* const end = at + spec.size();
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0 && (at == end || *at++ != ',')) fail_spec(spec);
    const auto [next, error] = std::from_chars(at, end, values[i]);
    if (error != std::errc() || values[i] < 1 || values[i] > kMaxCount) fail_spec(spec);
    at = next;
  }
  if (at != end) fail_spec(spec);
  return values;
}

}  // namespace

std::unique_ptr<SyntheticDataset> SyntheticDataset::open(const std::string& spec, Split split) {
  const auto [channels, height, width, classes, count] = parse(spec.empty() ? "1,28,28,10,60000" : spec);
  // Divisions, because the products may overflow.
  if (channels > kMaxElements / height / width || classes > kMaxElements / (kCells * kCells) / channels)
    fail_spec(spec);
  const std::int64_t size =
      split == Split::kTrain ? count : std::clamp<std::int64_t>(count / 6, 1, kMaxTestCount);
  return std::make_unique<SyntheticDataset>(SampleShape{channels, height, width}, classes, size, split);
}

SyntheticDataset::SyntheticDataset(SampleShape shape, std::int64_t classes, std::int64_t size, Split split,
                                   std::uint64_t seed)
    : shape_(shape),
      classes_(classes),
      size_(size),
      noise_(random_key(seed, static_cast<std::uint64_t>(split), kNoisePurpose)),
      cell_rows_(std::min(kCells, shape.height)),
      cell_columns_(std::min(kCells, shape.width)) {
  TRIREME_CHECK(shape.elements() > 0 && classes > 0 && size > 0,
                "synthetic data: needs at least one element, class and sample, got {}, {} and {}",
                shape.elements(), classes, size);
  const RandomKey key = random_key(seed, 0, kPatternPurpose);
  const std::int64_t cells = classes * cell_rows_ * cell_columns_ * shape.channels;
  patterns_.reserve(static_cast<std::size_t>(cells));
  for (std::int64_t i = 0; i < cells; ++i)
    patterns_.push_back(centred(philox(key, 0, static_cast<std::uint64_t>(i))[0]));
  for (std::int64_t column = 0; column < shape.width; ++column)
    cell_of_column_.push_back(column * cell_columns_ / shape.width);
}

void SyntheticDataset::get(std::int64_t index, float* x, std::int64_t* y) const {
  TRIREME_CHECK(index >= 0 && index < size_, "data set: index {} is out of range 0..{}", index, size_ - 1);
  *y = index % classes_;
  const std::int64_t elements = shape_.elements();
  for (std::int64_t first = 0; first < elements; first += 4) {
    const auto bits =
        philox(noise_, static_cast<std::uint64_t>(index), static_cast<std::uint64_t>(first / 4));
    const std::int64_t last = std::min<std::int64_t>(4, elements - first);
    for (std::int64_t i = 0; i < last; ++i) x[first + i] = centred(bits[static_cast<std::size_t>(i)]);
  }
  const float* pattern = patterns_.data() + *y * cell_rows_ * cell_columns_ * shape_.channels;
  for (std::int64_t row = 0; row < shape_.height; ++row) {
    const float* cells = pattern + row * cell_rows_ / shape_.height * cell_columns_ * shape_.channels;
    for (const std::int64_t cell : cell_of_column_)
      for (std::int64_t c = 0; c < shape_.channels; ++c) *x++ += cells[cell * shape_.channels + c];
  }
}

}  // namespace trireme
