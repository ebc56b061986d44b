// Random changes to training images.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/data/dataset.h"
#include "kernels/rng.h"

namespace trireme {

/// The random changes to a training image. The default changes nothing.
struct Augmentation {
  /// Pads with this many zeros (the mean pixel of normalized data) on every side, then crops at random
  /// to the old size: shifts by up to `padding` pixels each way.
  int padding = 0;
  /// Mirrors left to right with probability one half.
  bool flip = false;

  bool active() const { return padding > 0 || flip; }
};

/// Returns the key of all augmentation in one epoch.
RandomKey augmentation_key(std::uint64_t seed, std::int64_t epoch);

/// Writes the augmented `in` to `out`; both hold one (H,W,C) image and must not overlap.
/// A pure function: draws depend on `key` and `sample`, the index in the data set, and on nothing else.
void augment(const Augmentation& augmentation, RandomKey key, std::int64_t sample, const SampleShape& shape,
             const float* in, float* out);

/// The images of `images` with random changes that differ from epoch to epoch.
class AugmentedImages final : public Dataset {
 public:
  /// `images` must live as long.
  AugmentedImages(const ImageDataset& images, const Augmentation& augmentation)
      : images_(images), augmentation_(augmentation) {}
  std::int64_t size() const override { return images_.size(); }
  std::vector<SampleField> fields() const override { return images_.fields(); }
  void read(const SampleId& id, std::span<std::byte* const> to) const override;
  std::string_view unit() const override { return images_.unit(); }

 private:
  const ImageDataset& images_;
  const Augmentation augmentation_;
};

}  // namespace trireme
