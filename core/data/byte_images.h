// Images kept as bytes in memory and normalized when they are read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/data/dataset.h"

namespace trireme {

/// Mean and standard deviation of each channel, of pixel values scaled to [0, 1].
struct Normalization {
  std::vector<double> mean;
  std::vector<double> stddev;
};

/// Measures `pixels` (channels last) in integers, so the result does not depend on any order of summation.
/// A channel that never varies gets a standard deviation of 1.
Normalization measure(const std::vector<std::uint8_t>& pixels, std::int64_t channels);

/// Pixels (N,H,W,C) and labels (N).
struct ByteImages {
  SampleShape shape;
  std::vector<std::uint8_t> pixels;
  std::vector<std::uint8_t> labels;
};

/// Fails with kData, naming `path`, index and value, at the first label that is not in [0, classes).
void check_labels(const std::vector<std::uint8_t>& labels, std::int64_t classes, const std::string& path);

/// A data set over ByteImages. A pixel p of channel c reads (p / 255 - mean[c]) / stddev[c].
class ByteImageDataset : public ImageDataset {
 public:
  /// `images` must agree with itself: as many labels as images, all in [0, classes).
  ByteImageDataset(ByteImages images, std::int64_t classes, Normalization normalization);

  std::int64_t size() const override { return static_cast<std::int64_t>(images_.labels.size()); }
  SampleShape sample_shape() const override { return images_.shape; }
  std::int64_t classes() const override { return classes_; }
  void get(std::int64_t index, float* x, std::int64_t* y) const override;

  const Normalization& normalization() const { return normalization_; }

 private:
  ByteImages images_;
  std::int64_t classes_;
  Normalization normalization_;
  std::vector<float> table_;  ///< (C, 256): the normalized value of every byte
};

}  // namespace trireme
