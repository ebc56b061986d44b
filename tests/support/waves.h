// A dataset of small images with values of a sine, for jobs in tests.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/data/dataset.h"

namespace trireme::test {

class Waves final : public ImageDataset {
 public:
  explicit Waves(std::int64_t size, std::int64_t classes = 2, std::int64_t channels = 1, double mean = 0)
      : size_(size), classes_(classes), channels_(channels), mean_(mean) {}
  std::int64_t size() const override { return size_; }
  SampleShape sample_shape() const override { return {channels_, 4, 4}; }
  std::int64_t classes() const override { return classes_; }
  void get(std::int64_t index, float* x, std::int64_t* y) const override {
    const std::int64_t numbers = 16 * channels_;
    for (std::int64_t i = 0; i < numbers; ++i)
      x[i] = static_cast<float>(mean_ + std::sin(static_cast<double>(index * numbers + i)));
    *y = index % classes_;
  }

 private:
  const std::int64_t size_, classes_, channels_;
  const double mean_;
};

}  // namespace trireme::test
