#include "core/data/byte_images.h"

#include <array>
#include <cmath>
#include <utility>

#include "kernels/error.h"

namespace trireme {

Normalization measure(const std::vector<std::uint8_t>& pixels, std::int64_t channels) {
  const std::size_t step = static_cast<std::size_t>(channels);
  TRIREME_CHECK(channels > 0 && !pixels.empty() && pixels.size() % step == 0,
                "measure: {} bytes are not whole pixels of {} channels", pixels.size(), channels);
  std::vector<std::array<std::uint64_t, 256>> counts(step, std::array<std::uint64_t, 256>{});
  for (std::size_t first = 0; first < pixels.size(); first += step)
    for (std::size_t c = 0; c < step; ++c) ++counts[c][pixels[first + c]];

  Normalization result;
  for (const auto& histogram : counts) {
    // 128 bits: n * sum of squares passes 2^64 from a few tens of millions of pixels on.
    unsigned __int128 n = 0, sum = 0, squares = 0;
    for (std::uint64_t value = 0; value < 256; ++value) {
      n += histogram[value];
      sum += histogram[value] * value;
      squares += histogram[value] * value * value;
    }
    const double count = static_cast<double>(n);
    const double variance = static_cast<double>(n * squares - sum * sum) / (count * count);
    result.mean.push_back(static_cast<double>(sum) / count / 255.0);
    result.stddev.push_back(variance > 0 ? std::sqrt(variance) / 255.0 : 1.0);
  }
  return result;
}

void check_labels(const std::vector<std::uint8_t>& labels, std::int64_t classes, const std::string& path) {
  for (std::size_t i = 0; i < labels.size(); ++i)
    if (labels[i] >= classes)
      fail(ExitCode::kData,
           "{}: label {} at index {} is out of range 0..{}; this is not a data set of {} classes, or "
           "it is damaged",
           path, labels[i], i, classes - 1, classes);
}

ByteImageDataset::ByteImageDataset(ByteImages images, std::int64_t classes, Normalization normalization)
    : images_(std::move(images)), classes_(classes), normalization_(std::move(normalization)) {
  const std::size_t channels = static_cast<std::size_t>(images_.shape.channels);
  TRIREME_CHECK(
      !images_.labels.empty() &&
          images_.pixels.size() == images_.labels.size() * static_cast<std::size_t>(images_.shape.elements()),
      "byte images: {} bytes of pixels do not go with {} labels of {} elements each", images_.pixels.size(),
      images_.labels.size(), images_.shape.elements());
  TRIREME_CHECK(normalization_.mean.size() == channels && normalization_.stddev.size() == channels,
                "byte images: normalization has {} means and {} deviations for {} channels",
                normalization_.mean.size(), normalization_.stddev.size(), channels);
  table_.reserve(channels * 256);
  for (std::size_t c = 0; c < channels; ++c)
    for (int value = 0; value < 256; ++value)
      table_.push_back(
          static_cast<float>((value / 255.0 - normalization_.mean[c]) / normalization_.stddev[c]));
}

void ByteImageDataset::get(std::int64_t index, float* x, std::int64_t* y) const {
  TRIREME_CHECK(index >= 0 && index < size(), "data set: index {} is out of range 0..{}", index, size() - 1);
  const std::size_t channels = static_cast<std::size_t>(images_.shape.channels);
  const std::size_t elements = static_cast<std::size_t>(images_.shape.elements());
  const std::uint8_t* pixels = images_.pixels.data() + static_cast<std::size_t>(index) * elements;
  for (std::size_t first = 0; first < elements; first += channels)
    for (std::size_t c = 0; c < channels; ++c) x[first + c] = table_[c * 256 + pixels[first + c]];
  *y = images_.labels[static_cast<std::size_t>(index)];
}

}  // namespace trireme
