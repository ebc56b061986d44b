// Data sets of labelled images: the one interface that the loader needs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace trireme {

/// Which part of a data set.
enum class Split : std::uint8_t { kTrain, kTest };

/// The shape of one sample, without the batch dimension.
struct SampleShape {
  std::int64_t channels = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;

  std::int64_t elements() const { return channels * height * width; }
  bool operator==(const SampleShape&) const = default;
};

/// A fixed, finite list of labelled images.
///
/// Layout: a sample is written channels last, (H,W,C) with C fastest. A batch of N samples laid end to
/// end is then a tensor of logical shape (N,C,H,W) with channels-last strides (H*W*C, 1, W*C, C).
///
/// Thread-safety: every method may be called from any number of threads at once.
/// Determinism: get(i) gives the same bits in every process that opened the same data.
class Dataset {
 public:
  virtual ~Dataset() = default;

  /// Number of samples, at least 1.
  virtual std::int64_t size() const = 0;
  virtual SampleShape sample_shape() const = 0;
  /// Labels lie in [0, classes()).
  virtual std::int64_t classes() const = 0;

  /// Writes sample `index` of [0, size()): sample_shape().elements() normalized floats to `x`, its label to
  /// `y`. Fails with kData if the sample cannot be read, with kInternal if `index` is out of range.
  virtual void get(std::int64_t index, float* x, std::int64_t* y) const = 0;
};

/// Opens what `--data` names:
///
///     idx:DIR                                  MNIST and its kin (core/data/idx.h)
///     cifar:DIR                                CIFAR-10 in its binary version (core/data/cifar.h)
///     synthetic[:C,H,W,classes,count]          made up, learnable (core/data/synthetic.h)
///
/// Fails with kUsage if `spec` cannot be understood, with kData if the data cannot be read.
std::unique_ptr<Dataset> open_dataset(const std::string& spec, Split split);

}  // namespace trireme
