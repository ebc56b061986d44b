// Made-up images that a model can learn: for tests and for measuring speed without files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/data/dataset.h"
#include "kernels/rng.h"

namespace trireme {

/// Sample i has label i mod classes. It is its class's own coarse pattern (up to 8x8 cells a channel) plus
/// as much uniform noise, of mean 0 and variance 1 in total. Both splits share the patterns; their noise
/// differs. A sample is a pure function of (shape, classes, split, seed, index), and costs no memory.
class SyntheticDataset final : public ImageDataset {
 public:
  /// `spec` is "C,H,W,classes,count" or empty for 1,28,28,10,60000. The training split has `count` samples,
  /// the test split a sixth of that, from 1 to 10000. Fails with kUsage if `spec` is malformed or out of
  /// bounds.
  static std::unique_ptr<SyntheticDataset> open(const std::string& spec, Split split);

  SyntheticDataset(SampleShape shape, std::int64_t classes, std::int64_t size, Split split,
                   std::uint64_t seed = 0);

  std::int64_t size() const override { return size_; }
  SampleShape sample_shape() const override { return shape_; }
  std::int64_t classes() const override { return classes_; }
  void get(std::int64_t index, float* x, std::int64_t* y) const override;

 private:
  SampleShape shape_;
  std::int64_t classes_;
  std::int64_t size_;
  RandomKey noise_;
  std::int64_t cell_rows_;
  std::int64_t cell_columns_;
  std::vector<float> patterns_;               ///< (classes, cell_rows, cell_columns, C)
  std::vector<std::int64_t> cell_of_column_;  ///< (W)
};

}  // namespace trireme
