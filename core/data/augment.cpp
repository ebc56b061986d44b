#include "core/data/augment.h"

#include <algorithm>

#include "kernels/error.h"

namespace trireme {
namespace {

constexpr std::uint64_t kAugmentPurpose = 0x6175676d656e74;  // "augment"

void copy_mirrored(const float* in, std::int64_t pixels, std::int64_t channels, float* out) {
  for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
    const float* from = in + (pixels - 1 - pixel) * channels;
    for (std::int64_t c = 0; c < channels; ++c) *out++ = from[c];
  }
}

}  // namespace

RandomKey augmentation_key(std::uint64_t seed, std::int64_t epoch) {
  return random_key(seed, static_cast<std::uint64_t>(epoch), kAugmentPurpose);
}

void augment(const Augmentation& augmentation, RandomKey key, std::int64_t sample, const SampleShape& shape,
             const float* in, float* out) {
  TRIREME_CHECK(augmentation.padding >= 0, "augment: padding {} must not be negative", augmentation.padding);
  const auto bits = philox(key, 0, static_cast<std::uint64_t>(sample));
  const auto places = 2 * static_cast<std::uint32_t>(augmentation.padding) + 1;
  const std::int64_t down = static_cast<std::int64_t>(to_bounded(bits[0], places)) - augmentation.padding;
  const std::int64_t right = static_cast<std::int64_t>(to_bounded(bits[1], places)) - augmentation.padding;
  const bool mirrored = augmentation.flip && (bits[2] >> 31) != 0;

  // Columns [first, last) of the crop lie inside the image, where they begin at first + right.
  const std::int64_t row_floats = shape.width * shape.channels;
  const std::int64_t first = std::clamp<std::int64_t>(-right, 0, shape.width);
  const std::int64_t last = std::clamp<std::int64_t>(shape.width - right, first, shape.width);
  for (std::int64_t row = 0; row < shape.height; ++row, out += row_floats) {
    const std::int64_t from_row = row + down;
    if (from_row < 0 || from_row >= shape.height || first == last) {
      std::fill_n(out, row_floats, 0.0f);
      continue;
    }
    const float* from = in + from_row * row_floats + (first + right) * shape.channels;
    // A mirrored crop has its margins mirrored as well.
    const std::int64_t begin = mirrored ? shape.width - last : first;
    const std::int64_t end = begin + last - first;
    std::fill_n(out, begin * shape.channels, 0.0f);
    if (mirrored)
      copy_mirrored(from, last - first, shape.channels, out + begin * shape.channels);
    else
      std::copy_n(from, (last - first) * shape.channels, out + begin * shape.channels);
    std::fill_n(out + end * shape.channels, (shape.width - end) * shape.channels, 0.0f);
  }
}

void AugmentedImages::read(const SampleId& id, std::span<std::byte* const> to) const {
  if (!augmentation_.active()) return images_.read(id, to);
  thread_local std::vector<float> plain;
  const SampleShape shape = images_.sample_shape();
  plain.resize(static_cast<std::size_t>(shape.elements()));
  images_.get(id.index, plain.data(), reinterpret_cast<std::int64_t*>(to[1]));
  augment(augmentation_, augmentation_key(id.seed, id.epoch), id.index, shape, plain.data(),
          reinterpret_cast<float*>(to[0]));
}

}  // namespace trireme
